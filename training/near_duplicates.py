"""Finds nearly equal texts by the Jaccard similarity of their three-word shingles. The search is exact.

In scripts that put no spaces between words, such as Chinese, Japanese and Thai, each character counts as a word.
"""

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Shingles = NDArray[np.int64]  # distinct hashes in ascending order

_UNSPACED = (  # blocks of Unicode: Thai, Lao, Tibetan, Myanmar, Khmer, kana, ideographs
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
WORDS = 3
AT_ONCE = 4_096  # texts whose shingles are counted together
SHARED = 8  # elements that two prefixes must share; with fewer, more texts that are not alike are compared
MOST_COUNTS = 1 << 24  # counts of shingles that are kept; shingles beyond that share them


def shingles(text: str) -> Shingles:
    """Return a hash of each three consecutive words in lower case, or of all words if there are fewer."""
    words = _WORD.findall(text.lower())
    return np.unique(
        np.fromiter((hash(tuple(words[i : i + WORDS])) for i in range(max(1, len(words) - WORDS + 1))), np.int64)
    )


class Index:
    """Texts that can be looked up by similarity.

    Two sets with a Jaccard similarity of at least t share k of the first n - ceil(t n) + k of their n elements, in any
    common order, for k up to ceil(t n). Only these elements are looked up, and no pair is missed. This is the prefix
    filter of Bayardo et al., Scaling Up All Pairs Similarity Search, WWW 2007, with the longer prefixes of Wang et al.,
    Can We Beat the Prefix Filtering?, SIGMOD 2012. The rarest elements come first, so few texts share them. It does no
    harm that several elements may share a count.

    The index holds a few elements of each text and no shingles, which take more memory than the texts.
    """

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self._texts, self._threshold = texts, threshold
        words = sum(map(len, texts)) // 4
        self._counts = np.zeros(min(1 << words.bit_length(), MOST_COUNTS), np.int64)
        for start in range(0, len(texts), AT_ONCE):
            found = np.concatenate([self._places(shingles(text)) for text in texts[start : start + AT_ONCE]])
            self._counts += np.bincount(found, minlength=len(self._counts))
        self._sizes = np.empty(len(texts), np.int32)
        prefixes = []
        for place, text in enumerate(texts):
            elements = shingles(text)
            self._sizes[place] = len(elements)
            prefixes.append(self._prefix(elements))
        holders = np.repeat(np.arange(len(prefixes), dtype=np.int32), [len(prefix) for prefix in prefixes])
        elements = np.concatenate([np.zeros(0, np.int64), *prefixes])
        order = np.argsort(elements, kind="stable")
        self._elements, self._holders = elements[order], holders[order]

    def nearest(self, text: str) -> tuple[int, float] | None:
        """Return the position and similarity of the most similar text, the first one among equals.

        Return None if no text reaches the threshold.
        """
        wanted = shingles(text)
        best: tuple[int, float] | None = None
        for place in self._candidates(wanted):
            similarity = _jaccard(wanted, shingles(self._texts[place]))
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = place, similarity
        return best

    def _candidates(self, wanted: Shingles) -> Iterator[int]:
        """Yield the positions of the texts of a like size that share enough of the prefix, in ascending order.

        Of two sets with a Jaccard similarity of at least t, the smaller has at least t times the size of the larger.
        """
        prefix = self._prefix(wanted)
        first, after = (np.searchsorted(self._elements, prefix, side) for side in ("left", "right"))
        shared = np.flatnonzero(first < after)
        holders = np.concatenate([self._holders[:0], *(self._holders[first[i] : after[i]] for i in shared)])
        places, found = np.unique(holders, return_counts=True)
        smaller, larger = np.minimum(self._sizes[places], len(wanted)), np.maximum(self._sizes[places], len(wanted))
        due = np.minimum(np.ceil(self._threshold * smaller - 1e-9), SHARED)
        yield from places[(smaller >= self._threshold * larger - 1e-9) & (found >= due)].tolist()

    def _prefix(self, elements: Shingles) -> Shingles:
        overlap = math.ceil(self._threshold * len(elements) - 1e-9)
        length = len(elements) - overlap + min(overlap, SHARED)
        return elements[np.argsort(self._counts[self._places(elements)], kind="stable")[:length]]

    def _places(self, elements: Shingles) -> NDArray[np.int64]:
        """Return the places of the counts of elements."""
        return elements & (len(self._counts) - 1)


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)

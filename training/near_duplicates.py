"""Finds nearly equal texts by the Jaccard similarity of their three-word shingles. The search is exact."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Shingles = NDArray[np.int64]  # distinct hashes in ascending order

_WORD = re.compile(r"\w+")
WORDS = 3


def shingles(text: str) -> Shingles:
    """Return a hash of each three consecutive words in lower case, or of all words if there are fewer."""
    words = _WORD.findall(text.lower())
    return np.unique(
        np.fromiter((hash(tuple(words[i : i + WORDS])) for i in range(max(1, len(words) - WORDS + 1))), np.int64)
    )


class Index:
    """Texts that can be looked up by similarity.

    Two sets with a Jaccard similarity of at least t share one of the first n - ceil(t n) + 1 of their n elements, in
    any common order. Only these elements are looked up, and no pair is missed. This is the prefix filter of Bayardo et
    al., Scaling Up All Pairs Similarity Search, WWW 2007. The rarest elements come first, so few texts share them.
    """

    def __init__(self, texts: Iterable[str], threshold: float) -> None:
        self._threshold = threshold
        self._sets = [shingles(text) for text in texts]
        none = np.zeros(0, np.int64)
        self._elements, self._counts = np.unique(np.concatenate([none, *self._sets]), return_counts=True)
        self._holders: dict[int, list[int]] = defaultdict(list)
        for place, elements in enumerate(self._sets):
            for element in self._prefix(elements):
                self._holders[element].append(place)

    def nearest(self, text: str) -> tuple[int, float] | None:
        """Return the position and similarity of the most similar text, the first one among equals.

        Return None if no text reaches the threshold.
        """
        if not self._sets:
            return None
        wanted = shingles(text)
        candidates = {place for element in self._prefix(wanted) for place in self._holders.get(element, ())}
        best: tuple[int, float] | None = None
        for place in sorted(candidates):
            similarity = _jaccard(wanted, self._sets[place])
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = place, similarity
        return best

    def _prefix(self, elements: Shingles) -> list[int]:
        length = len(elements) - math.ceil(self._threshold * len(elements) - 1e-9) + 1
        places = np.searchsorted(self._elements, elements).clip(max=len(self._elements) - 1)
        counts = np.where(self._elements[places] == elements, self._counts[places], 0)
        prefix: list[int] = elements[np.argsort(counts, kind="stable")[:length]].tolist()
        return prefix


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)

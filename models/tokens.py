"""Holds the token ids of many texts in one array, so that a slice is truncated, compared and padded all at once."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token ids of texts, end to end."""

    ids: NDArray[np.int32]  # token ids of all texts
    starts: NDArray[np.int64]  # start of each text in `ids`, and the end of the last one (texts + 1)

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "Tokens":
        """Return the tokens of texts that are lists of token ids."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ids = np.fromiter(itertools.chain.from_iterable(texts), np.int32, int(lengths.sum()))
        return cls(ids, _starts(lengths))

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Return the tokens of all texts, one part after the other."""
        ids = np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)])
        return cls(ids, _starts(np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each text."""
        return np.diff(self.starts)

    def of_texts(self, texts: Sequence[int] | NDArray[np.int64]) -> "Tokens":
        """Return the tokens of the texts with these indices."""
        texts = np.asarray(texts, np.int64)
        starts = _starts(self.lengths[texts])
        places = np.arange(starts[-1]) + np.repeat(self.starts[texts] - starts[:-1], self.lengths[texts])
        return Tokens(self.ids[places], starts)

    def without(self, first: int, last: int, max_tokens: int) -> "Tokens":
        """Return texts of at most `max_tokens` tokens.

        A longer text keeps its first `first` tokens and its last `last` ones, which add up to `max_tokens`.
        """
        if not (self.lengths > max_tokens).any():
            return self
        lengths = np.repeat(self.lengths, self.lengths)
        places = np.arange(len(self.ids)) - np.repeat(self.starts[:-1], self.lengths)
        kept = (lengths <= max_tokens) | (places < first) | (places >= lengths - last)
        return Tokens(self.ids[kept], _starts(np.minimum(self.lengths, max_tokens)))

    def distinct(self) -> tuple["Tokens", NDArray[np.int64]]:
        """Return the distinct texts in the order of their first places, and the row of each text among them."""
        content, bounds = self.ids.tobytes(), (self.starts * self.ids.itemsize).tolist()
        rows: dict[bytes, int] = {}
        row_of_text = np.fromiter(
            (rows.setdefault(content[start:end], len(rows)) for start, end in itertools.pairwise(bounds)),
            np.int64,
            len(self),
        )
        if len(rows) == len(self):
            return self, row_of_text
        return self.of_texts(np.unique(row_of_text, return_index=True)[1]), row_of_text

    def padded(self, width: int, pad_id: int) -> tuple[Ids, Ids | None]:
        """Return token ids and mask, both int64 (texts, width); no mask if every text has `width` tokens."""
        mask = np.arange(width) < self.lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        ids[mask] = self.ids
        return ids, None if mask.all() else mask.astype(np.int64)


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the start of each text, and the end of the last one, from their lengths."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts

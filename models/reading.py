"""Chooses which tokens of a text a model reads, alike in training and in inference.

A text that is longer than the network's limit is read at its beginning (`head`), at its beginning and its end
(`head_tail`), or in several windows whose logits are pooled (`windows_mean`, `windows_max`).
"""

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.text import TextRecipe
from models.tokenizing import Tokenizer
from models.tokens import Tokens

POOLED = ("windows_mean", "windows_max")


class Reading:
    """Turns the token ids of texts into the parts that the network computes, and their logits into those of texts."""

    def __init__(self, tokenizer: Tokenizer, recipe: TextRecipe) -> None:
        """Learn which special tokens stand before and after a text.

        Raises:
            ModelError: the tokenizer truncates a sample text in another way than at one side.
        """
        empty, one_letter = tokenizer.ids(["", "a"])
        before = next((i for i, (x, y) in enumerate(zip(empty, one_letter, strict=False)) if x != y), len(empty))
        self._recipe = recipe
        self._before, self._after = before, len(empty) - before
        self._room = recipe.max_tokens - len(empty)  # tokens of the text itself in a part
        self._left = tokenizer.truncation_side == "left"
        self.pooled = recipe.long in POOLED
        if recipe.long == "head":
            self._check(tokenizer)

    @property
    def most_tokens(self) -> int:
        """The number of tokens, special ones included, of the longest text that is read as a whole."""
        if not self.pooled:
            return self._recipe.max_tokens
        return self._room * self._recipe.windows + self._before + self._after

    @property
    def needed_tokens(self) -> int | None:
        """The number of tokens that a text has to be encoded to, one more than are read; None for all of them."""
        return None if self._recipe.long == "head_tail" else self.most_tokens + 1

    def parts(self, texts: Tokens) -> tuple[Tokens, NDArray[np.int64]]:
        """Return the parts of all texts, and the first part of each text with the number of parts at the end."""
        starts = np.arange(len(texts) + 1, dtype=np.int64)
        if self.pooled:
            return self._windows(texts)
        limit = self._recipe.max_tokens
        if self._recipe.long == "head_tail":
            tail = self._room // 2 + self._after
            return texts.without(limit - tail, tail, limit), starts
        first, last = (self._before, limit - self._before) if self._left else (limit - self._after, self._after)
        return texts.without(first, last, limit), starts

    def _windows(self, texts: Tokens) -> tuple[Tokens, NDArray[np.int64]]:
        """Cut each text into windows that follow each other, each with the special tokens of a whole text."""
        specials = self._before + self._after
        read = np.minimum(texts.lengths - specials, self._room * self._recipe.windows)
        counts = np.maximum(-(-read // self._room), 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        text_of_part = np.repeat(np.arange(len(texts)), counts)
        place = np.arange(len(text_of_part)) - starts[text_of_part]  # of a window in its text
        inner = np.minimum(read[text_of_part] - place * self._room, self._room)  # tokens of the text itself
        lengths = inner + specials
        ends = np.cumsum(lengths)
        part = np.repeat(np.arange(len(lengths)), lengths)
        offset = np.arange(ends[-1] if len(ends) else 0) - (ends - lengths)[part]
        text_start, text_length = texts.starts[:-1][text_of_part][part], texts.lengths[text_of_part][part]
        content = offset + place[part] * self._room
        tail = text_length - lengths[part] + offset
        source = np.where(offset < self._before, offset, np.where(offset < self._before + inner[part], content, tail))
        return Tokens(texts.ids[text_start + source], np.concatenate([[0], ends]).astype(np.int64)), starts

    def pool(self, logits: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the logits of texts (texts, labels), from those of their parts (parts, labels) and `parts`' starts."""
        if not self.pooled or not len(logits):
            return logits
        if self._recipe.long == "windows_max":
            return np.maximum.reduceat(logits, starts[:-1], axis=0)
        counts = np.diff(starts)[:, None].astype(np.float32)
        return (np.add.reduceat(logits, starts[:-1], axis=0) / counts).astype(np.float32)

    def _check(self, tokenizer: Tokenizer) -> None:
        limit = self._recipe.max_tokens
        sample = "one two three four five six seven eight nine ten " * limit
        expected, longer = (tokenizer.ids([sample], length)[0] for length in (limit, limit + 7))
        if self.parts(Tokens.of([longer]))[0].ids.tolist() != expected:
            raise ModelError(
                "expected a tokenizer that removes tokens from one side, found that it truncates in "
                "another way; use a model with another tokenizer."
            )

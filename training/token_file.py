"""Keeps the token ids of a split in a file, so that a training holds only the tokens of a batch in memory."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from models.text import TextRecipe
from training import measurement
from training.examples import Examples
from training.spool import Spool


class TokenFile(Dataset[dict[str, Any]]):
    """The examples of a split, as the token ids of each text's parts and its targets."""

    def __init__(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, recipe: TextRecipe) -> None:
        self._targets = examples.learnt
        self._spool = Spool()
        lengths, counts = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        for parts, starts in measurement.read_some(tokenizer, examples.texts, recipe):
            self._spool.append(parts.ids.tobytes())
            lengths.append(parts.lengths)
            counts.append(np.diff(starts))
        self._spool.flush()
        self._starts = np.cumsum(np.concatenate(lengths))  # of each part in the file, in tokens
        self._parts = np.cumsum(np.concatenate(counts))  # first part of each text
        self.lengths: NDArray[np.int64] = np.diff(self._starts[self._parts])  # tokens of each text
        self.parts: NDArray[np.int64] = np.diff(self._parts)  # parts of each text
        self.longest: NDArray[np.int64] = np.maximum.reduceat(np.diff(self._starts), self._parts[:-1])  # of its parts

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, text: int) -> dict[str, Any]:
        bounds = self._starts[self._parts[text] : self._parts[text + 1] + 1]
        size = np.dtype(np.int32).itemsize
        content = self._spool.read(int(bounds[0]) * size, int(bounds[-1] - bounds[0]) * size)
        ids = np.frombuffer(content, np.int32)
        parts = [ids[first:after] for first, after in itertools.pairwise((bounds - bounds[0]).tolist())]
        return {"parts": parts, "labels": self._targets[text]}

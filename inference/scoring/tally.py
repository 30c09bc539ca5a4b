"""Declares the counters of a slice and adds counters up.

A counter is declared once, as a field of `Counts`; receipts, summaries and totals derive from it.
"""

import functools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

# The probabilities of some documents and whether each label applies, both (documents, labels).
Decided = tuple[NDArray[np.float64], NDArray[np.bool_]]
Totals = dict[str, Any]  # values are numbers, lists of numbers, or nested totals

_one_at_a_time = threading.Lock()  # two threads would restore the limits of each other
BINS = 20  # every histogram has this many equal parts
MAX_LABELS_IN_DETAIL = 100  # models with more labels get no pairs and no score histograms


@dataclass(frozen=True)
class Counts:
    """Counters of scoring, by model name. The fields hold numbers, lists of numbers, or dicts of these."""

    tokens: dict[str, int] = field(
        default_factory=dict
    )  # tokens computed, with special tokens, without padding, by model
    padded_tokens: dict[str, int] = field(
        default_factory=dict
    )  # tokens computed, with special tokens and padding, by model
    repeated: dict[str, int] = field(default_factory=dict)  # documents with the tokens of an earlier one, by model
    truncated: dict[str, int] = field(default_factory=dict)  # predicted documents longer than the model reads, by model
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # documents with a label, by model and label
    pairs: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # documents with both labels, by model
    scores: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # histograms of scores, by model and label
    lengths: dict[str, list[int]] = field(default_factory=dict)  # histograms of tokens per predicted document, by model

    def count_lengths(self, model: str, lengths: NDArray[np.int64], max_tokens: int) -> None:
        """Fill in the counts of one model about the numbers of tokens of its documents."""
        self.truncated[model] = int((lengths > max_tokens).sum())
        (self.lengths[model],) = histograms(lengths[:, None] / (max_tokens + 1)).tolist()

    def count_labels(self, model: str, names: Sequence[str], decided: Iterable[Decided]) -> None:
        """Fill in the label counts of one model from its documents, which come in blocks."""
        detailed = len(names) <= MAX_LABELS_IN_DETAIL
        chosen_count = np.zeros(len(names), np.int64)
        together = np.zeros((len(names), len(names)) if detailed else 0, np.int64)
        by_score = np.zeros((len(names), BINS) if detailed else 0, np.int64)
        for probs, chosen in decided:
            chosen_count += chosen.sum(axis=0)
            if detailed:
                ones = chosen.astype(np.float64)  # numpy multiplies integers far more slowly
                # Other threads of the library would wait for more work, on the cores of the scorer.
                with _one_at_a_time, _blas().limit(limits=1):
                    together += (ones.T @ ones).astype(np.int64)
                by_score += histograms(probs)
        self.labels[model] = {name: int(count) for name, count in zip(names, chosen_count, strict=True) if count}
        if not detailed:
            return
        self.pairs[model] = {
            name: {other: int(count) for other, count in zip(names, row, strict=True) if count}
            for name, row in zip(names, np.triu(together, k=1), strict=True)
            if row.any()
        }
        self.scores[model] = dict(zip(names, by_score.tolist(), strict=True))


@functools.cache
def _blas() -> ThreadpoolController:
    """Return what sets the number of threads of the library that multiplies numpy's matrices."""
    return ThreadpoolController().select(user_api="blas")


def histograms(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the histogram of each column, (columns, BINS), of values (rows, columns) from 0 to 1.

    A histogram counts the values in each of BINS equal parts; the value 1 lies in the last part.
    """
    columns = values.shape[1]
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1) + np.arange(columns) * BINS
    return np.bincount(bins.ravel(), minlength=columns * BINS).reshape(columns, BINS)


def add(parts: Iterable[Totals]) -> Totals:
    """Return the sum of totals, key by key at every depth. The sum is associative, so Beam may add in any order."""
    total: Totals = {}
    for part in parts:
        add_to(total, part)
    return total


def add_to(total: Totals, part: Totals) -> None:
    """Add a part to a total in place."""
    for key, value in part.items():
        if isinstance(value, dict):
            add_to(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            total[key] = [a + b for a, b in zip(total[key], value, strict=True)] if key in total else value
        else:
            total[key] = total.get(key, 0) + value

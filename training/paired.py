"""Compares two models on the same documents: differences of F1, with intervals and p-values.

The bootstrap draws whole groups of documents, such as the tweets of an author, and for both models the same ones.
Functions take counts of right predictions, of predictions and of due labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.decision import Floats

RESAMPLES = 4_000
AT_ONCE = 100  # resamples in one array


@dataclass(frozen=True)
class Difference:
    """A measure of both models, with the interval and the p-value of their difference."""

    first: float
    second: float
    low: float  # 95 % interval of the difference
    high: float
    p: float  # two-sided p-value of no difference

    @property
    def difference(self) -> float:
        """The second value minus the first one."""
        return self.second - self.first


def differences(
    predicted: Sequence[NDArray[np.bool_]], targets: Floats, groups: NDArray[np.int64], seed: int = 0
) -> tuple[Difference, list[Difference]]:
    """Return the difference of macro-F1, and that of each label's F1.

    Args:
        predicted: labels given by the first and by the second model (documents, labels)
        targets: 1, 0, or NaN for an unknown label (documents, labels)
        groups: the number of each document's group, from 0 (documents,)
        seed: seed of the bootstrap
    """
    known, truth = ~np.isnan(targets), targets > 0
    counts = [_by_group([given & truth, given & known, truth], groups) for given in predicted]
    observed = [_f1(of_model.sum(axis=0)[None])[0] for of_model in counts]
    chance = np.random.default_rng(seed)
    number = counts[0].shape[0]
    drawn = np.empty((RESAMPLES, 2, targets.shape[1]))
    for start in range(0, RESAMPLES, AT_ONCE):
        draws = chance.integers(number, size=(AT_ONCE, number))
        times = np.stack([np.bincount(draw, minlength=number) for draw in draws]).astype(np.float64)
        for model, of_model in enumerate(counts):
            sums = (times @ of_model.reshape(number, -1)).reshape(AT_ONCE, *of_model.shape[1:])
            drawn[start : start + AT_ONCE, model] = _f1(sums)
    resampled = drawn[:, 1] - drawn[:, 0]
    macro = _difference(observed[0].mean(), observed[1].mean(), resampled.mean(axis=1))
    pairs = enumerate(zip(*observed, strict=True))
    return macro, [_difference(first, second, resampled[:, i]) for i, (first, second) in pairs]


def _by_group(kinds: Sequence[NDArray[np.bool_]], groups: NDArray[np.int64]) -> Floats:
    """Return the number of documents of each kind in each group (groups, kinds, labels)."""
    sums = np.zeros((int(groups.max()) + 1, len(kinds), kinds[0].shape[1]))
    for kind, of_kind in enumerate(kinds):
        np.add.at(sums[:, kind], groups, of_kind)
    return sums


def _f1(counts: Floats) -> Floats:
    """Return F1 (resamples, labels) of counts (resamples, kinds, labels); 0 where there is nothing."""
    below = counts[:, 1] + counts[:, 2]
    return np.divide(2 * counts[:, 0], below, out=np.zeros_like(below), where=below > 0)


def _difference(first: float, second: float, resampled: Floats) -> Difference:
    """Return the percentile interval, and twice the share of resamples on the rarer side of zero."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    rarer = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (rarer + 1) / (len(resampled) + 1))
    return Difference(float(first), float(second), float(low), float(high), float(p))


def discoveries(p_values: Sequence[float], rate: float = 0.05) -> list[bool]:
    """Return which differences hold up, such that at most this share of them is expected to be false.

    Benjamini and Hochberg, Controlling the False Discovery Rate, 1995.
    """
    p = np.asarray(p_values)
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / len(p))
    found = np.zeros(len(p), bool)
    found[order[: below[-1] + 1 if len(below) else 0]] = True
    return found.tolist()

"""Estimates the documents of a label in a whole population from a labelled sample.

The count is a difference estimator: the sum of the scores p over all documents, and in each stratum of N documents, N
times the mean of y - p over those drawn, where y is 1 if a document has the label. It has no bias, however wrong the
scores are. Särndal, Swensson and Wretman (1992), "Model Assisted Survey Sampling", chapter 6, describe it.

Its interval is the wider of two. The first is normal, with the variance of y - p within the strata; it counts one more
document that varies as the scores say, so that a stratum in which all drawn agree is not taken as certain. Its quantile
is that of a t distribution with as many degrees of freedom as documents of the rarer kind were drawn. The second draws
the share of each stratum from a Beta distribution around the mean score. It is not symmetric, which fits rare labels.
`benchmarks/audit` measures how often the truth lies inside.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inference.audits.strata import adding_up

DRAWS = 4_000  # draws from the Beta distributions
EXTRA = 1.0  # documents that vary as the scores say, beside those drawn of a stratum
WORTH_OF_PART = 2.0  # documents that the scores of a group are worth, beside those drawn of it
LEAST_SHARE = 1e-6  # least share that is thought possible, and least distance from 1
FEWEST_DEGREES = 4  # fewest degrees of freedom of the normal interval, which are the documents drawn of the rarer kind
LEVEL = 0.95
QUANTILES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
Z = float(stats.norm.ppf(QUANTILES[1]))


class Interval(NamedTuple):
    """An estimate, with an interval that is meant to hold the truth in 95 of 100 audits."""

    value: float
    low: float
    high: float

    def over(self, divisor: float) -> "Interval":
        """Return the interval of a multiple."""
        return Interval(*(number / divisor for number in self))


@dataclass(frozen=True, eq=False)
class Labelled:
    """A label of the sample, and what is known of the scores of the whole population."""

    documents: NDArray[np.int64]  # (strata, groups, 2), documents of the population without and with the model's label
    expected: NDArray[np.float64]  # the same shape, sums of their scores
    stratum: NDArray[np.int64]  # (drawn,), the stratum of each document drawn
    group: NDArray[np.int64]  # (drawn,), its group
    applies: NDArray[np.int64]  # (drawn,), 1 if the model gave it the label
    score: NDArray[np.float64]  # (drawn,), its score
    truth: NDArray[np.float64]  # (drawn,), 1 if it has the label

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Return the number of documents of each stratum."""
        return self.documents.sum(axis=(1, 2))

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Return the number of documents drawn of each stratum."""
        return np.bincount(self.stratum, minlength=len(self.documents))


@dataclass(frozen=True)
class Estimate:
    """What an audit says of one label."""

    documents: int  # documents of the population
    naive: int  # documents that the model gave the label
    count: Interval  # documents that have the label
    precision: Interval | None  # share of the model's that have it; None if the model gave it to none
    recall: Interval | None  # share of those that have it that the model found; None if none was seen
    positives: int  # documents drawn that have the label


def estimate(labelled: Labelled, seed: int = 0) -> Estimate:
    """Return what the sample says of a label."""
    rng = np.random.default_rng(seed)
    naive = int(labelled.documents[:, :, 1].sum())
    given = labelled.applies.astype(np.float64)
    by_decision = _simulate(
        labelled, labelled.documents.sum(axis=1), labelled.expected.sum(axis=1), labelled.applies, rng
    )
    found, all_with = by_decision[1], by_decision.sum(axis=0)
    total = _total(labelled)
    hits = float(labelled.expected[:, :, 1].sum()) + _correction(labelled, given)
    precision = recall = None
    if naive:
        precision = _share(_wider(_normal(labelled, hits, given).over(naive), found / naive))
    if total > 0 and labelled.truth.any():
        share = float(np.clip(hits / total, 0, 1))
        normal = _normal(labelled, 0.0, given - share).over(total)
        shares = found / np.maximum(all_with, 1e-9)
        recall = _share(_wider(Interval(share, share + normal.low, share + normal.high), shares))
    positives = int(labelled.truth.sum())
    count = _count(labelled, all_with)
    return Estimate(int(labelled.sizes.sum()), naive, count, precision, recall, positives)


def by_group(labelled: Labelled, count: float, seed: int = 0) -> list[Interval]:
    """Return the count of each group. They add up to `count`, the count of the whole population.

    A group with strata of its own is estimated from them alone. Otherwise few documents are drawn of a group, so that
    its share of a stratum begins at the stratum's own, shifted as the scores of the group are. That is worth
    WORTH_OF_PART documents of the group.
    """
    rng = np.random.default_rng(seed)
    by_part = labelled.documents.sum(axis=2)
    simulated = _simulate(labelled, by_part, labelled.expected.sum(axis=2), labelled.group, rng)
    if ((by_part > 0).sum(axis=1) == 1).all():
        found = np.array([_count(_only(labelled, group), draws) for group, draws in enumerate(simulated)])
    else:
        means = simulated.mean(axis=1)
        scale = count / means.sum() if means.sum() else 1.0
        found = np.stack([means, *np.quantile(simulated, QUANTILES, axis=1)], axis=1) * scale
    groups = len(found)
    least = np.bincount(labelled.group, labelled.truth, groups).astype(np.float64)
    most = (by_part.sum(axis=0) - np.bincount(labelled.group, 1 - labelled.truth, groups)).astype(np.float64)
    values = adding_up(found[:, 0], least, most, count)
    low, high = (np.clip(column, least, most) for column in found[:, 1:].T)
    rows = zip(values, np.minimum(low, values), np.maximum(high, values), strict=True)
    return [Interval(*map(float, row)) for row in rows]


def _only(labelled: Labelled, group: int) -> Labelled:
    """Return the part of a sample that belongs to a group with strata of its own."""
    strata, drawn = labelled.documents[:, group].sum(axis=1) > 0, labelled.group == group
    number = np.cumsum(strata) - 1
    return Labelled(
        labelled.documents[strata],
        labelled.expected[strata],
        number[labelled.stratum[drawn]],
        labelled.group[drawn],
        labelled.applies[drawn],
        labelled.score[drawn],
        labelled.truth[drawn],
    )


def expected_half_width(
    documents: NDArray[np.int64], drawn: NDArray[np.int64], variances: NDArray[np.float64]
) -> float:
    """Return half the width of the count's interval that a draw can expect if the scores are right.

    All arguments have a number for each stratum: its documents, those to draw, and the mean of p (1 - p).
    """
    return Z * float(np.sqrt((documents * (documents - drawn) / np.maximum(drawn, 1) * variances).sum()))


def most_in_stratum(drawn: int, positives: int) -> float:
    """Return the largest share of a stratum that can have the label, by Clopper and Pearson (1934)."""
    return 1.0 if positives == drawn else float(stats.beta.ppf(QUANTILES[1], positives + 1, drawn - positives))


def _count(labelled: Labelled, draws: NDArray[np.float64]) -> Interval:
    """Return the count of the documents with the label; `draws` are simulated ones."""
    normal = _normal(labelled, _total(labelled), np.ones(len(labelled.truth)))
    return _within(_wider(normal, draws), labelled)


def _total(labelled: Labelled) -> float:
    return float(labelled.expected.sum()) + _correction(labelled, np.ones(len(labelled.truth)))


def _correction(labelled: Labelled, factor: NDArray[np.float64]) -> float:
    """Return the estimate of the sum of factor (y - p) over the population."""
    sums = np.bincount(labelled.stratum, factor * (labelled.truth - labelled.score), len(labelled.documents))
    return float((labelled.sizes / np.maximum(labelled.drawn, 1) * sums).sum())


def _normal(labelled: Labelled, value: float, factor: NDArray[np.float64]) -> Interval:
    """Return the normal interval of the sum of factor y over the population."""
    sizes, drawn, strata = labelled.sizes, labelled.drawn, len(labelled.documents)
    residuals = factor * (labelled.truth - labelled.score)
    means = np.bincount(labelled.stratum, residuals, strata) / np.maximum(drawn, 1)
    squares = np.bincount(labelled.stratum, (residuals - means[labelled.stratum]) ** 2, strata).astype(np.float64)
    as_scored = factor**2 * labelled.score * (1 - labelled.score)
    squares += EXTRA * np.bincount(labelled.stratum, as_scored, strata) / np.maximum(drawn, 1)
    of_stratum = squares / np.maximum(drawn - 1 + EXTRA, 1)
    rarer = min(labelled.truth.sum(), len(labelled.truth) - labelled.truth.sum())
    quantile = float(stats.t.ppf(QUANTILES[1], max(rarer, FEWEST_DEGREES)))
    half = quantile * float(np.sqrt((sizes * (sizes - drawn) / np.maximum(drawn, 1) * of_stratum).sum()))
    return Interval(value, value - half, value + half)


def _simulate(
    labelled: Labelled,
    documents: NDArray[np.int64],
    expected: NDArray[np.float64],
    part: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return draws of the documents with the label in each part of the population, (parts, DRAWS).

    `documents` and `expected` are (strata, parts), `part` is that of each document drawn.
    """
    strata, parts = documents.shape
    place = labelled.stratum * parts + part
    drawn = np.bincount(place, minlength=strata * parts).reshape(strata, parts)
    positives = np.bincount(place, labelled.truth, strata * parts).reshape(strata, parts)
    total = np.zeros((parts, DRAWS), np.float64)
    for number in range(strata):
        filled = np.flatnonzero(documents[number])
        found = _of_stratum(
            documents[number, filled], expected[number, filled], drawn[number, filled], positives[number, filled], rng
        )
        total[filled] = total[filled] + found
    return total


def _of_stratum(
    documents: NDArray[np.int64],
    expected: NDArray[np.float64],
    drawn: NDArray[np.int64],
    positives: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return draws of the documents with the label in each part of one stratum, (parts, DRAWS)."""
    prior = (expected / documents)[:, None]
    if len(documents) == 1:
        shares = _beta(prior, np.inf, drawn[:, None], positives[:, None], rng)
    else:  # the parts share what is known of their stratum
        mean = expected.sum(keepdims=True) / documents.sum()
        rate = _beta(mean[:, None], np.inf, drawn.sum(), positives.sum(), rng)
        prior = prior * rate / np.maximum(mean, LEAST_SHARE)
        shares = _beta(prior, WORTH_OF_PART, drawn[:, None], positives[:, None], rng)
    return positives[:, None] + rng.binomial((documents - drawn)[:, None], shares)


def _beta(
    prior: NDArray[np.float64], most: float, drawn: Any, positives: Any, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return draws of shares, (shares, DRAWS), that were thought to be `prior`, (shares, 1 or DRAWS).

    The prior is worth as many documents as hold one of the rarer kind, and `most` at most.
    """
    mean = np.clip(prior, LEAST_SHARE, 1 - LEAST_SHARE)
    worth = np.minimum(1 / np.minimum(mean, 1 - mean), most)
    return rng.beta(worth * mean + positives, worth * (1 - mean) + drawn - positives, (len(prior), DRAWS))


def _wider(normal: Interval, draws: NDArray[np.float64]) -> Interval:
    low, high = map(float, np.quantile(draws, QUANTILES))
    return Interval(normal.value, min(normal.low, low), max(normal.high, high))


def _within(interval: Interval, labelled: Labelled) -> Interval:
    """Return the interval without what the sample rules out: it holds documents with the label, and without it."""
    least = labelled.truth.sum()
    most = labelled.sizes.sum() - (1 - labelled.truth).sum()
    return Interval(*(float(np.clip(number, least, most)) for number in interval))


def _share(interval: Interval) -> Interval:
    return Interval(*(float(np.clip(number, 0, 1)) for number in interval))


def agreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return Cohen's kappa (1960) of two coders; 1 if both say the same of every document."""
    same = float((one == other).mean())
    by_chance = float(one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean()))
    return 1.0 if by_chance == 1 else (same - by_chance) / (1 - by_chance)

"""Cuts a population into strata by its scores, and decides how many documents of each are drawn.

A document belongs to the label about which the model is least sure, and within it to a range of scores. The ranges are
chosen by the rule of Dalenius and Hodges (1959), so that about as many documents are drawn of each. The numbers follow
Neyman (1934): a stratum of N documents with scores p gets a share proportional to N sqrt(mean of p (1 - p)). A tenth
of the sample follows N alone, in case the scores mislead.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from inference.audits.population import SCALE, Block
from inference.scoring.tally import Totals
from models.errors import UserError

BINS = 2_000  # parts of the range of scores, finer near 0 and 1: a stratum is a range of them
LEAST = 10  # fewest documents drawn of a stratum that has as many
MOST_GROUPS = 500  # most values of the grouping field
MOST = 10  # most ranges of scores of a label
OWN_RANGES = 4  # fewest ranges of a label that make strata within a group
AT_RANDOM = 0.1  # share of the sample that is drawn without regard to the scores
EVERY = None  # group of a stratum that holds documents of all groups


@dataclass(frozen=True)
class Stratum:
    """Some documents of a population, of which a number is drawn by chance."""

    group: str | None  # value of the grouping field; None for documents of every group
    label: int  # place of the label about which the model is least sure
    first: int  # first bin of its scores
    last: int  # last bin
    documents: int  # number of documents in it
    drawn: int  # number of documents drawn
    variances: tuple[float, ...]  # mean of p (1 - p) of each label's scores p

    @property
    def room(self) -> tuple[str | None, int]:
        """Return what the ranges of scores divide: a group and a label. They follow each other in a design."""
        return self.group, self.label


@dataclass(frozen=True)
class Design:
    """The strata of a population. Together they hold each document once."""

    weights: tuple[float, ...]  # weight of each label's variance in the choice of its documents' stratum
    strata: tuple[Stratum, ...]

    def strata_of(self, block: Block) -> NDArray[np.int64]:
        """Return the number of the stratum of each document of a block."""
        owners = _owners(block, self.weights)
        bins = bins_of(block.scores[np.arange(len(owners)), owners])
        found = np.full(len(owners), -1)
        groups, group_of = np.unique(np.array(block.groups, object), return_inverse=True)
        place_of = {group: place for place, group in enumerate(groups)}
        for (group, label), room in itertools.groupby(enumerate(self.strata), key=lambda one: one[1].room):
            numbers, strata = zip(*room, strict=True)
            inside = owners == label
            if group is not EVERY:
                inside &= group_of == place_of.get(group, -1)
            range_of = np.searchsorted([stratum.last for stratum in strata], bins[inside])
            found[inside] = np.array(numbers)[range_of]
        return found


@cache
def _table() -> NDArray[np.int16]:
    """Return the bin of each score from 0 to SCALE; equal steps of arcsin sqrt p."""
    scores = np.arange(SCALE + 1) / SCALE
    return np.minimum(np.arcsin(np.sqrt(scores)) / (np.pi / 2) * BINS, BINS - 1).astype(np.int16)


def bins_of(scores: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each score in millionths."""
    return _table()[scores].astype(np.int64)


def _owners(block: Block, weights: Sequence[float]) -> NDArray[np.int64]:
    """Return the place of the label about which the model is least sure, for each document."""
    return np.argmax(block.variances * np.asarray(weights), axis=1)


def variances(block: Block) -> Totals:
    """Return the sum of p (1 - p) of each label, in units of SCALE squared, by its place."""
    return {str(place): int(total) for place, total in enumerate(block.variances.sum(axis=0))}


def weights_of(total: Totals) -> tuple[float, ...]:
    """Return weights with which each label's variance adds up to the same."""
    return tuple(float(SCALE**2) / max(total[place], 1) for place in sorted(total, key=int))


def histogram(block: Block, weights: Sequence[float]) -> Totals:
    """Return by group, label and bin: the number of documents, and their sums of p (1 - p) for each label."""
    owners = _owners(block, weights)
    bins = bins_of(block.scores[np.arange(len(owners)), owners])
    groups, group_of = np.unique(np.array(block.groups, object), return_inverse=True)
    keys, inverse = np.unique(np.stack([group_of, owners, bins]), axis=1, return_inverse=True)
    counts = np.bincount(inverse)
    sums = np.zeros((len(counts), len(weights)), np.int64)
    np.add.at(sums, inverse, block.variances)
    total: Totals = {}
    for (group, owner, cell), count, variance in zip(keys.T, counts.tolist(), sums.tolist(), strict=True):
        by_label = total.setdefault(groups[group], {}).setdefault(str(owner), {})
        by_label[str(cell)] = [count, *variance]
    return total


def design(counted: Totals, weights: Sequence[float], size: int) -> Design:
    """Return strata for a sample of `size` documents, from what `histogram` counted over all documents.

    The strata lie within the groups if each group can get OWN_RANGES for each label. Otherwise they hold documents of
    every group.

    Raises:
        UserError: the size allows fewer than LEAST documents for each label, or exceeds the population.
    """
    documents = sum(values[0] for labels in counted.values() for bins in labels.values() for values in bins.values())
    if size > documents:
        raise UserError(f"--size: expected at most the {documents:,} documents of the run, found {size:,}.")
    groups = len(counted)
    if groups > MOST_GROUPS:
        raise UserError(f"--by: expected at most {MOST_GROUPS} values, found {groups:,}; name another field.")
    within = groups > 1 and size >= OWN_RANGES * 2 * LEAST * len(weights) * groups
    rooms = len(weights) * (groups if within else 1)
    if size < LEAST * rooms:
        raise UserError(
            f"--size {size:,}: expected at least {LEAST * rooms:,}, {LEAST} for each label; audit fewer labels, or "
            "give a larger size."
        )
    ranges = max(min(size // (2 * LEAST * rooms), MOST), 1)
    found, spreads = [], []
    tables = _histograms(counted, len(weights), within=within)
    for (group, label), bins in sorted(tables.items(), key=lambda item: (item[0][0] or "", item[0][1])):
        importance = np.stack([bins[:, 0], bins[:, 1:] @ np.asarray(weights) / SCALE**2], axis=1)
        for first, last in _ranges(importance, ranges):
            count, *sums = bins[first : last + 1].sum(axis=0).tolist()
            variances = tuple(total / count / SCALE**2 for total in sums)
            found.append(Stratum(group, label, first, last, int(count), 0, variances))
            spreads.append(float(np.sqrt(np.dot(variances, weights))))
    drawn = allocate([one.documents for one in found], spreads, size)
    return Design(tuple(weights), tuple(replace(one, drawn=count) for one, count in zip(found, drawn, strict=True)))


def _histograms(counted: Totals, labels: int, *, within: bool) -> dict[tuple[str | None, int], NDArray[np.float64]]:
    """Return a table (bins, 1 + labels) for each label, and each group if the strata lie `within` the groups."""
    tables: dict[tuple[str | None, int], NDArray[np.float64]] = {}
    for group, by_label in sorted(counted.items()):
        for label, bins in by_label.items():
            room = (group if within else EVERY, int(label))
            table = tables.setdefault(room, np.zeros((BINS, 1 + labels)))
            table[list(map(int, bins))] += list(bins.values())
    return tables


def _ranges(table: NDArray[np.float64], ranges: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last bin of each range; `table` holds documents and variance, (bins, 2)."""
    importance = np.sqrt(table[:, 0] * table[:, 1])
    if not importance.any():
        importance = table[:, 0]
    middle = (np.cumsum(importance) - importance / 2) / importance.sum()
    of_bin = np.minimum((middle * ranges).astype(int), ranges - 1)
    filled = np.flatnonzero(table[:, 0])
    first = 0
    for number in np.unique(of_bin[filled]):
        last = int(np.flatnonzero(of_bin <= number)[-1])
        yield first, last if number != of_bin[filled][-1] else BINS - 1
        first = last + 1


def allocate(documents: Sequence[int], spreads: Sequence[float], size: int) -> list[int]:
    """Return how many documents of each stratum are drawn: `size` in all, at least LEAST of each that has as many."""
    counts, spread = np.asarray(documents, np.float64), np.asarray(spreads)
    importance = counts * spread if (counts * spread).any() else counts
    wanted = size * ((1 - AT_RANDOM) * importance / importance.sum() + AT_RANDOM * counts / counts.sum())
    fewest = np.minimum(counts, LEAST)
    exact = adding_up(wanted, fewest, counts, size)
    drawn = np.floor(exact + 1e-9)
    room = np.flatnonzero(drawn < counts)
    order = room[np.argsort(-(exact - drawn)[room], kind="stable")]
    drawn[order[: int(size - drawn.sum())]] += 1
    return [int(count) for count in drawn]


def adding_up(
    values: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64], total: float
) -> NDArray[np.float64]:
    """Return the multiples of values that add up to a total, each moved to its limits if it lies beyond them."""
    values = np.maximum(values, 1e-9)
    low, high = 0.0, max(float((most / values).max()), 1.0)
    for _ in range(200):  # halves what is left of the range of the factor
        factor = (low + high) / 2
        low, high = (factor, high) if np.clip(values * factor, least, most).sum() < total else (low, factor)
    return np.clip(values * high, least, most)

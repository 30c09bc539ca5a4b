"""Compares a model's F1 on documents that share a value of a column, such as a year, with that on all others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from models.labels import Task
from models.names import for_terminal
from training import label_tables, terminal
from training.measurement import Measurement
from training.paired import discoveries

FEWEST = 30  # documents of a value that is looked at by itself; those of the others are joined
FEWEST_LABELLED = 10  # documents that have a label, below which nothing is said of it
ENOUGH = 200  # such documents for which the normal distribution holds; there is a permutation test for fewer
PERMUTATIONS = 2_000
OTHERS = "(others)"
ALL = "(all labels)"  # stands for micro-F1


@dataclass(frozen=True)
class Subgroup:
    """The F1 of one label, or of all, on the documents with one value and on all other documents."""

    value: str
    label: str
    documents: int
    f1: float
    f1_elsewhere: float
    low: float  # 95 % interval of the difference
    high: float
    p: float  # two-sided p-value of no difference
    holds_up: bool = False  # one of the differences of which at most one in twenty is expected to be none


def compare(measurement: Measurement) -> list[Subgroup]:
    """Return a comparison for each value of the examples' groups and each label, with micro-F1 first.

    A label that few documents have on either side is left out, because its F1 there would say nothing. F1 depends on
    how frequent a label is, so that a difference may be one of frequency alone.
    """
    values = _values(measurement.examples.groups or [])
    names, hits, decisions, due = _counts(measurement)
    found: list[Subgroup] = []
    chance = np.random.default_rng(0)
    for value in sorted(set(values.tolist())):
        inside = values == value
        for name, right, decided, labelled in zip(names, hits.T, decisions.T, due.T, strict=True):
            if min(labelled[inside].sum(), labelled[~inside].sum()) < FEWEST_LABELLED:
                continue
            found.append(Subgroup(value, name, int(inside.sum()), *_difference(right, decided, inside, chance)))
    held = discoveries([one.p for one in found]) if found else []
    return [Subgroup(**asdict(one) | {"holds_up": holds}) for one, holds in zip(found, held, strict=True)]


def _values(groups: Sequence[str]) -> NDArray[Any]:
    """Return the value of each document, or OTHERS for a rare one."""
    counts = Counter(groups)
    return np.array([group if counts[group] >= FEWEST else OTHERS for group in groups])


def _counts(measurement: Measurement) -> tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return names, and twice the right labels, labels given and due, and labels due, all (documents, names)."""
    examples, labels = measurement.examples, measurement.labels
    shown = slice(1 if labels.task is Task.BINARY else 0, None)
    given = measurement.predicted & examples.known
    hits = 2 * (given & examples.positive).astype(np.int64)
    decisions = given.astype(np.int64) + examples.positive
    hits, decisions, due = (
        np.concatenate([counts.sum(axis=1, keepdims=True), counts[:, shown]], axis=1)
        for counts in (hits, decisions, examples.positive.astype(np.int64))
    )
    return [ALL, *labels.names[shown]], hits, decisions, due


def _difference(
    hits: NDArray[Any], decisions: NDArray[Any], inside: NDArray[np.bool_], chance: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """Return F1 inside and elsewhere, the 95 % interval of their difference, and its p-value.

    F1 is a ratio of two sums over documents. The interval is by linearisation with the spread of all documents
    (Cochran, Sampling Techniques, 1977, chapter 6), so that a few that are all right do not look like certainty. For a
    small group, the p-value is that of a permutation test among the documents that the label concerns.
    """
    concerned = decisions > 0
    hits, decisions, inside = hits[concerned], decisions[concerned], inside[concerned]
    sizes = [(hits[side].sum(), decisions[side].sum()) for side in (inside, ~inside)]
    f1, elsewhere = (float(above / below) for above, below in sizes)
    residuals = hits - hits.sum() / decisions.sum() * decisions
    errors = [residuals.std() * np.sqrt(side.sum()) / decisions[side].sum() for side in (inside, ~inside)]
    spread, difference = float(np.hypot(*errors)), f1 - elsewhere
    if inside.sum() >= ENOUGH:
        p = float(2 * norm.sf(abs(difference) / spread)) if spread else 1.0
    else:
        drawn = _draws(len(hits), int(inside.sum()), chance)
        above, below = hits[drawn].sum(axis=1), decisions[drawn].sum(axis=1)
        shuffled = above / below - (hits.sum() - above) / (decisions.sum() - below)
        p = float((1 + (np.abs(shuffled) >= abs(difference) - 1e-12).sum()) / (1 + PERMUTATIONS))
    return f1, elsewhere, difference - 1.96 * spread, difference + 1.96 * spread, p


def _draws(documents: int, size: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Return sets of `size` of the documents (PERMUTATIONS, size).

    A document may be drawn twice where there are many to draw from, which hardly matters then.
    """
    if documents > 20 * size:
        return chance.integers(documents, size=(PERMUTATIONS, size))
    return np.argpartition(chance.random((PERMUTATIONS, documents)), size - 1, axis=1)[:, :size]


def show(found: Sequence[Subgroup], column: str) -> None:
    """Print micro-F1 for each value, and the labels whose F1 differs."""
    table = terminal.new_table(f"micro-F1 by {column}")
    for heading in (column, "documents", "F1", "F1 - F1 elsewhere (95 %)", ""):
        table.add_column(heading, justify="left" if heading == column else "right")
    for one in found:
        if one.label == ALL:
            interval = f"{one.f1 - one.f1_elsewhere:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
            mark = "*" if one.holds_up else ""
            table.add_row(one.value, f"{one.documents:,}", f"{one.f1:.3f}", interval, mark)
    terminal.print_table(table)
    for one in found:
        if one.holds_up and one.label != ALL:
            sentence = f"{one.label}: F1 {one.f1:.3f} where {column} is {one.value}, {one.f1_elsewhere:.3f} elsewhere"
            print(for_terminal(sentence))
    if any(one.holds_up for one in found):
        print("Of the differences with a star or a line of their own, at most one in twenty is expected to be chance.")


def write(found: Sequence[Subgroup], path: Path) -> None:
    """Write all comparisons as CSV."""
    header = list(Subgroup.__dataclass_fields__)
    label_tables.write_csv(path, header, ([_cell(value) for value in asdict(one).values()] for one in found))


def _cell(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else int(value) if isinstance(value, bool) else value

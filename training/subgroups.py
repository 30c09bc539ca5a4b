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
from training import label_tables, terminal
from training.measurement import Measurement
from training.paired import discoveries

FEWEST = 30  # documents of a value that is looked at by itself; those of the others are joined
FEWEST_LABELLED = 10  # documents that have a label or got it, for which the standard error holds
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

    Labels with few documents on either side are left out. F1 depends on how frequent a label is, so that a difference
    may be one of frequency alone.
    """
    values = _values(measurement.examples.groups or [])
    names, hits, decisions = _counts(measurement)
    found: list[Subgroup] = []
    for value in sorted(set(values.tolist())):
        inside = values == value
        for name, ours, due in zip(names, hits.T, decisions.T, strict=True):
            if min(np.count_nonzero(due[inside]), np.count_nonzero(due[~inside])) < FEWEST_LABELLED:
                continue
            (f1, error), (elsewhere, other_error) = (_ratio(ours[side], due[side]) for side in (inside, ~inside))
            spread, difference = float(np.hypot(error, other_error)), f1 - elsewhere
            p = float(2 * norm.sf(abs(difference) / spread)) if spread else float(difference == 0)
            low, high = difference - 1.96 * spread, difference + 1.96 * spread
            found.append(Subgroup(value, name, int(inside.sum()), f1, elsewhere, low, high, p))
    held = discoveries([one.p for one in found]) if found else []
    return [Subgroup(**asdict(one) | {"holds_up": holds}) for one, holds in zip(found, held, strict=True)]


def _values(groups: Sequence[str]) -> NDArray[Any]:
    """Return the value of each document, or OTHERS for a rare one."""
    counts = Counter(groups)
    return np.array([group if counts[group] >= FEWEST else OTHERS for group in groups])


def _counts(measurement: Measurement) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Return names, twice the right decisions, and the labels given and due, both (documents, names)."""
    examples, labels = measurement.examples, measurement.labels
    shown = slice(1 if labels.task is Task.BINARY else 0, None)
    given = measurement.predicted & examples.known
    hits = 2 * (given & examples.positive).astype(np.int64)
    decisions = given.astype(np.int64) + examples.positive
    hits, decisions = (
        np.concatenate([counts.sum(axis=1, keepdims=True), counts[:, shown]], axis=1) for counts in (hits, decisions)
    )
    return [ALL, *labels.names[shown]], hits, decisions


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> tuple[float, float]:
    """Return the ratio of two sums over documents, and its standard error by linearisation.

    See Cochran, Sampling Techniques, 1977, chapter 6.
    """
    ratio, documents = above.sum() / below.sum(), len(below)
    residuals = np.square(above - ratio * below).sum() * documents / max(documents - 1, 1)
    return float(ratio), float(np.sqrt(residuals) / below.sum())


def show(found: Sequence[Subgroup], column: str) -> None:
    """Print micro-F1 for each value, and the labels whose F1 differs."""
    table = terminal.new_table(f"micro-F1 by {column}")
    for heading in (column, "documents", "F1", "elsewhere", "difference (95 %)"):
        table.add_column(heading, justify="left" if heading == column else "right")
    for one in found:
        if one.label == ALL:
            mark = " *" if one.holds_up else ""
            interval = f"{one.f1 - one.f1_elsewhere:+.3f} ({one.low:+.3f} to {one.high:+.3f}){mark}"
            table.add_row(one.value, f"{one.documents:,}", f"{one.f1:.3f}", f"{one.f1_elsewhere:.3f}", interval)
    terminal.print_table(table)
    for one in found:
        if one.holds_up and one.label != ALL:
            print(f"{one.label}: F1 {one.f1:.3f} where {column} is {one.value}, {one.f1_elsewhere:.3f} elsewhere")
    if any(one.holds_up for one in found):
        print(
            "A star, or a line of its own, marks differences of which at most one in twenty is expected to be chance."
        )


def write(found: Sequence[Subgroup], path: Path) -> None:
    """Write all comparisons as CSV."""
    header = list(Subgroup.__dataclass_fields__)
    label_tables.write_csv(path, header, ([_cell(value) for value in asdict(one).values()] for one in found))


def _cell(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else int(value) if isinstance(value, bool) else value

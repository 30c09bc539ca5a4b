"""Writes the measurement of a split as CSV files for each label, and prints it as a table."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import names
from models.decision import Decision, Floats, thresholds_of
from models.labels import LabelSchema, Task
from training import metrics, terminal
from training.measurement import Measurement

FOLDER = "evaluation"  # folder of the tables in a model's directory
PREFIXES = {"validation": "val", "test": "holdout"}  # of file names, by split
SCORES = ("id", "truth", "score", "predicted", "group")  # columns of a table of scores
JOBS = ("SLURM_JOB_ID", "JOB_ID")  # where Slurm and Grid Engine say which job this is
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of cells that a spreadsheet would compute


def write(measurement: Measurement, decision: Decision, directory: Path, data_path: str, run_id: str) -> None:
    """Write `<split>_<label>_evaluation.csv` and `<split>_<label>_scores.csv` for each label.

    The first has a row for each metric, at 0.5 and at the threshold, with the label, the date, the data path, the run
    id and the number of the scheduler's job, if there is one. The second has a row for each document: its id, the truth
    (0 or 1, or empty if it is unknown), the score, the decision (0 or 1), and the value of `data.split_by`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    prefix = PREFIXES[measurement.split]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    labels, values = measurement.labels, measurement.metrics
    thresholds = thresholds_of(labels, decision)
    files = names.distinct(labels.names, also=".-")
    for i, (name, file) in enumerate(zip(labels.names, files, strict=True)):
        if labels.task is Task.BINARY and i == 0:
            continue  # the negative label's table would say the same
        stem = f"{prefix}_{file}"
        rows: list[tuple[str, Any]] = [("label", name), ("date", date), ("data_path", data_path), ("run_id", run_id)]
        rows += [("job_id", next((os.environ[name] for name in JOBS if name in os.environ), ""))]
        rows += [("documents", values["documents"]), ("threshold", thresholds.get(name, "highest score"))]
        rows += _metric_rows(values, name)
        write_csv(directory / f"{stem}_evaluation.csv", ("metric", "value"), rows)
        scores = zip(
            measurement.examples.ids,
            ["" if np.isnan(target) else int(target) for target in measurement.examples.targets[:, i].tolist()],
            measurement.probs[:, i].round(6).tolist(),
            measurement.predicted[:, i].astype(int).tolist(),
            measurement.examples.groups or [""] * len(measurement.examples),
            strict=True,
        )
        write_csv(directory / f"{stem}_scores.csv", SCORES, scores)


@dataclass(frozen=True)
class Scores:
    """The decisions of a model on a split. Arrays are (documents, labels)."""

    ids: list[str]
    targets: Floats  # 1, 0, or NaN for an unknown label
    predicted: NDArray[np.bool_]
    groups: NDArray[np.int64]  # number of each document's group, from 0 (documents,); without groups, of the document


def read_scores(directory: Path, split: str, labels: LabelSchema) -> Scores:
    """Return what `write` has written of a split.

    Raises:
        OSError: a table is missing.
        ValueError, KeyError: a table is damaged.
    """
    files = names.distinct(labels.names, also=".-")[1 if labels.task is Task.BINARY else 0 :]
    tables = [_columns(directory / f"{PREFIXES[split]}_{file}_scores.csv") for file in files]
    ids, groups = tables[0]["id"], tables[0].get("group", [])
    if any(table["id"] != ids for table in tables):
        raise ValueError("the tables of two labels have other documents")
    targets = [[float(cell) if cell else np.nan for cell in table["truth"]] for table in tables]
    predicted = [[cell == "1" for cell in table["predicted"]] for table in tables]
    keys = groups if any(groups) else list(map(str, range(len(ids))))
    numbers = np.unique(keys, return_inverse=True)[1]
    truth, given = np.array(targets, np.float32).T, np.array(predicted).T
    if labels.task is Task.BINARY:  # the negative label has no table
        truth, given = np.concatenate([1 - truth, truth], axis=1), np.concatenate([~given, given], axis=1)
    return Scores(ids, truth, given, numbers)


def _columns(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _metric_rows(values: dict[str, Any], label: str) -> Iterator[tuple[str, Any]]:
    at_threshold = values["labels"][label]
    for key in ("support", "average_precision", "roc_auc"):
        yield key, at_threshold[key]
    at_half = values["at_half"]["labels"][label] if "at_half" in values else None
    for suffix, measures in (("at_threshold", at_threshold), ("at_0.5", at_half)):
        if measures:
            yield from ((f"{key}_{suffix}", measures[key]) for key in (*metrics.MEASURES, "predicted"))
    for key, (low, high) in values["intervals"]["labels"][label].items():
        yield f"{key}_at_threshold_low", low
        yield f"{key}_at_threshold_high", high


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whose cells no spreadsheet computes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_inert(cell) for cell in row] for row in rows)


def _inert(cell: Any) -> Any:
    """Return the cell, marked as a text if a spreadsheet would take it for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def show(measurement: Measurement) -> None:
    """Print the measures of each label as a table."""
    values = measurement.metrics
    low, high = values["intervals"]["macro_f1"]
    table = terminal.new_table(
        f"{measurement.split}: macro-F1 {values['macro_f1']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"micro-F1 {values['micro_f1']:.3f}"
    )
    columns = {"precision": "precision", "recall": "recall", "F1": "f1", "avg. precision": "average_precision"}
    table.add_column("label")
    for heading in (*columns, "support"):
        table.add_column(heading, justify="right")
    for name, of_label in values["labels"].items():
        cells = ("–" if of_label[key] is None else f"{of_label[key]:.3f}" for key in columns.values())
        table.add_row(name, *cells, f"{of_label['support']:,}")
    terminal.print_table(table)

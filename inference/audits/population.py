"""Reads the scores of all documents of a run, a file of rows at a time.

The documents of a run on a delta are those that it labelled and those that the delta kept.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.corpus import kept_fields, storage
from inference.runs import lineage, run_folder, sink
from inference.runs.lineage import Labels
from inference.runs.receipts import Receipt
from models.errors import UserError

SCALE = 1_000_000  # a score is a whole number of millionths, so that sums are exact in any order
AT_ONCE = 10_000  # rows of a block
NONE = "none of these"  # choice of a coder, which no label may be named
MISSING = ""  # group of a document without a value


@dataclass(frozen=True)
class RowFile:
    """A file with rows of predictions."""

    number: int  # place among the files of the population
    path: str
    sha256: str
    slice: str | None  # name of the slice of the run; None for rows that a delta kept


@dataclass(frozen=True)
class Question:
    """What an audit asks about each document."""

    model: str  # name of the model in the rows
    labels: tuple[str, ...]  # labels that are audited
    places: tuple[int, ...]  # place of each among the model's scores, which all rows share
    by: str | None  # kept field whose values are the groups


@dataclass(frozen=True)
class Population:
    """All documents that a run has labelled."""

    source: str  # folder of the run
    labels: Labels
    files: tuple[RowFile, ...]
    predicted: int  # documents that the run itself labelled, without those that its delta kept
    all_labels: tuple[str, ...]  # labels of the model, in its order
    question: Question

    @property
    def identity(self) -> str:
        """Return what tells this population from any other: the hashes of all rows, in order."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Block:
    """Some documents of a file, in its order."""

    first: int  # number of the first row in the file, from 0
    ids: list[str]
    groups: list[str]
    scores: NDArray[np.int64]  # (documents, labels), in millionths
    applies: NDArray[np.bool_]  # (documents, labels), whether the model gave the label

    @property
    def variances(self) -> NDArray[np.int64]:
        """Return p (1 - p) of each score p, (documents, labels), in units of SCALE squared."""
        return self.scores * (SCALE - self.scores)


def find(source: str, model: str | None, labels: Sequence[str], by: str | None) -> Population:
    """Return the documents of a finished run.

    Raises:
        UserError: the folder holds no finished run, its rows lack the scores, or it has no such model or field.
    """
    source = source if storage.is_remote(source) else os.path.abspath(source)
    found = lineage.find_labels(source)
    names = [entry["name"] for entry in found.models]
    if model is None and len(names) > 1:
        raise UserError(f"--model: expected one of the models {', '.join(names)}, found none; name it.")
    if model is not None and model not in names:
        raise UserError(f"--model {model}: expected one of {', '.join(names)}; name one of them.")
    if found.options["scores"] != "all":
        raise UserError(
            f"{source}: expected rows with every score, found those of --scores {found.options['scores']}; label the "
            "corpus with --scores all."
        )
    kept = list(kept_fields.types(found.options["keep_fields"]))
    if by is not None and by not in kept:
        raise UserError(
            f"--by {by}: expected a field that the rows hold ({', '.join(kept) or 'they hold none'}); label the corpus "
            f"with --keep_fields {by}."
        )
    receipts = run_folder.finished_receipts(found.run) if found.run else []
    files = tuple(_files(found, receipts))
    all_labels = _labels_of(files, model or names[0], source)
    if wrong := [label for label in labels if label not in all_labels or label == NONE]:
        raise UserError(f"--label {wrong[0]}: expected a label of the model: {', '.join(all_labels)}.")
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"--label {twice[0]}: expected labels that differ, found one twice; give it once.")
    question = Question(model or names[0], tuple(labels), tuple(map(all_labels.index, labels)), by)
    return Population(source, found, files, sum(receipt.predicted for receipt in receipts), all_labels, question)


def _labels_of(files: Sequence[RowFile], model: str, source: str) -> tuple[str, ...]:
    """Return the labels of a model, in the order of its scores, from the first row."""
    for file in files:
        for row in sink.rows_of(file.path, _content(file)):
            return tuple(score["label"] for score in row[model]["scores"])
    raise UserError(f"{source}: expected a run with predictions, found none in it; name another.")


def _files(found: Labels, receipts: Sequence[Receipt]) -> Iterator[RowFile]:
    """Yield the files in an order that depends on the input alone."""
    sources: list[tuple[str, str, str | None]] = []
    if found.run:
        for receipt in sorted(receipts, key=lambda receipt: receipt.number):
            path, sha256 = sink.recorded_predictions(receipt, found.run)
            sources.append((path, sha256, receipt.slice))
    if found.delta:
        sources += [(path, sha256, None) for path, sha256 in lineage.kept_files(found.delta)]
    for number, (path, sha256, piece) in enumerate(sources):
        yield RowFile(number, path, sha256, piece)


def blocks(file: RowFile, question: Question) -> Iterator[Block]:
    """Yield the documents of a file in blocks.

    Raises:
        UserError: the file is gone or has changed.
    """
    first, rows = 0, []
    for row in sink.rows_of(file.path, _content(file)):
        rows.append(row)
        if len(rows) == AT_ONCE:
            yield _block(first, rows, question)
            first, rows = first + len(rows), []
    if rows:
        yield _block(first, rows, question)


def _content(file: RowFile) -> bytes:
    return storage.read_checked(file.path, file.sha256, "put it back, or label the corpus again")


def _block(first: int, rows: Sequence[dict[str, Any]], question: Question) -> Block:
    labellings = [row[question.model] for row in rows]
    scores = np.array([[one["scores"][place]["score"] for place in question.places] for one in labellings], np.float64)
    applies = np.array([[label in one["labels"] for label in question.labels] for one in labellings], np.bool_)
    groups = [group_of(row, question.by) for row in rows]
    return Block(first, [row["id"] for row in rows], groups, np.rint(scores * SCALE).astype(np.int64), applies)


def group_of(row: dict[str, Any], by: str | None) -> str:
    """Return the group of a row: the value of the field as text, MISSING if there is none."""
    value = row[by] if by else None
    return MISSING if value is None else str(value)

"""Reads the scores of all documents of a run, a file of rows at a time.

The documents of a run on a delta are those that it labelled and those that the delta kept.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.corpus import kept_fields, storage
from inference.runs import lineage, run_folder, sink
from inference.runs.lineage import Labels
from models.errors import UserError

SCALE = 1_000_000  # a score is a whole number of millionths, so that sums are exact in any order
AT_ONCE = 10_000  # rows of a block
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
    by: str | None  # kept field whose values are the groups


@dataclass(frozen=True)
class Population:
    """All documents that a run has labelled."""

    source: str  # folder of the run
    labels: Labels
    files: tuple[RowFile, ...]
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
    return Population(source, found, tuple(_files(found)), Question(model or names[0], tuple(labels), by))


def _files(found: Labels) -> Iterator[RowFile]:
    """Yield the files in an order that depends on the input alone."""
    sources: list[tuple[str, str, str | None]] = []
    if found.run:
        for receipt in sorted(run_folder.finished_receipts(found.run), key=lambda receipt: receipt.number):
            path, sha256 = sink.recorded_predictions(receipt, found.run)
            sources.append((path, sha256, receipt.slice))
    if found.delta:
        sources += [(path, sha256, None) for path, sha256 in lineage.kept_files(found.delta)]
    for number, (path, sha256, piece) in enumerate(sources):
        yield RowFile(number, path, sha256, piece)


def blocks(file: RowFile, question: Question) -> Iterator[Block]:
    """Yield the documents of a file in blocks.

    Raises:
        UserError: the file is gone or has changed, or a label is none of the model's.
    """
    content = storage.read_checked(file.path, file.sha256, "put it back, or label the corpus again")
    first, rows = 0, []
    places: list[int] | None = None
    for row in sink.rows_of(file.path, content):
        places = places or _places(row[question.model]["scores"], question)
        rows.append(row)
        if len(rows) == AT_ONCE:
            yield _block(first, rows, places, question)
            first, rows = first + len(rows), []
    if rows and places is not None:
        yield _block(first, rows, places, question)


def _places(scores: Sequence[dict[str, Any]], question: Question) -> list[int]:
    """Return the place of each audited label among the scores of a row, which all rows share."""
    names = [score["label"] for score in scores]
    if unknown := [label for label in question.labels if label not in names]:
        raise UserError(f"--label {unknown[0]}: expected a label of the model {question.model}: {', '.join(names)}.")
    return [names.index(label) for label in question.labels]


def _block(first: int, rows: Sequence[dict[str, Any]], places: Sequence[int], question: Question) -> Block:
    labellings = [row[question.model] for row in rows]
    scores = np.array([[one["scores"][place]["score"] for place in places] for one in labellings], np.float64)
    applies = np.array([[label in one["labels"] for label in question.labels] for one in labellings], np.bool_)
    groups = [group_of(row, question.by) for row in rows]
    return Block(first, [row["id"] for row in rows], groups, np.rint(scores * SCALE).astype(np.int64), applies)


def group_of(row: dict[str, Any], by: str | None) -> str:
    """Return the group of a row: the value of the field as text, MISSING if there is none."""
    value = row[by] if by else None
    return MISSING if value is None else str(value)

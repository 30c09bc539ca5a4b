"""Joins the predictions of a finished run with the rows of its input, in the order of the input.

One slice is in memory at a time.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from inference.corpus import counting, slices
from inference.corpus.counting import Unit
from inference.corpus.files import DAMAGE_ERRORS, InputFile
from inference.corpus.records import Line, record_or_nothing
from inference.corpus.slices import Part
from inference.runs import run_folder, sink, slice_list
from inference.runs.receipts import Receipt
from models.errors import UserError


class Row(NamedTuple):
    """A line of the input that is not blank, and what the run made of it."""

    record: dict[str, Any]  # all fields that were asked for; none if the line holds no JSON object
    prediction: dict[str, Any] | None  # row of the predictions, or None if the line failed
    failure: str | None  # reason of the failure
    size: int  # bytes of the line


class JoinedRun:
    """A finished run, beside its input."""

    def __init__(self, run: str, fields: Sequence[str] = ()) -> None:
        """Read what is needed of the run.

        Args:
            run: The folder of the run.
            fields: Input fields to read; all of them if there are none.

        Raises:
            UserError: the folder holds no finished run, or one without a list of its slices.
        """
        self.run = run
        self.fields = tuple(fields)
        self.description = run_folder.require(run, finished=True)
        self._options = self.description["options"]
        self._receipts = {receipt.slice: receipt for receipt in run_folder.finished_receipts(run)}
        found = slice_list.read(run, self.description["run"])
        if found is None:
            raise UserError(f"{run}: expected {slice_list.SLICES} of the run, found none; repeat its command.")
        self._slices = found
        self.inputs = [file["path"] for file in self.description["files"]]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the record of each line that holds one.

        Raises:
            SourceError: the input has changed since it was labelled, or cannot be read.
        """
        with _Reader(self._options["slice_bytes"]) as reader:
            for piece in self._slices:
                for part in piece.parts:
                    for line in reader.lines(part, self.fields):
                        yield self._only_asked(record_or_nothing(line))

    def rows(self) -> Iterator[Row]:
        """Yield a row for each line that is not blank.

        Raises:
            SourceError: the input has changed since it was labelled, or cannot be read.
            UserError: a file of the run is gone or has changed, or its rows do not fit the lines.
        """
        yield from (row for _, row in self.rows_of(self._receipts))

    def rows_of(self, names: Collection[str]) -> Iterator[tuple[str, Row]]:
        """Yield what `rows` yields for some slices, each row with the name of its slice."""
        fields = [*self.fields, self._options["id_field"]] if self.fields else ()
        with _Reader(self._options["slice_bytes"]) as reader:
            for piece in self._slices:
                if piece.name in names:
                    lines = ((part, line) for part in piece.parts for line in reader.lines(part, fields))
                    yield from ((piece.name, row) for row in self._rows_of_slice(lines, self._receipts[piece.name]))

    def _rows_of_slice(self, lines: Iterator[tuple[Part, Line]], receipt: Receipt) -> Iterator[Row]:
        predictions = sink.read_slice(receipt, self.run)
        failures = sink.read_failures(receipt, self.run) if receipt.failed else []
        reasons = {(row["file"], row["line"]): row["reason"] for row in failures}
        counts = Counter[bool]()
        for part, line in lines:
            if line.is_blank:
                continue
            reason = reasons.get((part.file.path, line.number))
            if line.problem and reason is None:  # labelled without reading all fields, as those of Parquet can be
                raise UserError(
                    f"{part.file.path}: row {line.number:,} has a field that cannot be written ({line.problem[1]}); "
                    "name the fields to write with --fields."
                )
            prediction = next(predictions, None) if reason is None else None
            found = record_or_nothing(line)
            if prediction and prediction["id"] != self._id(found, part, line):
                raise self._other_rows(receipt)
            counts[reason is None and prediction is not None] += 1
            yield Row(self._only_asked(found), prediction, reason, line.size)
        if (counts[True], counts[False]) != (receipt.predicted, receipt.failed) or next(predictions, None):
            raise self._other_rows(receipt)

    def _id(self, record: dict[str, Any], part: Part, line: Line) -> str:
        id_field = self._options["id_field"]
        return str(record.get(id_field)) if id_field else f"{part.file.path}:{line.number}"

    def _only_asked(self, record: dict[str, Any]) -> dict[str, Any]:
        return {name: record[name] for name in self.fields if name in record} if self.fields else record

    def _other_rows(self, receipt: Receipt) -> UserError:
        return UserError(
            f"{self.run}: expected the rows of {receipt.slice} to fit its lines, found others; see `labelbeam verify "
            f"{self.run} --input`."
        )


class _Reader:
    """Reads parts in the order of the input. A compressed file is expanded once, into a folder of temporary copies."""

    def __init__(self, slice_bytes: int) -> None:
        self._slice_bytes = slice_bytes
        self._file: InputFile | None = None
        self._copies = tempfile.TemporaryDirectory()

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.cleanup()

    def lines(self, part: Part, fields: Sequence[str]) -> Iterator[Line]:
        """Yield the lines of a part. `fields` are those needed, or all if there are none.

        Raises:
            SourceError: the file has changed since its lines were counted, or cannot be read.
        """
        if part.has_copy and part.file != self._file:
            self._expand(part.file)
        try:
            yield from slices.read_lines(part, self._copies.name, fields or None)
        except DAMAGE_ERRORS:
            raise slices.changed(part) from None

    def _expand(self, file: InputFile) -> None:
        self._copies.cleanup()
        self._copies = tempfile.TemporaryDirectory()
        list(counting.count(Unit((file,)), self._slice_bytes, self._copies.name))
        self._file = file

"""Writes the rows of a joined run as one Parquet, JSON lines or CSV file."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from inference.corpus.records import to_json
from inference.runs.joined import Row
from models.names import repeated

Layout = Literal["lists", "columns"]
FAILURE = "failure"  # column with the reason of a line that has no prediction
MOST_ROWS = 10_000  # rows of a row group
SCORES_AT_ONCE = 500_000  # scores of a row group, which are Python objects for a while
BYTES_AT_ONCE = 32 * 1024 * 1024  # bytes of input of a row group
EXACT = 2**53  # integers up to this size are exact as floats

# Columns of labels: the Arrow type of each, by its name.
Columns = dict[str, pa.DataType]
_SCORES = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))


class Labels:
    """The columns of labels that a layout makes of a row of predictions."""

    def __init__(self, names: dict[str, Sequence[str]], layout: Layout) -> None:
        """Take the label names of each model, by the model's name.

        `lists` makes a column with the labels and one with the scores. `columns` makes two for each label: whether the
        label applies, and its score, which is empty if the run did not write it.
        """
        self._names = names
        self._layout = layout
        self.rows_at_once = max(min(MOST_ROWS, SCORES_AT_ONCE // max(sum(map(len, names.values())), 1)), 1)
        pairs = []
        for model, labels in names.items():
            if layout == "lists":
                pairs += [(f"{model}_labels", pa.list_(pa.string())), (f"{model}_scores", _SCORES)]
            for label in labels if layout == "columns" else ():
                pairs += [(f"{model}_{label}", pa.bool_()), (f"{model}_{label}_score", pa.float64())]
        self.columns: Columns = dict(pairs)
        self.repeated = repeated([FAILURE, *(name for name, _ in pairs)])  # names that two columns would have

    def of(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """Return the values of the columns for a row of predictions."""
        values: dict[str, Any] = {}
        for model, labels in self._names.items():
            chosen, scores = prediction[model]["labels"], prediction[model]["scores"]
            if self._layout == "lists":
                values |= {f"{model}_labels": chosen, f"{model}_scores": scores}
                continue
            score_of = {score["label"]: score["score"] for score in scores}
            for label in labels:
                values[f"{model}_{label}"] = label in chosen
                values[f"{model}_{label}_score"] = score_of.get(label)
        return values


def field_types(records: Iterable[dict[str, Any]]) -> Columns:
    """Return an Arrow type for each field of some records, in the order in which the fields appear.

    Values of one type are a boolean, an integer, a float or a string. Integers and floats together are floats. All
    others are JSON text: nested values, mixed types, and integers that the type cannot hold.
    """
    seen: defaultdict[str, set[type]] = defaultdict(set)
    for record in records:
        for name, value in record.items():
            seen[name].add(type(value))
            if type(value) is int and abs(value) > EXACT:
                seen[name].add(complex if abs(value) < 2**63 else str)
    return {name: _field_type(kinds - {type(None)}) for name, kinds in seen.items()}


def _field_type(kinds: set[type]) -> pa.DataType:
    for found, arrow in ((bool, pa.bool_()), (float, pa.float64())):
        if kinds == {found}:
            return arrow
    if int in kinds and kinds <= {int, complex}:
        return pa.int64()
    return pa.float64() if kinds == {int, float} else pa.string()


def write_parquet(rows: Iterable[Row], fields: Columns, labels: Labels, file: IO[bytes]) -> int:
    """Write Parquet. Return the number of rows."""
    columns = {**fields, **labels.columns, FAILURE: pa.string()}
    schema = pa.schema(list(columns.items()))
    total = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in _chunks(rows, labels.rows_at_once):
            arrays = [
                pa.array([_value(row.record.get(name), kind) for row in chunk], kind) for name, kind in fields.items()
            ]
            of_labels = [labels.of(row.prediction) if row.prediction else {} for row in chunk]
            arrays += [pa.array([row.get(name) for row in of_labels], kind) for name, kind in labels.columns.items()]
            arrays.append(pa.array([row.failure for row in chunk], pa.string()))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            total += len(chunk)
    return total


def write_json(rows: Iterable[Row], fields: Columns, labels: Labels, file: IO[bytes]) -> int:  # noqa: ARG001
    """Write JSON lines. Return the number of rows. A line that failed has its fields and the reason."""
    total = 0
    for row in rows:
        made = labels.of(row.prediction) if row.prediction else {}
        file.write(to_json({**row.record, **made, FAILURE: row.failure}) + b"\n")
        total += 1
    return total


def write_csv(rows: Iterable[Row], fields: Columns, labels: Labels, file: IO[bytes]) -> int:
    """Write CSV in UTF-8. Return the number of rows. Nested values are JSON text."""
    total = 0
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow([*fields, *labels.columns, FAILURE])
    for row in rows:
        made = labels.of(row.prediction) if row.prediction else {}
        values = [*(row.record.get(name) for name in fields), *(made.get(name) for name in labels.columns), row.failure]
        writer.writerow(map(_cell, values))
        total += 1
    text.detach()
    return total


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield rows in groups of at most `size` rows, and of little more than BYTES_AT_ONCE of input."""
    chunk: list[Row] = []
    length = 0
    for row in rows:
        chunk.append(row)
        length += row.size
        if len(chunk) == size or length >= BYTES_AT_ONCE:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def _value(value: Any, kind: pa.DataType) -> Any:
    """Return a value as a column of this type takes it."""
    if value is None or kind != pa.string():
        return value
    return value if isinstance(value, str) else to_json(value).decode()


def _cell(value: Any) -> Any:
    """Return a value as a cell of CSV. Python's writer knows numbers, also those that JSON has not."""
    if value is None or isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return to_json(value).decode()


Write = Callable[[Iterable[Row], Columns, Labels, IO[bytes]], int]
WRITERS: dict[str, Write] = {".parquet": write_parquet, ".jsonl": write_json, ".csv": write_csv}

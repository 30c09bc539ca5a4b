"""One dataclass for each kind of data, how an input line becomes a Document, and the schema of what is written."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import pyarrow as pa

from models.text import TextError, TextProblem, TextRecipe

# Why a line got no prediction: the line, its record, its text, or the model.
Reason = (
    Literal["line_too_long", "damaged_file", "not_utf8", "not_json", "not_an_object"]
    | Literal["no_id", "id_not_string", "too_deep"]
    | TextProblem
    | Literal["model_failed", "process_ended"]
)

RAW_CAP_BYTES = 1024  # how much of a failed line is kept
MAX_LINE_BYTES = 10 * 1024 * 1024
_HUGE_INTEGER = re.compile(rb"[0-9]{19}")
_PARSE_ERRORS = (ValueError, RecursionError)  # orjson's and json's decode errors are ValueErrors


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an input file, without its line end. `problem` is set where it could not be read as a line."""

    number: int  # from 1, in the decompressed file
    data: bytes
    problem: tuple[Reason, str] | None = None  # reason, detail


@dataclass(frozen=True, slots=True)
class Document:
    """A record ready for scoring: one text for each distinct text recipe of the run."""

    line: int
    id: str
    texts: tuple[str, ...]
    kept: dict[str, Any]
    raw: bytes  # at most RAW_CAP_BYTES of the line, for the failure that scoring may end in


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that got no prediction, and why."""

    line: int
    id: str | None
    reason: Reason
    detail: str
    raw: str  # at most RAW_CAP_BYTES of the line

    def row(self, file: str) -> dict[str, Any]:
        """The row of the failures file."""
        return {
            "file": file,
            "line": self.line,
            "id": self.id,
            "reason": self.reason,
            "detail": self.detail,
            "raw": self.raw,
        }


def redacted(failure: Failure) -> Failure:
    """Without the line, and without what a model said of it, which may quote it."""
    return replace(failure, raw="", detail="" if failure.reason == "model_failed" else failure.detail)


@dataclass(frozen=True, slots=True)
class Labelling:
    """What one model says of one document."""

    labels: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]  # label name, probability rounded to 6 places

    def row(self) -> dict[str, Any]:
        """The nested record of one model in a row of predictions."""
        return {
            "labels": list(self.labels),
            "scores": [{"label": label, "score": score} for label, score in self.scores],
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """What every model says of one document."""

    line: int
    id: str
    kept: dict[str, Any]
    by_model: dict[str, Labelling]

    def row(self) -> dict[str, Any]:
        """The row of the predictions file: id, kept fields, one nested record a model."""
        return {"id": self.id, **self.kept, **{name: labelling.row() for name, labelling in self.by_model.items()}}


@dataclass(frozen=True)
class DocumentRecipe:
    """How a record becomes a Document. `id_field` empty: the id is made of file and line number."""

    recipes: tuple[TextRecipe, ...]
    id_field: str = "id"
    keep_fields: tuple[str, ...] = ()


@dataclass
class Documents:
    """What was read of a stretch of lines: `lines == len(documents) + len(failures) + blank`."""

    lines: int = 0
    blank: int = 0
    documents: list[Document] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class RecordError(ValueError):
    """A line that is no usable record. `reason` is a short code, the message says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_documents(lines: Iterable[Line], file: str, options: DocumentRecipe) -> Documents:
    """Turns every line into a Document or a Failure, or counts it as blank."""
    read = Documents()
    for line in lines:
        read.lines += 1
        if line.problem is None and not line.data.strip():
            read.blank += 1
            continue
        identifier = None
        try:
            if line.problem is not None:
                raise RecordError(*line.problem)
            record = parse_record(line.data)
            identifier = _identifier(record, options.id_field) or f"{file}:{line.number}"
            texts = tuple(recipe.text_of(record) for recipe in options.recipes)
            kept = {name: _keepable(name, record.get(name)) for name in options.keep_fields}
            read.documents.append(Document(line.number, identifier, texts, kept, line.data[:RAW_CAP_BYTES]))
        except (RecordError, TextError) as error:
            read.failures.append(Failure(line.number, identifier, error.reason, str(error), capped(line.data)))
    return read


def parse_record(data: bytes) -> dict[str, Any]:
    """One JSON object from one line.

    What strict JSON forbids but a text can survive is accepted: raw control characters inside strings, and unpaired
    surrogates, which become U+FFFD. Integers beyond 64 bits become text.

    Raises:
        RecordError: `not_utf8`, `not_json`, `not_an_object`.
    """
    try:
        record = orjson.loads(data)
        if _HUGE_INTEGER.search(data):  # orjson would round it to a float
            record = _parse_leniently(data)
    except _PARSE_ERRORS:
        record = _parse_leniently(data)
    if not isinstance(record, dict):
        raise RecordError("not_an_object", f"expected a JSON object, found {type(record).__name__}")
    return record


def _parse_leniently(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("not_utf8", f"byte {error.start} of the line is not UTF-8") from None
    try:
        return _portable(json.loads(text, strict=False, parse_constant=_refuse_constant))
    except _PARSE_ERRORS as error:
        raise RecordError("not_json", str(error)[:200]) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _portable(value: Any) -> Any:
    """The value with only what UTF-8 and 64-bit JSON can hold."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        return {_portable(key): _portable(item) for key, item in value.items()}
    return value


def _identifier(record: dict[str, Any], id_field: str) -> str:
    if not id_field:
        return ""
    value = record.get(id_field)
    if value is None or value == "":
        raise RecordError("no_id", f"field {id_field!r} is absent or empty")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError("id_not_string", f"field {id_field!r} holds {type(value).__name__}, not a string or integer")
    return str(value)


def _keepable(name: str, value: Any) -> Any:
    """The value of a field to keep; one nested deeper than orjson writes (254 levels) would end the run later."""
    if isinstance(value, list | dict):
        try:
            orjson.dumps({name: value})  # as it will stand in its row
        except TypeError as error:
            raise RecordError("too_deep", f"field {name!r} cannot be kept: {error}") from None
    return value


def capped(data: bytes) -> str:
    """The first RAW_CAP_BYTES bytes as text, with bytes that are not UTF-8 shown as escapes."""
    return data[:RAW_CAP_BYTES].decode("utf-8", "backslashreplace")


def predictions_schema(keep_fields: Sequence[str], models: Sequence[str]) -> pa.Schema:
    """The Arrow schema of predictions; kept fields are strings there, values of other kinds as JSON text."""
    labelling = pa.struct(
        [
            ("labels", pa.list_(pa.string())),
            ("scores", pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))),
        ]
    )
    columns = [("id", pa.string()), *((name, pa.string()) for name in keep_fields)]
    return pa.schema([*columns, *((name, labelling) for name in models)])


def bigquery_schema(schema: pa.Schema, keep_fields: Sequence[str], file_format: str) -> list[dict[str, Any]]:
    """The same schema as `bq load` reads it; in JSON lines a kept field may hold any JSON value."""
    fields = [_bigquery_field(column.name, column.type) for column in schema]
    for column in fields:
        if column["name"] in keep_fields and file_format == "jsonl":
            column["type"] = "JSON"
    fields[0]["mode"] = "REQUIRED"
    return fields


def _bigquery_field(name: str, kind: pa.DataType) -> dict[str, Any]:
    mode = "NULLABLE"
    if pa.types.is_list(kind):
        mode, kind = "REPEATED", kind.value_type
    if pa.types.is_struct(kind):
        return {"name": name, "type": "RECORD", "mode": mode, "fields": [_bigquery_field(f.name, f.type) for f in kind]}
    return {"name": name, "type": "FLOAT" if pa.types.is_floating(kind) else "STRING", "mode": mode}


def arrow_row(row: dict[str, Any], keep_fields: Sequence[str]) -> dict[str, Any]:
    """A row of predictions as the Arrow schema wants it."""
    for name in keep_fields:
        if row[name] is not None and not isinstance(row[name], str):
            row[name] = orjson.dumps(row[name]).decode()
    return row

"""Declares one dataclass for each kind of data, turns input lines into documents, and derives the output schemas."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import pyarrow as pa

from inference.corpus import kept_fields
from inference.corpus.kept_fields import KeptType
from models.text import TextError, TextProblem, TextRecipe

# A reason says why a line has no prediction. The groups concern the line, the row of a table, the record, its text, and
# the model.
Reason = (
    Literal["line_too_long", "damaged_file", "json_array", "not_utf8", "not_json", "not_an_object"]
    | Literal["not_csv", "wrong_cells"]
    | Literal["no_id", "id_not_string", "too_deep", "wrong_type"]
    | TextProblem
    | Literal["model_failed", "process_ended"]
)

# Reasons that stand for any number of documents: the rest of a damaged file, or all of an array.
MANY_DOCUMENTS: tuple[Reason, ...] = ("damaged_file", "json_array")

RAW_CAP_BYTES = 1024  # a failure holds at most this much of its line
MAX_LINE_BYTES = 10 * 1024 * 1024
# The first bytes of each encoding: a byte order mark, or the character { or [. UTF-32 comes first, because its mark
# begins with that of UTF-16.
_ENCODINGS = {
    "UTF-32": (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"),
    "UTF-16": (b"\xff\xfe", b"\xfe\xff"),
    "UTF-32LE": (b"{\x00\x00\x00", b"[\x00\x00\x00"),
    "UTF-32BE": (b"\x00\x00\x00{", b"\x00\x00\x00["),
    "UTF-16LE": (b"{\x00", b"[\x00"),
    "UTF-16BE": (b"\x00{", b"\x00["),
}
_PLAIN = frozenset({str, int, bool, type(None)})  # types of values that hold no float
_PARSE_ERRORS = (ValueError, RecursionError)  # the decode errors of orjson and json are ValueErrors


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an input file, without its newline."""

    number: int  # line number in the decompressed file, from 1
    data: bytes
    problem: tuple[Reason, str] | None = None  # reason and detail if the line could not be read
    size: int = 0  # bytes of the whole line; `data` holds fewer of a line that is too long
    record: dict[str, Any] | None = None  # the record, if the reader of another format has parsed it

    @property
    def is_blank(self) -> bool:
        """Return whether the line holds nothing, so that it counts neither as predicted nor as failed."""
        return self.problem is None and self.record is None and not self.data.strip()

    @property
    def json(self) -> bytes:
        """Return the line as JSON, or as it is if it has no record."""
        return self.data if self.record is None else orjson.dumps(self.record)


@dataclass(frozen=True, slots=True)
class Document:
    """A record ready for scoring."""

    line: int  # line number in the file, from 1
    id: str
    texts: tuple[str, ...]  # one text, not cleaned yet, for each distinct text recipe of the run
    kept_fields: dict[str, Any]  # values of the fields that predictions keep, by field name
    raw: bytes  # at most RAW_CAP_BYTES of the line, needed if scoring fails
    size: int = 0  # bytes of the line
    file: str = ""  # input file
    place: int = 0  # number of the line in its slice, from 0

    def failure(self, reason: Reason, detail: str) -> "Failure":
        """Return the failure of this document."""
        return Failure(self.line, self.id, reason, detail, capped(self.raw), self.file, self.place)


@dataclass(frozen=True, slots=True)
class Failure:
    """A line without a prediction, and the reason."""

    line: int  # line number in the file, from 1
    id: str | None
    reason: Reason
    detail: str  # what was found
    raw: str  # at most RAW_CAP_BYTES of the line
    file: str = ""  # input file
    place: int = 0  # number of the line in its slice, from 0

    def row(self) -> dict[str, Any]:
        """Return the row of the failures file."""
        return {
            "file": self.file,
            "line": self.line,
            "id": self.id,
            "reason": self.reason,
            "detail": self.detail,
            "raw": self.raw,
        }


def redacted(failure: Failure) -> Failure:
    """Return the failure without its line, and without a message that may quote the record."""
    return replace(failure, raw="", detail="" if failure.reason in ("model_failed", "wrong_type") else failure.detail)


@dataclass(frozen=True, slots=True)
class Labelling:
    """The labels and scores that one model gives to one document."""

    labels: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]  # pairs of label name and probability, rounded to 6 places


@dataclass(frozen=True, slots=True)
class Prediction:
    """The labellings of one document by every model of the run."""

    id: str
    kept_fields: dict[str, Any]  # values by field name
    by_model: dict[str, Labelling]


@dataclass(frozen=True)
class DocumentRecipe:
    """A document recipe, which turns a record into a Document."""

    recipes: tuple[TextRecipe, ...]  # distinct text recipes of the run
    id_field: str = "id"  # field with the id; if empty, file and line number make up the id
    keep_fields: tuple[str, ...] = ()  # fields to copy into the predictions, some with a type, such as `year:int`

    @property
    def fields(self) -> tuple[str, ...]:
        """Return all fields that are read."""
        texts = [name for recipe in self.recipes for name in recipe.fields]
        ids = [self.id_field] if self.id_field else []
        return tuple(dict.fromkeys([*texts, *ids, *kept_fields.types(self.keep_fields)]))


@dataclass
class Documents:
    """The outcome of reading some lines: `lines == len(documents) + len(failures) + blank`."""

    lines: int = 0  # number of lines read
    blank: int = 0  # number of blank lines
    bytes: int = 0  # bytes of all lines
    failed_bytes: int = 0  # bytes of the lines that failed
    documents: list[Document] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class RecordError(ValueError):
    """A line holds no usable record; the message says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_documents(
    lines: Iterable[Line], file: str, recipe: DocumentRecipe, earlier: Documents | None = None
) -> Documents:
    """Turn every line of a file into a Document or a Failure, or count it as blank.

    The result is added to that of `earlier` lines of the same slice.
    """
    read = Documents() if earlier is None else earlier
    kept = kept_fields.types(recipe.keep_fields)
    for line in lines:
        place = read.lines
        read.lines += 1
        read.bytes += line.size
        if line.is_blank:
            read.blank += 1
            continue
        identifier = None
        try:
            record = record_of(line)
            identifier = _identifier(record, recipe.id_field) or f"{file}:{line.number}"
            texts = tuple(text.join(record) for text in recipe.recipes)
            values = {name: _keepable(name, record.get(name), kind) for name, kind in kept.items()}
            raw = line.json[:RAW_CAP_BYTES]
            read.documents.append(Document(line.number, identifier, texts, values, raw, line.size, file, place))
        except (RecordError, TextError) as error:
            read.failed_bytes += line.size
            raw_text = capped(line.json)
            read.failures.append(Failure(line.number, identifier, error.reason, str(error), raw_text, file, place))
    return read


def record_of(line: Line) -> dict[str, Any]:
    """Return the record of a line.

    Raises:
        RecordError: the line could not be read, or holds no JSON object.
    """
    if line.problem is not None:
        raise RecordError(*line.problem)
    return parse_record(line.data) if line.record is None else line.record


def record_or_nothing(line: Line) -> dict[str, Any]:
    """Return the record of a line, or an empty one if it holds none."""
    try:
        return record_of(line)
    except RecordError:
        return {}


def parse_record(data: bytes) -> dict[str, Any]:
    """Return the JSON object on a line.

    Accept two kinds of faulty strings: raw control characters stay, and unpaired surrogates become U+FFFD. Integers
    beyond 64 bits become strings.

    Raises:
        RecordError: the reason is `not_utf8`, `not_json`, `json_array` or `not_an_object`.
    """
    try:
        record = orjson.loads(data)
        if _holds_huge_number(record):  # orjson rounds an integer beyond 64 bits to a float
            record = _parse_leniently(data)
    except _PARSE_ERRORS:
        record = _parse_leniently(data)
    if isinstance(record, list) and any(isinstance(item, dict) for item in record):
        raise RecordError("json_array", f"expected one JSON object a line, found an array of {len(record):,} values")
    if not isinstance(record, dict):
        raise RecordError("not_an_object", f"expected a JSON object, found {type(record).__name__}")
    return record


def _holds_huge_number(record: Any) -> bool:
    """Return whether a float is in the record that may have been an integer beyond 64 bits."""
    values = record.values() if isinstance(record, dict) else [record]
    if _PLAIN.issuperset(map(type, values)):
        return False
    waiting = [record]  # a deep record would exceed the depth of recursion
    while waiting:
        value = waiting.pop()
        if isinstance(value, float):
            if abs(value) >= 2**63:
                return True
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _parse_leniently(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"{encoding}, not" if (encoding := encoding_of(data)) else f"byte {error.start} of the line is not"
        raise RecordError("not_utf8", f"{found} UTF-8") from None
    try:
        return _portable(json.loads(text, strict=False, parse_constant=_refuse_constant))
    except _PARSE_ERRORS as error:
        raise RecordError("not_json", _hint(data) or str(error)[:200]) from None


def to_json(value: Any) -> bytes:
    """Return a value as JSON, however deep its lists are nested."""
    try:
        return orjson.dumps(value)
    except TypeError:  # it writes 254 levels, while Python has read at most as many as its stack allows
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(10 * limit)
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        finally:
            sys.setrecursionlimit(limit)


def encoding_of(data: bytes) -> str | None:
    """Return the encoding of JSON in UTF-16 or UTF-32, by its byte order mark or its first character; else None."""
    for encoding, start in _ENCODINGS.items():
        if data.startswith(start):
            return encoding
    return None


def _hint(data: bytes) -> str | None:
    """Return what a line that is no JSON looks like, if it looks like a part of something else."""
    line = data.strip()
    if b"\x00" in line[:8]:
        return "the line holds NUL bytes; if the file is UTF-16 or UTF-32, convert it to UTF-8"
    if line.startswith(b"[") or line in (b"]", b"],"):
        return "the line begins or ends a JSON array; write one object a line"
    if line.startswith(b"{") and line.endswith(b"},"):
        return "a comma follows the object, as in a JSON array; write one object a line"
    if line in (b"{", b"}", b"},"):
        return "the line is a part of an object that goes over several lines; write one object a line"
    return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _portable(value: Any) -> Any:
    """Return the value with everything replaced that UTF-8 or 64-bit JSON cannot hold."""
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


def _keepable(name: str, value: Any, kind: KeptType | None) -> Any:
    """Return the value of a field to keep, as a value of its declared type.

    Raises:
        RecordError: the value is of another type, or it is nested deeper than the 254 levels that orjson writes, and
            would end the run later.
    """
    if kind is not None:
        try:
            return kept_fields.read(value, kind)
        except ValueError as error:
            raise RecordError("wrong_type", f"field {name!r} holds {error}, which is not of its type") from None
    if isinstance(value, list | dict):
        try:
            orjson.dumps({name: value})  # the row of predictions nests the value in the same way
        except TypeError as error:
            raise RecordError("too_deep", f"field {name!r} cannot be kept: {error}") from None
    return value


def capped(data: bytes) -> str:
    """Return the first RAW_CAP_BYTES bytes as text; show bytes that are not UTF-8 as escapes."""
    return data[:RAW_CAP_BYTES].decode("utf-8", "backslashreplace")


def predictions_schema(keep_fields: Sequence[str], models: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema of predictions.

    A kept field without a declared type is a string, and a value that is none becomes JSON text.
    """
    labelling = pa.struct(
        [
            ("labels", pa.list_(pa.string())),
            ("scores", pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))),
        ]
    )
    kept = ((name, kind.arrow if kind else pa.string()) for name, kind in kept_fields.types(keep_fields).items())
    return pa.schema([("id", pa.string()), *kept, *((name, labelling) for name in models)])


def bigquery_schema(schema: pa.Schema, keep_fields: Sequence[str], file_format: str) -> list[dict[str, Any]]:
    """Return the schema in the form that `bq load` reads; in JSON lines, a kept field may hold any JSON value.

    Its names equal the keys of the rows, as `bq load` needs. BigQuery may refuse one (`names.refused_by_bigquery`).
    """
    fields = [_bigquery_field(column.name, column.type) for column in schema]
    kinds = kept_fields.types(keep_fields)
    for column in fields:
        if kind := kinds.get(column["name"]):
            column["type"] = kind.bigquery
        elif column["name"] in kinds and file_format == "jsonl":
            column["type"] = "JSON"
    fields[0]["mode"] = "REQUIRED"
    return fields


def _bigquery_field(name: str, data_type: pa.DataType) -> dict[str, Any]:
    mode = "NULLABLE"
    if pa.types.is_list(data_type):
        mode, data_type = "REPEATED", data_type.value_type
    if pa.types.is_struct(data_type):
        fields = [_bigquery_field(member.name, member.type) for member in data_type]
        return {"name": name, "type": "RECORD", "mode": mode, "fields": fields}
    return {"name": name, "type": "FLOAT" if pa.types.is_floating(data_type) else "STRING", "mode": mode}

"""Declares the types of kept fields: `--keep_fields venue,year:int` keeps a text and an integer."""

import decimal
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

ALIASES = ("integer", "bigint", "long", "double", "number", "boolean", "string", "str")  # what no type is called here


class KeptType(NamedTuple):
    """A type that a kept field can be declared with."""

    read: Callable[[Any], Any]  # returns a value as this type, or raises ValueError, TypeError or OverflowError
    arrow: pa.DataType
    bigquery: str


def problem(keep_fields: Iterable[str]) -> str | None:
    """Return what is wrong with the declared types, or None."""
    for field in keep_fields:
        name, _, declared = field.rpartition(":")
        if name and declared in ALIASES:
            return f"--keep_fields {field}: expected one of the types {', '.join(TYPES)}, found {declared}."
    return None


def names(keep_fields: Iterable[str]) -> list[str]:
    """Return the names of the fields to keep, one for each, also if they repeat."""
    return [name for field in keep_fields for name in types([field])]


def types(keep_fields: Iterable[str]) -> dict[str, KeptType | None]:
    """Return the declared type of each field to keep, by the field's name; None if it has none.

    A type follows the last colon, so a field named `a:int` is written `a:int:int`.
    """
    found: dict[str, KeptType | None] = {}
    for field in keep_fields:
        name, _, declared = field.rpartition(":")
        known = TYPES.get(declared) if name else None
        found[name if known else field] = known
    return found


def read(value: Any, kind: KeptType) -> Any:
    """Return a value as its declared type. Text is read as in CSV, where an empty cell is no value.

    Raises:
        ValueError: it is of another type; says what was found.
    """
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "":
        return None
    try:
        return kind.read(text)
    except (ValueError, TypeError, OverflowError, decimal.InvalidOperation):
        found = repr(value)[:80] if isinstance(value, str | int | float) else f"a {type(value).__name__}"
        raise ValueError(found) from None


def column(values: Iterable[Any], kind: KeptType | None) -> pa.Array:
    """Return the values of a kept field as a column. Without a declared type, all but strings become JSON text."""
    if kind is None:
        values = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
    return pa.array(values, kind.arrow if kind else pa.string())


def _number(value: Any) -> Any:
    if isinstance(value, bool) or "_" in str(value):  # Python would read 1_000
        raise TypeError
    return decimal.Decimal(value) if isinstance(value, str) else value


def _int(value: Any) -> int:
    number = _number(value)
    if not -(2**63) <= number < 2**63 or number != int(number):
        raise ValueError
    return int(number)


def _float(value: Any) -> float:
    number = float(_number(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


TYPES = {
    "int": KeptType(_int, pa.int64(), "INTEGER"),
    "float": KeptType(_float, pa.float64(), "FLOAT"),
    "bool": KeptType(_bool, pa.bool_(), "BOOLEAN"),
}

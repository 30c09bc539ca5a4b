"""Keeps the rows of labelled data that fulfil conditions on their columns, such as `votes >= 3`."""

import operator
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "in": lambda cell, values: cell in values,
    "not in": lambda cell, values: cell not in values,
}
_NAME = r"[^\W\d]\w*|`[^`]+`"  # a column; between backticks, a name with spaces or signs
_CONDITION = re.compile(rf"\s*({_NAME})\s*(==|!=|<=|>=|<|>|\bnot\s+in\b|\bin\b)\s*(.+?)\s*")
_COLUMN = re.compile(_NAME)
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a value, a list of values, or another column."""

    text: str  # as the configuration has it
    column: str
    sign: str  # a key of OPERATORS
    value: Any  # what the cell is compared with; None if it is compared with `other`
    other: str | None = None  # the other column

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition of a text.

        Raises:
            ValueError: it is none.
        """
        found = _CONDITION.fullmatch(text)
        if not found:
            raise ValueError(
                f'expected COLUMN OPERATOR VALUE, such as votes >= 3 or lang == "en", found {text!r}; operators are '
                f"{' '.join(OPERATORS)}, and a column with spaces stands between backticks"
            )
        column, sign, right = found[1].strip("`"), " ".join(found[2].split()), found[3]
        if _COLUMN.fullmatch(right) and right not in ("true", "false"):
            if "in" in sign:
                raise ValueError(f'expected a list after {sign}, such as ["en", "fr"], found {right} in {text!r}')
            return cls(text, column, sign, None, right.strip("`"))
        try:
            value = tomllib.loads(f"value = {right}")["value"]
        except tomllib.TOMLDecodeError:
            raise ValueError(
                f"expected a number, a string in quotes, true, false, a list or a column after {sign}, found {right} "
                f"in {text!r}"
            ) from None
        if isinstance(value, list) != ("in" in sign):
            expected = "a list, such as [1, 2]," if "in" in sign else "one value"
            raise ValueError(f"expected {expected} after {sign}, found {right} in {text!r}")
        single = value if isinstance(value, list) else [value]
        if not all(isinstance(one, bool | int | float | str) for one in single):
            raise ValueError(f"expected numbers, strings, true or false after {sign}, found {right} in {text!r}")
        return cls(text, column, sign, value)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.column, self.other) if self.other else (self.column,)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row fulfils the condition. A row with an empty cell does not, whatever the condition.

        Cells of CSV files are strings, so a cell is read as what it is compared with: a number, true or false, or a
        string. Strings are ordered by their characters, as dates such as 2026-11-01 are.

        Raises:
            ValueError: a cell is no number, or neither true nor false, although it is compared with one.
        """
        cells = [row[name] for name in self.columns]
        if any(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in cells):
            return False
        if self.other:
            like: Any = 0.0 if all(_is_number(cell) for cell in cells) else ""
            left, right = (_as(like, cell, name) for cell, name in zip(cells, self.columns, strict=True))
            return OPERATORS[self.sign](left, right)
        likes = self.value if isinstance(self.value, list) else [self.value]
        if not isinstance(self.value, list):
            return OPERATORS[self.sign](_as(self.value, cells[0], self.column), self.value)
        among = any(_as(like, cells[0], self.column) == like for like in likes)
        return among == (self.sign == "in")


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _as(like: object, cell: object, column: str) -> Any:
    """Return a cell as the kind of value that it is compared with.

    Raises:
        ValueError: it is none of that kind.
    """
    if isinstance(like, str):
        return str(cell).strip()
    if isinstance(like, bool):
        flag = _FLAGS.get(str(cell).strip().lower().removesuffix(".0"))
        if flag is None:
            raise ValueError(f"column {column!r}: expected true or false, found {cell!r}; correct the row.")
        return flag
    if not _is_number(cell):
        raise ValueError(f"column {column!r}: expected a number, found {cell!r}; correct the row or data.where.")
    return float(cell)  # type: ignore[arg-type]

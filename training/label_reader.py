"""Turns the label cells of a row into targets, for every way in which labelled data names its labels."""

import ast
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labels import LabelSchema, Task
from training.config import LabelsConfig

_FLAGS = {0: 0.0, 1: 1.0, "0": 0.0, "1": 1.0}  # common cells; false and 0.0 equal 0, true and 1.0 equal 1
MOST_NAMED = 8  # label names that a message lists


class NoLabelError(Exception):
    """A row has no label although its task needs one. Such a row is counted and left out."""


class LabelReader:
    """Turns the label cells of a row into its targets."""

    def __init__(self, config: LabelsConfig, schema: LabelSchema) -> None:
        self._config = config
        self._schema = schema
        self._index = {name: i for i, name in enumerate(schema.names)}
        self._names = Names(config.names)  # the schema lacks those that are too rare
        self.labels = len(schema.names)  # number of labels

    def target(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return 0 or 1 for each label, or NaN for a label of which the row says nothing.

        An empty list or string means no label, which only multi_label allows. A null means that the row was never
        labelled.

        Raises:
            NoLabelError: the cell is null, or empty although the task needs a label, or no label is known.
            ValueError: a label is unknown, or there are several although the task has one; the message starts with
                the column.
        """
        if self._config.columns:
            cells = [row.get(name) for name in self._config.columns]
            try:
                return np.array([_FLAGS[cell] for cell in cells], np.float32)
            except (KeyError, TypeError):  # a cell in another spelling, or a list, which is no key
                flags = [flag(cell, name) for cell, name in zip(cells, self._config.columns, strict=True)]
            target = np.array(flags, np.float32)
            if np.isnan(target).all():
                raise NoLabelError
            return target
        try:
            cell = row.get(self._config.column)
            return self._one_label(cell, row.get(self._config.value)) if self._config.value else self._one_column(cell)
        except ValueError as error:
            raise ValueError(f"column {self._config.column!r}: {error}") from None

    def _one_label(self, cell: object, value: object) -> NDArray[np.float32]:
        """Return the target of a row in long form, which knows the labels of its cell alone."""
        applies = flag(value, str(self._config.value))
        indices = self._indices(cell)
        if np.isnan(applies) or not indices:
            raise NoLabelError
        if self._schema.task is Task.BINARY:
            positive = 1 - applies if indices[0] == 0 else applies  # a row may name the negative label
            return np.array([1 - positive, positive], np.float32)
        target = np.full(len(self._schema.names), np.nan, np.float32)
        target[indices] = applies
        return target

    def _one_column(self, cell: object) -> NDArray[np.float32]:
        target = np.zeros(len(self._schema.names), np.float32)
        indices = self._indices(cell)
        if self._config.groups and self._schema.task is Task.BINARY:
            indices = indices or [0]
        target[indices] = 1
        if self._schema.task is not Task.MULTI_LABEL and not indices:
            raise NoLabelError
        if self._schema.task is not Task.MULTI_LABEL and len(set(indices)) != 1:
            raise ValueError(f"a {self._schema.task} row has exactly one label, found {cell!r}; check the column.")
        return target

    def _indices(self, cell: object) -> list[int]:
        """Return the positions of the labels that a cell names.

        Raises:
            NoLabelError: the cell is null.
        """
        if cell is None:
            raise NoLabelError
        values = values_of(cell, self._config.delimiter)
        if self._config.groups:
            return self._groups_of(values)
        found = (self._index_of(value) for value in values)
        return [index for index in found if index is not None]

    def _index_of(self, value: object) -> int | None:
        """Return the position of a label; None if the configuration ignores it."""
        text = self._names.of(value)
        if text in self._index:
            return self._index[text]
        if self._schema.task is Task.BINARY and text.lower() in ("true", "false"):
            return int(text.lower() == "true")
        if self._config.min_documents or matches(text, self._config.ignore):
            return None
        more = ", ..." if len(self._schema.names) > MOST_NAMED else ""
        raise ValueError(
            f"expected one of the labels {', '.join(self._schema.names[:MOST_NAMED])}{more} or its number, found "
            f"{value!r}; correct the row or the label names."
        )

    def _groups_of(self, codes: Sequence[object]) -> list[int]:
        """Return the positions of the labels whose patterns match one of the codes."""
        texts = [_code(code) for code in codes]
        return [
            self._index[name]
            for name, patterns in self._config.groups.items()
            if any(matches(text, patterns) for text in texts)
        ]


class Names:
    """The names of labels, which cells may also give by their positions unless a name is a number."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        self._positions = () if any(map(_is_number, names)) else tuple(names)

    def of(self, value: object) -> str:
        """Return the name that a value is or stands for; a value that is none is returned as a string."""
        text = str(value).strip()
        if text in self._names or not _is_number(text) or float(text) >= len(self._positions):
            return text
        return self._positions[int(float(text))]


def values_of(cell: object, delimiter: str | None) -> list[object]:
    """Return the values that a cell holds.

    It may be a list, one value, a string of several values between delimiters, or a list that was written as a string,
    such as "['AI', 'CV']".
    """
    if isinstance(cell, list | tuple):
        return [value for value in cell if value is not None]
    if not isinstance(cell, str):
        return [cell]
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return [value for value in ast.literal_eval(cell) if value is not None]
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass  # a name in brackets
    if delimiter:
        return [part.strip() for part in cell.split(delimiter) if part.strip()]
    return [cell] if cell.strip() else []


def flag(cell: object, column: str) -> float:
    """Return 1 for true, 0 for false, and NaN for an empty cell.

    Raises:
        ValueError: the cell holds something else; the message starts with the column.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return np.nan
    text = str(cell).strip().lower().removesuffix(".0")
    if text not in ("0", "1", "true", "false"):
        raise ValueError(f"column {column!r}: expected 0, 1, true or false, found {cell!r}; correct the row.")
    return float(text in ("1", "true"))


def _code(value: object) -> str:
    """Return a code as the configuration writes it: true and false in small letters, and 3.0 as 3."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(text: str) -> bool:
    return text.removesuffix(".0").isdecimal()


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns, with * and ?, matches a label or a code."""
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)

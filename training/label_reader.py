"""Turns the label cells of a row into targets, for every way in which labelled data names its labels."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labels import LabelSchema, Task
from training.config import LabelsConfig

_FLAGS = {0: False, 1: True, "0": False, "1": True}  # common cells; false and 0.0 equal 0, true and 1.0 equal 1
MOST_NAMED = 8  # label names that a message lists


class NoLabelError(Exception):
    """A row has no label although its task needs one. Such a row is counted and left out."""


class LabelReader:
    """Turns the label cells of a row into its targets."""

    def __init__(self, config: LabelsConfig, schema: LabelSchema) -> None:
        self._config = config
        self._schema = schema
        self._index = {name: i for i, name in enumerate(schema.names)}

    def target(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return 0 or 1 for each label.

        An empty list or string means no label, which only multi_label allows. A null means that the row was never
        labelled.

        Raises:
            NoLabelError: the cell is null, or empty although the task needs a label.
            ValueError: a label is unknown, or there are several although the task has one; the message starts with
                the column.
        """
        if self._config.columns:
            cells = [row.get(name) for name in self._config.columns]
            try:
                return np.array([_FLAGS[cell] for cell in cells], np.float32)
            except (KeyError, TypeError):  # a cell in another spelling, or a list, which is no key
                flags = [self._flag(cell, name) for cell, name in zip(cells, self._config.columns, strict=True)]
                return np.array(flags, np.float32)
        try:
            return self._one_column(row.get(self._config.column))
        except ValueError as error:
            raise ValueError(f"column {self._config.column!r}: {error}") from None

    def _flag(self, cell: object, column: str) -> bool:
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            raise NoLabelError
        text = str(cell).strip().lower().removesuffix(".0")
        if text not in ("0", "1", "true", "false"):
            raise ValueError(f"column {column!r}: expected 0, 1, true or false, found {cell!r}; correct the row.")
        return text in ("1", "true")

    def _one_column(self, cell: object) -> NDArray[np.float32]:
        if cell is None:
            raise NoLabelError
        target = np.zeros(len(self._schema.names), np.float32)
        indices = self._groups_of(cell) if self._config.groups else [self._index_of(v) for v in self._values(cell)]
        target[indices] = 1
        if self._schema.task is not Task.MULTI_LABEL and not indices:
            raise NoLabelError
        if self._schema.task is not Task.MULTI_LABEL and len(set(indices)) != 1:
            raise ValueError(f"a {self._schema.task} row has exactly one label, found {cell!r}; check the column.")
        return target

    def _values(self, cell: object) -> list[object]:
        if isinstance(cell, list | tuple):
            return [value for value in cell if value is not None]
        if isinstance(cell, str) and not cell.strip():
            return []
        if self._config.delimiter and isinstance(cell, str):
            return [part.strip() for part in cell.split(self._config.delimiter) if part.strip()]
        return [cell]

    def _index_of(self, value: object) -> int:
        text = str(value).strip()
        if text in self._index:
            return self._index[text]
        if self._schema.task is Task.BINARY and text.lower() in ("true", "false"):
            return int(text.lower() == "true")
        if text.removesuffix(".0").isdecimal() and int(text.removesuffix(".0")) < len(self._schema.names):
            return int(text.removesuffix(".0"))
        more = ", ..." if len(self._schema.names) > MOST_NAMED else ""
        raise ValueError(
            f"expected one of the labels {', '.join(self._schema.names[:MOST_NAMED])}{more} or its number, found "
            f"{value!r}; correct the row or the label names."
        )

    def _groups_of(self, cell: object) -> list[int]:
        """Return the positions of the labels whose patterns match a code of the cell."""
        codes = [str(code) for code in self._values(cell)]
        matched = [
            self._index[name]
            for name, patterns in self._config.groups.items()
            if any(fnmatch.fnmatchcase(code, pattern) for code in codes for pattern in patterns)
        ]
        return matched or ([0] if self._schema.task is Task.BINARY else [])

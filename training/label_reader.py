"""Turns the label cells of a row into targets, in every way in which labelled data names its labels."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labels import LabelSchema, Task
from training.config import LabelsConfig


class NoLabelError(Exception):
    """A row has no label where its task wants one: it is counted and left out."""


class LabelReader:
    """Turns the label cells of a row into its targets."""

    def __init__(self, config: LabelsConfig, schema: LabelSchema) -> None:
        self._config = config
        self._schema = schema
        self._index = {name: i for i, name in enumerate(schema.names)}

    def target(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """0 or 1 for each label.

        An empty list or string is no label, which only multi_label allows; null is a label that nobody gave.

        Raises:
            NoLabelError: null, or no label where the task wants one.
            ValueError: an unknown label, or several where the task wants one; starts with the column.
        """
        if self._config.columns:
            return np.array([self._flag(row.get(name), name) for name in self._config.columns], np.float32)
        try:
            return self._one_column(row.get(self._config.column))
        except ValueError as error:
            raise ValueError(f"column {self._config.column!r}: {error}") from None

    def _flag(self, cell: object, column: str) -> bool:
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            raise NoLabelError
        text = str(cell).strip().lower().removesuffix(".0")
        if text not in ("0", "1", "true", "false"):
            raise ValueError(f"column {column!r}: expected 0, 1, true or false, found {cell!r}; mend the row.")
        return text in ("1", "true")

    def _one_column(self, cell: object) -> NDArray[np.float32]:
        if cell is None:
            raise NoLabelError
        target = np.zeros(len(self._schema.names), np.float32)
        indices = self._of_groups(cell) if self._config.groups else [self._index_of(v) for v in self._values(cell)]
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
        names = ", ".join(self._schema.names[:8]) + (", ..." if len(self._schema.names) > 8 else "")
        raise ValueError(
            f"expected one of the labels {names} or its number, found {value!r}; mend the row or the names."
        )

    def _of_groups(self, cell: object) -> list[int]:
        codes = [str(code) for code in self._values(cell)]
        matched = [
            self._index[name]
            for name, patterns in self._config.groups.items()
            if any(fnmatch.fnmatchcase(code, pattern) for code in codes for pattern in patterns)
        ]
        return matched or ([0] if self._schema.task is Task.BINARY else [])

"""The rows of a labelled file or dataset, which stay on disk and are read a few at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets

AT_ONCE = 1_000


class Rows:
    """The rows of a table, in their order."""

    def __init__(self, table: datasets.Dataset) -> None:
        self._table = table
        self._names = {
            column: inner.names
            for column, feature in table.features.items()
            if isinstance(inner := _inner(feature), datasets.ClassLabel)
        }
        self.columns: tuple[str, ...] = tuple(table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    def of(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield each row with those of the columns that there are, and the names of labels in place of their numbers.

        The order of the numbers need not be the order of the configuration.
        """
        wanted = self._table.select_columns([column for column in self.columns if column in columns])
        for start in range(0, len(wanted), AT_ONCE):
            for row in wanted.select(range(start, min(start + AT_ONCE, len(wanted)))).to_list():
                for column in row.keys() & self._names.keys():
                    row[column] = _label_names(row[column], self._names[column])
                yield row


def _inner(feature: Any) -> Any:
    """Return the kind of a cell, or of the elements of a cell that is a list."""
    return feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature


def _label_names(cell: Any, names: Sequence[str]) -> Any:
    """Return the name of a number, or the names of a list of them. The number -1 stands for a missing label."""
    if isinstance(cell, list):
        return [_label_names(number, names) for number in cell]
    return None if cell is None or cell < 0 else names[cell]

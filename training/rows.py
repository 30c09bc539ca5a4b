"""The rows of a labelled file or dataset, which stay on disk and are read a few at a time."""

import io
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import pyarrow as pa

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
        self._count = len(table)
        self.columns: tuple[str, ...] = tuple(table.column_names)

    def __len__(self) -> int:
        return self._count

    def of(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield each row with those of the columns that there are, and the names of labels in place of their numbers.

        The order of the numbers need not be the order of the configuration.
        """
        for rows in self._some([column for column in self.columns if column in columns]):
            for row in rows:
                for column in row.keys() & self._names.keys():
                    row[column] = _label_names(row[column], self._names[column])
                yield row

    def _some(self, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows, some at a time."""
        wanted = self._table.select_columns(columns)
        for start in range(0, len(wanted), AT_ONCE):
            yield wanted.select(range(start, min(start + AT_ONCE, len(wanted)))).to_list()


class OwnRows(Rows):
    """The rows of a table whose files belong to nobody else, and may lose their names.

    They are read by place. A mapped file would count as memory of this process once it has been read.
    """

    def __init__(self, table: datasets.Dataset) -> None:
        super().__init__(table)
        self._files = [os.open(entry["filename"], os.O_RDONLY) for entry in table.cache_files]
        for file in self._files:
            weakref.finalize(self, os.close, file)
        self._info = table.info
        del self._table  # and with it the mapping

    def _some(self, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        for file in self._files:
            source = pa.PythonFile(io.BufferedReader(_FromStart(file)), mode="r")
            with pa.ipc.open_stream(source) as batches:
                for batch in batches:
                    for start in range(0, len(batch), AT_ONCE):
                        some = pa.Table.from_batches([batch.slice(start, AT_ONCE)])
                        yield datasets.Dataset(some, self._info).select_columns(columns).to_list()


class _FromStart(io.RawIOBase):
    """A file from its start on, with a place of its own, so that several may read it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place = descriptor, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        found = os.pread(self._descriptor, len(view), self._place)
        view[: len(found)] = found
        self._place += len(found)
        return len(found)


def _inner(feature: Any) -> Any:
    """Return the kind of a cell, or of the elements of a cell that is a list."""
    return feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature


def _label_names(cell: Any, names: Sequence[str]) -> Any:
    """Return the name of a number, or the names of a list of them. The number -1 stands for a missing label."""
    if isinstance(cell, list):
        return [_label_names(number, names) for number in cell]
    return None if cell is None or cell < 0 else names[cell]

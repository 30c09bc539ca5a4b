"""Keeps the texts and token ids of a training in files, so that only their places are in memory.

The files have no names, lie in the folder of temporary files (TMPDIR), and are gone with the process.
"""

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Spool:
    """A file that grows at its end and is read anywhere. It is closed when nothing refers to it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="labelbeam_")  # noqa: SIM115  (closed below)
        weakref.finalize(self, self._file.close)

    def append(self, content: bytes) -> int:
        """Write bytes at the end, and return their number. They can be read after `flush`."""
        return self._file.write(content)

    def flush(self) -> None:
        """Pass all bytes on to the system."""
        self._file.flush()

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the file, all of which are there."""
        return os.pread(self._file.fileno(), size, start)


class Texts(Sequence[str]):
    """Texts in spools."""

    def __init__(self, spools: tuple[Spool, ...], places: NDArray[np.int64]) -> None:
        """Take the spools, and for each text the spool that it is in, its start and its size in bytes (texts, 3)."""
        self._spools, self._places = spools, places

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Write texts to a spool of their own."""
        spool = Spool()
        sizes = np.fromiter((spool.append(text.encode("utf-8", "surrogatepass")) for text in texts), np.int64)
        spool.flush()
        return cls((spool,), np.stack([np.zeros_like(sizes), np.cumsum(sizes) - sizes, sizes], axis=1))

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Return all texts, one part after the other."""
        places = [np.zeros((0, 3), np.int64)]
        spools: tuple[Spool, ...] = ()
        for part in parts:
            places.append(part._places + np.array([len(spools), 0, 0]))
            spools += part._spools
        return cls(spools, np.concatenate(places))

    def take(self, indices: NDArray[np.int64]) -> "Texts":
        """Return the texts at these positions."""
        return Texts(self._spools, self._places[indices])

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._read(of_text) for of_text in self._places[place].tolist()]
        return self._read(self._places[place].tolist())

    def __iter__(self) -> Iterator[str]:
        return (self._read(place.tolist()) for place in self._places)

    def _read(self, place: list[int]) -> str:
        spool, start, size = place
        return self._spools[spool].read(start, size).decode("utf-8", "surrogatepass")


def digest(text: str) -> bytes:
    """Return 16 bytes that stand for a text. No two texts that somebody wrote share them."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

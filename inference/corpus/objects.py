"""Says what a remote storage must do beyond Beam's FileSystems."""

from collections.abc import Sequence
from typing import IO, Protocol


class ConflictError(Exception):
    """The object is not the version that a write was to replace, so nothing was written."""


class Objects(Protocol):
    """A remote storage. Of two processes that replace the same version of an object at once, only one succeeds."""

    def adopt(self) -> None:
        """Let Beam's access to this storage in this process use one client."""

    def read(self, path: str) -> tuple[str, bytes] | None:
        """Return the version and the content of an object, or None if there is no object."""

    def get(self, path: str, size: int) -> bytes:
        """Return the bytes of an object, or the first `size` of them; all if `size` is negative."""

    def is_missing(self, error: Exception) -> bool:
        """Return whether an error of `get` says that there is no object."""

    def write(self, path: str, content: bytes, version: str | None) -> str:
        """Write an object in place of this version, or a new one (None), and return its version.

        Raises:
            ConflictError: the object has another version, or exists although a new one was to be written.
        """

    def upload(self, path: str, file: IO[bytes]) -> None:
        """Write an object, or replace whatever is there, with all of a file from where it stands."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects of one bucket. An object that is gone already is no error."""

    def touch_bucket(self, path: str) -> None:
        """Ask the bucket of a path for one object. An error of the storage says what is wrong."""

    def explain(self, error: Exception) -> str | None:
        """Return what is wrong and what to do, if it is an error of this storage that users can mend."""

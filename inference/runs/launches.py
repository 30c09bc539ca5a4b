"""Ends the threads of a process together that label for the same launch, such as those of FnApiRunner."""

import contextlib
import copy
from collections.abc import Iterator

_ended: dict[str, BaseException] = {}  # launches that have ended, and why


class LaunchEnded(Exception):
    """The launch that a thread works for has ended in another thread."""


def end(launch: str) -> None:
    """Let the threads of a launch in this process end before their next slice."""
    if launch:
        _ended[launch] = LaunchEnded()


def require(launch: str) -> None:
    """Check that a launch goes on. An empty name stands for a launch in another process, which does.

    Raises:
        BaseException: the error with which it ended in another thread.
    """
    if error := _ended.get(launch):
        raise error


@contextlib.contextmanager
def guard(launch: str) -> Iterator[None]:
    """End a launch if the body fails. Its runner may wait for the other threads before it tells of the failure."""
    try:
        yield
    except BaseException as error:
        if launch:
            _ended.setdefault(launch, _without_frames(error))
        raise


def _without_frames(error: BaseException) -> BaseException:
    """Return a copy of an error that keeps no frame alive, because frames hold models and batches."""
    try:
        return copy.copy(error)
    except Exception:  # some exceptions cannot be made from their arguments
        return LaunchEnded(str(error))

"""Ends the threads of a process together that label for the same launch, such as those of FnApiRunner."""

import contextlib
from collections.abc import Iterator

_ended: dict[str, BaseException] = {}  # launches that have ended, and why


class LaunchEnded(Exception):
    """The launch that a thread works for has ended in another thread, because of Ctrl-C."""


def end(launch: str, error: BaseException | None = None) -> None:
    """Let the threads of a launch in this process end before their next slice, with the error that ended it first.

    A launch without a name goes on, since its engine may give a slice that failed to the same process again.
    """
    if launch:
        _ended.setdefault(launch, error or LaunchEnded())


def require(launch: str) -> None:
    """Check that a launch goes on.

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
        end(launch, error)
        raise

"""Lets one command at a time into the folder of a run, or any number of tasks."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

from inference.corpus import lease, storage
from inference.corpus.lease import Lease
from models.errors import UserError

LOCK, TASKS = ".lock", "tasks"  # the file that is locked, and the folder in which tasks show themselves

TIDY_SECONDS = 5.0  # time in which the last task of a run should have tidied up


@contextlib.contextmanager
def hold(
    output: str,
    job: dict[str, str] | None = None,
    is_active: Callable[[dict[str, str]], bool] | None = None,
    *,
    shared: bool = False,
) -> Iterator[Lease | None]:
    """Let one command at a time into a folder, or any number of tasks (`shared`).

    That is a lease in a remote storage, and a lock on disk, which the operating system releases when the process ends.
    Tasks show themselves by files, which count where there is no lock.

    A task waits a little for a command, because the last task to leave a run takes the folder to tidy it up.

    Raises:
        UserError: another command is at work in the folder, or the folder cannot be written.
    """
    if storage.is_remote(output):
        storage.require_conditions(output)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        held = Lease(storage.join(output, LOCK), owner, job, is_active)
        if shared:
            _wait_for(held.refuse_held)
            yield None
            return
        with held:
            _refuse_tasks(output)
            yield held
        return
    try:
        os.makedirs(output, exist_ok=True)
        file: IO[bytes] = open(os.path.join(output, LOCK), "a+b")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}; name another folder.") from None
    with file:
        try:
            if shared:
                _wait_for(lambda: _flock(file, fcntl.LOCK_SH, output))
            else:
                _flock(file, fcntl.LOCK_EX, output)
        except OSError:  # some shared file systems have no locks
            if not shared:
                _refuse_tasks(output)
        yield None


def _flock(file: IO[bytes], kind: int, output: str) -> None:
    """Lock a file, and raise an OSError if its file system has no locks.

    Raises:
        UserError: another process has locked it.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"--output {output}: another run is at work in it; wait for it or stop it.") from None


def _wait_for(enter: Callable[[], None]) -> None:
    """Enter again and again for TIDY_SECONDS, until nobody else is in the way.

    Raises:
        UserError: somebody still is.
    """
    until = time.monotonic() + TIDY_SECONDS
    while True:
        try:
            return enter()
        except UserError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def _refuse_tasks(output: str) -> None:
    """Refuse a folder in which tasks are at work.

    Raises:
        UserError: a task has shown itself in time.
    """
    folder = storage.join(output, TASKS)
    if not storage.times(folder):
        return
    if alive := [name for name, age in storage.ages(folder).items() if age < lease.LEASE_SECONDS]:
        raise UserError(
            f"--output {output}: {len(alive)} tasks of `inference.worker` are at work in it; wait or stop them."
        )

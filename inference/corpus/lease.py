"""Admits one owner at a time to a folder in a remote storage, by an object that its owner renews."""

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

import orjson

from inference.corpus import storage
from inference.corpus.objects import ConflictError
from models.errors import UserError

LEASE_SECONDS = 120.0  # a lease that is not renewed for this long is free
RENEWALS = 4  # number of renewals in LEASE_SECONDS
RELEASE_SECONDS = 15.0  # most time to wait for the storage when the owner ends
# Signal to the main thread when a lease is lost. It ends a wait for other threads, which `interrupt_main` does not, and
# a script's background command ignores SIGINT.
LOST = signal.SIGUSR1


class Lease:
    """A context manager that admits one owner at a time, on any machine, through an object in a remote storage.

    Every write names the version of the object that it replaces, so of two writers only one succeeds. The owner
    renews the lease while the body runs. A killed owner leaves the object behind, and another may take the lease after
    LEASE_SECONDS without a renewal, by the clock of the storage. An owner that could not renew it for so long has lost
    it: `lost` says so, and the main thread gets a KeyboardInterrupt. If the process ignores Ctrl-C, it ends.

    An owner that ends leaves an object that says so. If its job may outlive it, it calls `leave`, and the object names
    the job. While the lease is left to a job, silence does not end the owner, because nobody gets the lease of an
    active job, and because the owner watches what the job costs.
    """

    def __init__(
        self,
        path: str,
        owner: str,
        job: dict[str, str] | None = None,
        is_active: Callable[[dict[str, str]], bool] | None = None,
    ) -> None:
        """Prepare a lease.

        Args:
            path: The object.
            owner: Who asks, for messages to others.
            job: What names the owner's job in its engine, if there is one.
            is_active: Asks the engine whether a job still runs. Without it, a job counts as running.
        """
        self.lost: str | None = None  # a sentence, once the lease is lost
        self._path = path
        self._owner = owner
        self._job = job
        self._is_active = is_active
        self._left = False
        self._version: str | None = None  # version of the object that this lease has written, or replaces
        self._writes = 0
        self.token = uuid.uuid4().hex  # what tells this lease from all others
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            UserError: another owner holds it, or the bucket cannot be written.
        """
        try:
            self._version = self._free_version()
            self._write()
        except UserError:
            raise
        except ConflictError:
            raise UserError(f"{self._path}: another run has just started here; wait for it or stop it.") from None
        except Exception as error:  # each storage raises its own exceptions
            raise UserError(storage.explanation(self._path, error)) from None
        if threading.current_thread() is threading.main_thread():  # no other thread can be told
            signal.signal(LOST, signal.default_int_handler)
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lease, or leave it to the job. Its object stays, since not all storages can delete a version.

        A storage that does not answer keeps nobody waiting, and the lease runs out.
        """
        if not self._left:
            self._job = None
        self._stop.set()
        self._renewer.join(RELEASE_SECONDS)

    def refuse_held(self) -> None:
        """Raise a UserError if another owner holds the lease. Change nothing."""
        try:
            self._free_version()
        except UserError:
            raise
        except Exception as error:  # each storage raises its own exceptions
            raise UserError(storage.explanation(self._path, error)) from None

    def leave(self, *, to_job: bool) -> None:
        """Say whether the lease belongs to the job when the body ends, because the job may still run then."""
        self._left = to_job

    def _free_version(self) -> str | None:
        """Return the version of the object to replace; None if there is no object.

        Raises:
            UserError: another owner holds the lease.
        """
        version, held = self._read()
        if version is None:
            return None
        if job := held.get("job"):
            self._refuse_active(job)
        if not held.get("left") and (age := self._seconds_since_renewal()) < LEASE_SECONDS:
            raise UserError(
                f"{self._path}: another run ({held.get('owner', 'unknown')}) is at work here, last seen {age:.0f} s "
                f"ago; wait for it, stop it, or try again in {LEASE_SECONDS - age:.0f} s if it was killed."
            )
        return version

    def _refuse_active(self, job: dict[str, str]) -> None:
        try:
            active = self._is_active is None or self._is_active(job)
        except Exception as error:  # each engine raises its own exceptions
            raise UserError(
                f"{self._path}: the job {job['name']} may be at work here, and its engine cannot be asked "
                f"({' '.join(str(error).split())[:200]}); delete this object once the job has ended."
            ) from None
        if active:
            raise UserError(f"{self._path}: the job {job['name']} is at work here; wait for it or cancel it.")

    def _seconds_since_renewal(self) -> float:
        folder, _, name = self._path.rpartition("/")
        return storage.ages(folder, name).get(name, LEASE_SECONDS)

    def _write(self, *, left: bool = False) -> None:
        """Write the object in place of the version that is known; `left` says that the owner has ended.

        The number of the write tells each content from all earlier ones, since equal ones may have equal versions. A
        write may have succeeded although its answer was lost: this one, or an earlier one that raised an error.
        """
        self._writes += 1
        fields = {"owner": self._owner, "token": self.token, "job": self._job, "left": left, "number": self._writes}
        for _ in range(2):
            try:
                self._version = storage.objects(self._path).write(self._path, orjson.dumps(fields), self._version)
                break
            except ConflictError:
                current, held = self._read()
                if held.get("token") != self.token:
                    raise
                self._version = current
                if held.get("number") == self._writes:
                    break
        self._renewed = time.monotonic()

    def _read(self) -> tuple[str | None, dict[str, Any]]:
        """Return the object's version and content; None and an empty dict if there is no object."""
        version, content = storage.objects(self._path).read(self._path) or (None, b"")
        with contextlib.suppress(ValueError, TypeError):  # a damaged lease says nothing, but its age counts
            return version, dict(orjson.loads(content))
        return version, {}

    def _renew(self) -> None:
        """Renew the lease until the owner ends, and then say so."""
        while not self.lost and not self._stop.wait(LEASE_SECONDS / RENEWALS):
            try:
                self._write()
            except ConflictError:
                self._lose(taken(self._path))
            except Exception:  # storage or network may fail; the next renewal may succeed
                if not self._left and time.monotonic() - self._renewed > LEASE_SECONDS:
                    self._lose(
                        f"{self._path}: the storage did not answer for {LEASE_SECONDS:.0f} s; this run has stopped."
                    )
        self._stop.wait()
        with contextlib.suppress(Exception):  # a lease that cannot be released runs out
            self._write(left=True)

    def _lose(self, sentence: str) -> None:
        self.lost = sentence
        if not self._stop.is_set() and signal.getsignal(LOST) is signal.default_int_handler:
            signal.pthread_kill(threading.main_thread().ident or 0, LOST)


def holds(path: str, token: str) -> bool:
    """Return whether a lease still has this token, so that no other owner has taken it, and was not released.

    One request reads it, since between two of them its owner may renew it.
    """
    try:
        held = orjson.loads(storage.read_if_there(path) or b"")
        return bool(held["token"] == token and (held["job"] or not held["left"]))
    except (ValueError, KeyError, TypeError):
        return False


def taken(path: str) -> str:
    """Return the sentence about a lease that another owner has."""
    return (
        f"{path}: another run has taken this folder, because this one was not seen for too long; this run has stopped."
    )

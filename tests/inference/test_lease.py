"""Tests a lease in a storage in memory that loses answers, or gives none."""

import signal
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from inference.corpus import lease as leases
from inference.corpus import storage
from inference.corpus.lease import Lease
from inference.corpus.objects import ConflictError
from models.paths import GS

PATH = f"{GS}bucket/out/.lock"


class Memory:
    """A storage with one object. A write for whose content `loses` returns true is done, and then raises an error."""

    def __init__(self) -> None:
        self.found: tuple[str, bytes] | None = None
        self.loses: Callable[[dict[str, Any]], bool] = lambda content: False

    @property
    def content(self) -> dict[str, Any]:
        """Return what the object holds."""
        assert self.found
        return dict(orjson.loads(self.found[1]))

    def read(self, path: str) -> tuple[str, bytes] | None:
        """Return the version and the content of the object."""
        return self.found

    def get(self, path: str, size: int) -> bytes:
        """Return the content of the object."""
        assert self.found
        return self.found[1]

    def write(self, path: str, content: bytes, version: str | None) -> str:
        """Write the object in place of a version."""
        if version != (self.found and self.found[0]):
            raise ConflictError(path)
        self.found = str(int(version or 0) + 1), content
        if self.loses(orjson.loads(content)):
            raise TimeoutError
        return self.found[0]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Put a storage in memory in the place of Cloud Storage."""
    found = Memory()
    monkeypatch.setattr(storage, "objects", lambda _: found)
    return found


def test_a_renewal_is_written_although_the_answer_to_an_earlier_one_was_lost(memory: Memory) -> None:
    lease = Lease(PATH, "one")
    lease._write()
    memory.loses = lambda content: content["number"] == 2
    with pytest.raises(TimeoutError):
        lease._write()
    lease._write()
    assert memory.content["number"] == 3


def test_a_write_whose_own_answer_was_lost_is_not_repeated(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client repeats a request without an answer, and the repetition meets the first one."""
    write = memory.write

    def twice(path: str, content: bytes, version: str | None) -> str:
        write(path, content, version)
        return write(path, content, version)

    monkeypatch.setattr(memory, "write", twice)
    lease = Lease(PATH, "one")
    lease._write()
    lease._write()
    assert memory.found
    assert (memory.content["number"], memory.found[0]) == (2, "2")


@pytest.mark.parametrize("job", [None, {"name": "labelbeam-1"}])
def test_an_owner_whose_renewals_got_no_answer_says_that_it_has_ended(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, job: dict[str, str] | None
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    lost = threading.Event()

    def loses(content: dict[str, Any]) -> bool:
        if content["number"] == 1 or content["left"]:
            return False
        lost.set()
        return True

    memory.loses = loses
    with Lease(PATH, "one", job) as lease:
        lease.leave(to_job=job is not None)
        assert lost.wait(10)
        assert leases.holds(PATH, lease.token)
    assert memory.content["left"]
    assert memory.content["job"] == job
    assert leases.holds(PATH, lease.token) == (job is not None)


def test_an_owner_that_was_overtaken_leaves_the_lease_of_the_other(memory: Memory) -> None:
    with Lease(PATH, "one") as lease:
        memory.found = "7", b'{"token": "another"}'
        with pytest.raises(ConflictError):
            lease._write()
        assert not leases.holds(PATH, lease.token)
    assert memory.content == {"token": "another"}


def test_an_owner_ends_although_its_storage_does_not_answer(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, write = threading.Event(), memory.write
    monkeypatch.setattr(leases, "RELEASE_SECONDS", 0.1)
    with Lease(PATH, "one") as lease:
        monkeypatch.setattr(memory, "write", lambda *args: (answer.wait(30), write(*args))[1])
    assert not memory.content["left"]
    answer.set()
    lease._renewer.join()
    assert memory.content["left"]


def test_an_owner_that_ends_is_not_interrupted(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one has taken its lease, which only the last renewal finds out."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.1)
    interrupted, renews, write = Mock(), threading.Event(), memory.write
    monkeypatch.setattr(signal, "pthread_kill", interrupted)
    with Lease(PATH, "one") as lease:

        def overtaken(*args: Any) -> str:
            renews.set()
            assert lease._stop.wait(10)
            memory.found = "7", b'{"token": "another"}'
            return write(*args)

        monkeypatch.setattr(memory, "write", overtaken)
        assert renews.wait(10)
    assert lease.lost
    interrupted.assert_not_called()

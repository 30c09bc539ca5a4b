"""Tests files on disks without hard links."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.corpus import storage

WRITERS = 8


def test_one_of_many_creates_a_file_on_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, replace = threading.Barrier(WRITERS), os.replace

    def link(source: str, path: str) -> None:
        together.wait(30)
        raise OSError(errno.EPERM, "Operation not permitted")

    def replace_later(source: str, path: str) -> None:
        time.sleep(0.1)
        replace(source, path)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "replace", replace_later)
    path = tmp_path / "run.json"
    with ThreadPoolExecutor(WRITERS) as pool:
        created = list(pool.map(lambda writer: storage.create_file(str(path), b"%d" % writer), range(WRITERS)))
    assert sum(created) == 1
    assert path.read_bytes() == b"%d" % created.index(True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_has_just_been_created_is_read_when_it_has_content(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.touch()
    timer = threading.Timer(0.1, path.write_bytes, (b"{}",))
    timer.start()
    assert storage.read_settled(str(path)) == b"{}"
    timer.join()


def test_a_crash_while_a_file_is_created_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.1)
    path = tmp_path / "run.json"
    path.touch()
    assert not storage.create_file(str(path), b"{}")

"""Test that a full or read-only disk gives one sentence, and that the same command resumes afterwards."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.runs.options import RESUME
from tests.inference.conftest import contents, write_corpus

Label = Callable[..., Path]
WORKERS = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)


def mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a mounted disk of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, "size=300k"):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("more", [(), pytest.param(WORKERS, marks=pytest.mark.slow)])
def test_a_full_disk(
    disk: Path,
    tmp_path: Path,
    colours: Path,
    label: Label,
    capfd: pytest.CaptureFixture[str],
    more: tuple[object, ...],
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 3_000)
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--slice_mb", 0.02)
    label(*flags, *more, output=disk / "run", expect=1)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert line.startswith(f"failed: {disk}/run/")
    assert line.endswith(f"cannot be written: No space left on device; check the disk and its permissions. {RESUME}")
    done = {path: path.read_bytes() for path in (disk / "run" / "receipts").iterdir() if path.suffix == ".json"}
    assert done
    assert not (disk / "run" / "summary.json").exists()
    assert mount(disk, "remount,size=20m")
    label(*flags, output=disk / "run")
    assert {path: path.read_bytes() for path in done} == done
    assert contents(disk / "run") == contents(label(*flags))


def test_a_disk_that_may_not_be_written(
    disk: Path, corpus: Path, colours: Path, label: Label, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus)
    assert mount(disk, "remount,ro")
    label(*flags, output=disk / "run", expect=2)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"error: --output {disk}/run cannot be written: Read-only file system; name another folder."
    assert mount(disk, "remount,rw")
    assert contents(label(*flags, output=disk / "run")) == contents(label(*flags))

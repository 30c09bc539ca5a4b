"""Test that the lines of a run in progress say what is known, and no more."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.runs import progress as progress_of_runs
from inference.runs import receipts
from inference.runs.options import RunOptions
from inference.runs.progress import ProgressWatcher
from inference.scoring.options import ScoringOptions
from tests.inference.conftest import identity_of


def test_a_line_says_how_far_a_run_is(
    corpus: Path, colours: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    options = RunOptions(str(run), 0, ScoringOptions(("m",)), run=identity_of(run))
    lost = [(path, path.read_bytes()) for path in sorted((run / "receipts").iterdir())[:2]]
    for path, _ in lost:
        path.unlink()
    capsys.readouterr()
    with ProgressWatcher(options) as progress:
        assert "lines are already done" in capsys.readouterr().err
        assert "no slice finished yet in 0 s: workers start" in progress.line()
        for path, content in lost:
            path.write_bytes(content)
        progress._update()
        assert progress.line().startswith("100.0%  300 lines  ")
        assert progress.line().endswith("lines/s  0 s left")


def test_a_storage_that_is_away_does_not_end_the_progress(
    corpus: Path, colours: Path, label: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    options = RunOptions(str(run), 0, ScoringOptions(("m",)), run=identity_of(run))
    away, paths = threading.Event(), receipts.paths

    def listed(output: str, identity: str) -> list[str]:
        if not away.is_set():
            away.set()
            raise OSError("out of reach")
        return [*paths(output, identity)]

    monkeypatch.setattr(progress_of_runs, "LINE_SECONDS", 0.01)
    with ProgressWatcher(options) as progress:
        progress._bytes = 0
        monkeypatch.setattr(receipts, "paths", listed)
        assert away.wait(10)
        while not progress._bytes:
            time.sleep(0.01)
    assert progress.state().startswith("100.0% of the run is finished")

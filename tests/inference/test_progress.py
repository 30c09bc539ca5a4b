"""Test that the lines of a run in progress say what is known, and no more."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.corpus.files import find_files
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
    with ProgressWatcher(options, find_files([str(corpus)])) as progress:
        assert "documents are already done" in capsys.readouterr().err
        assert "no slice finished yet in 0 s: workers start" in progress.line()
        assert progress.documents == 0
        for path, content in lost:
            path.write_bytes(content)
        progress._update()
        assert progress.line().startswith("100.0%  300 documents  ")
        assert progress.line().endswith("docs/s  0 s left")


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
    with ProgressWatcher(options, find_files([str(corpus)])) as progress:
        progress._seen.clear()
        progress._done = 0
        monkeypatch.setattr(receipts, "paths", listed)
        assert away.wait(10)
    assert progress.state().startswith("100.0% of the run is finished")

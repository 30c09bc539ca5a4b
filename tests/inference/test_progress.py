"""Test that the lines of a run in progress say what is known, and no more."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.corpus.files import find_files
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

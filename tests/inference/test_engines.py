"""Test that every engine that can be had writes the same bytes, and goes on where a run stopped."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inference.conftest import contents, write_corpus

Label = Callable[..., Path]
PRISM = next(iter(sorted(Path(__file__).parents[2].parent.glob("shared/prism/*-prism-*.zip"))), None)


def test_directrunner_is_fnapirunner(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beam's DirectRunner takes Prism or FnApiRunner, by what it finds in the web."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", 20)
    label("--model", colours, "--input", corpus, "--runner", "DirectRunner")
    assert capsys.readouterr().out.startswith("runner: FnApiRunner\n")
    label("--model", colours, "--input", corpus)
    assert capsys.readouterr().out.startswith("runner: FnApiRunner\n")


@pytest.mark.skipif(PRISM is None, reason="Beam's Prism is not here")
def test_prism_writes_the_same_bytes_and_resumes(tmp_path: Path, corpus: Path, colours: Path, label: Label) -> None:
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--slice_mb", 0.005)
    whole = label(*flags)
    prism = (*flags, "--runner", "PrismRunner", "--prism_location", PRISM)
    run = label(*prism)
    assert contents(run) == contents(whole)
    lost = sorted((run / "receipts").iterdir())[1::2]
    kept = {path: path.read_bytes() for path in (run / "receipts").iterdir() if path not in lost}
    for path in (*lost, run / "summary.json"):
        path.unlink()
    label(*prism, output=run)
    assert contents(run) == contents(whole)
    assert {path: path.read_bytes() for path in kept} == kept

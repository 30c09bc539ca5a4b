"""Tests that failures can be tried again, and that they count for what they may hold."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from inference.corpus.records import Document, Failure
from inference.runs import frames, integrity
from inference.scoring.scorer import Scored, Scorer
from tests.inference.conftest import contents, identity_of, rows_of, write_corpus

Label = Callable[..., Path]
FAILING = ("d7", "d8", "d150")


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let some documents fail until the list of scored ids is not empty any more when `score` begins twice."""
    scored: list[list[str]] = []
    score = Scorer.score

    def failing(self: Scorer, documents: Sequence[Document]) -> Scored:
        scored.append([document.id for document in documents])
        failing_now = FAILING if not getattr(flaky, "healthy", False) else ()
        predictions, failures, counts = score(self, [d for d in documents if d.id not in failing_now])
        failures += [Failure(d.line, d.id, "model_failed", "m", "") for d in documents if d.id in failing_now]
        return predictions, failures, counts

    monkeypatch.setattr(flaky, "healthy", False, raising=False)
    monkeypatch.setattr(Scorer, "score", failing)
    return scored


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_what_failed_is_scored_again_and_nothing_else(
    tmp_path: Path,
    colours: Path,
    label: Label,
    flaky: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    file_format: str,
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    with corpus.open("a") as file:
        file.write('\nnot json\n{"id": "d300"}\n')
    flags: tuple[object, ...] = ("--model", colours, "--input", corpus, "--slice_mb", 0.005, "--format", file_format)
    flags += ("--scores", "all", "--runtime", "torch", "--precision", "fp32", "--max_failure_rate", 0.5)
    run = label(*flags)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["failures"] == {"model_failed": 3, "no_text": 1, "not_json": 1}
    before = contents(run)
    label(*flags, output=run)
    assert contents(run) == before

    monkeypatch.setattr(globals()["flaky"], "healthy", True)
    flaky.clear()
    label(*flags, "--retry_failures", "model_failed", output=run)
    assert sorted(id for ids in flaky for id in ids) == sorted(FAILING)
    assert not list(integrity.verify(str(run)))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["failures"] == {"no_text": 1, "not_json": 1}
    assert (summary["lines"], summary["predicted"], summary["blank"]) == (303, 300, 1)
    whole = label(*flags)
    if file_format == "jsonl":
        assert contents(run) == contents(whole)
    assert frames.read_predictions(str(run)).equals(frames.read_predictions(str(whole)))
    expected = json.loads((whole / "summary.json").read_text())
    assert {name: summary[name] for name in ("labels", "pairs", "scores", "failed_bytes", "bytes")} == {
        name: expected[name] for name in ("labels", "pairs", "scores", "failed_bytes", "bytes")
    }
    assert not (run / "attempts").exists()


def test_what_fails_again_stays_a_failure(
    tmp_path: Path, colours: Path, label: Label, flaky: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    flags = ("--model", colours, "--input", corpus, "--max_failure_rate", 0.5)
    run = label(*flags)
    before = contents(run)
    label(*flags, "--retry_failures", output=run)
    assert contents(run) == before
    assert not list(integrity.verify(str(run)))
    label(*flags, "--retry_failures", "bad_luck", output=run, expect=2)
    assert "--retry_failures bad_luck: expected one of line_too_long, damaged_file" in capsys.readouterr().err


def test_failures_count_in_bytes(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line without an id holds as many bytes as half of the corpus."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    with corpus.open("a") as file:
        file.write(json.dumps({"title": "x" * 20_000}) + "\n")
    run = label("--model", colours, "--input", corpus, "--max_failure_rate", 0.1, expect=3)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["failure_rate"] < 0.01
    size = corpus.stat().st_size - 301  # without the newlines
    assert (summary["bytes"], summary["failed_bytes"]) == (size, 20_000 + len('{"title": ""}'))
    share = summary["failed_bytes"] / size
    assert f"{share:.2%} of the documents' bytes failed, more than --max_failure_rate 10.00%" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["damaged_file", "json_array", "long_array"])
def test_a_file_that_is_damaged_or_an_array_fails_the_run(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_corpus(folder / "a.jsonl", 300)
    rows = [{"id": f"x{i}", "text": "red"} for i in range(300)]
    if kind == "damaged_file":
        (folder / "b.jsonl.gz").write_bytes(gzip.compress(write_corpus(tmp_path / "b.jsonl", 5_000).read_bytes())[:30])
    else:
        rows += [{"id": "long", "text": "x" * 11_000_000}] if kind == "long_array" else []
        (folder / "b.jsonl").write_text(json.dumps(rows))
    flags = ("--model", colours, "--input", folder / "*", "--max_failure_rate", 1)
    run = label(*flags, expect=3)
    reason = kind.replace("long", "json")
    assert [row["reason"] for row in rows_of(run, "failures")] == [reason]
    assert (
        f"{reason}: each of these failures stands for any number of documents; see {run}/failures, mend the files, or "
        "accept the loss with --allow_damaged_files"
    ) in capsys.readouterr().err
    assert len(rows_of(run)) == 300
    label(*flags, "--allow_damaged_files", output=run)
    assert identity_of(run)

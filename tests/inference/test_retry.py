"""Tests that failures can be tried again, and that they count for what they may hold."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.corpus.records import Document
from inference.runs import frames, integrity, receipts, rows, sink
from inference.runs.receipts import Receipt
from inference.scoring import starting
from inference.scoring.logits import Logits
from inference.scoring.reference import Reference
from inference.scoring.runtimes import Runtime
from inference.scoring.scorer import Scored, Scorer
from inference.scoring.starting import Started
from inference.scoring.verified_model import VerifiedModel
from models.errors import UserError
from tests.inference.conftest import contents, identity_of, rows_of, write_corpus

Label = Callable[..., Path]
FAILING = ("d7", "d8", "d150")


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let every text with an @ fail in the network while the list is not empty."""
    active = [True]
    start = starting.start

    def started(runtime: Runtime, model: VerifiedModel, reference: Reference) -> Started:
        right = start(runtime, model, reference)
        sign = reference.tokenizer.ids(["@"])[0][1]

        def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
            if active and (ids == sign).any():
                raise ValueError("an @")
            return right.forward(ids, mask)

        return right._replace(forward=forward)

    monkeypatch.setattr(starting, "start", started)
    return active


@dataclass
class Flaky:
    """A scorer that fails on the documents FAILING until it is healthy."""

    healthy: bool = False
    scored: list[list[str]] = field(default_factory=list)  # ids of the documents of each call


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Flaky:
    """Replace the scorer by a flaky one."""
    state, score = Flaky(), Scorer.score

    def failing(self: Scorer, documents: Sequence[Document], others: int = 0) -> Scored:
        state.scored.append([document.id for document in documents])
        failing_now = () if state.healthy else FAILING
        predictions, failures, counts = score(self, [d for d in documents if d.id not in failing_now], others)
        failures += [replace(d, raw=b"").failure("model_failed", "m") for d in documents if d.id in failing_now]
        return predictions, failures, counts

    monkeypatch.setattr(Scorer, "score", failing)
    return state


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_what_failed_is_scored_again_and_nothing_else(
    tmp_path: Path,
    colours: Path,
    label: Label,
    flaky: Flaky,
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

    flaky.healthy = True
    flaky.scored.clear()
    label(*flags, "--retry_failures", "model_failed", output=run)
    assert sorted(id for ids in flaky.scored for id in ids) == sorted(FAILING)
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


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_many_documents_that_fail_again_are_no_reason_to_stop(
    tmp_path: Path, colours: Path, label: Label, poison: list[bool], file_format: str
) -> None:
    """A retry scores nothing but what failed, so most of it may fail."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    with corpus.open("a") as file:
        file.writelines(json.dumps({"id": f"x{i}", "text": f"{'red ' * i}@"}) + "\n" for i in range(20))
    flags: tuple[object, ...] = ("--model", colours, "--input", corpus, "--runtime", "torch", "--format", file_format)
    flags += ("--max_failure_rate", 0.5)
    run = label(*flags)
    before = contents(run)
    label(*flags, "--retry_failures", output=run)
    assert contents(run) == before
    poison.clear()
    label(*flags, "--retry_failures", output=run)
    assert not list(integrity.verify(str(run)))
    summary, expected = (json.loads((folder / "summary.json").read_text()) for folder in (run, label(*flags)))
    for name in ("predicted", "failures", "lengths", "truncated"):
        assert summary[name] == expected[name]


@pytest.mark.parametrize("kind", ["predictions", "failures"])
def test_a_file_that_has_changed_is_not_sealed_again(
    tmp_path: Path,
    colours: Path,
    label: Label,
    flaky: Flaky,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    flags = ("--model", colours, "--input", write_corpus(tmp_path / "corpus.jsonl", 300), "--max_failure_rate", 0.5)
    run = label(*flags)
    (path,) = (run / kind).iterdir()
    path.write_bytes(path.read_bytes().replace(b"d9", b"e9").replace(b"model_failed", b"no_text"))
    before = contents(run)
    flaky.healthy = True
    label(*flags, "--retry_failures", output=run, expect=1)
    (receipt,) = (run / "receipts").iterdir()
    error = capsys.readouterr().err
    assert f"failed: {path} has changed since it was written: expected SHA-256 " in error
    assert f"put it back, or delete {receipt} and repeat the command of the run." in error
    assert contents(run) == before
    receipt.unlink()
    label(*flags, output=run)
    assert not list(integrity.verify(str(run)))


def test_a_retry_that_was_overtaken_changes_nothing(
    tmp_path: Path, colours: Path, label: Label, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine slept while another launcher of the same run tried the failures again."""
    flags = ("--model", colours, "--input", write_corpus(tmp_path / "corpus.jsonl", 300), "--max_failure_rate", 0.5)
    run = label(*flags)
    calls: list[tuple[Any, ...]] = []
    extend = sink.extend_slice

    def noted(*arguments: Any) -> Receipt:
        calls.append(arguments)
        return extend(*arguments)

    monkeypatch.setattr(sink, "extend_slice", noted)
    label(*flags, "--retry_failures", output=run)
    flaky.healthy = True
    label(*flags, "--retry_failures", output=run)
    before, receipt = contents(run), receipts.find(str(run), identity_of(run), calls[0][1].receipt.slice)
    late = replace(calls[0][0], failures=[replace(f, detail="late") for f in calls[0][0].failures])
    with pytest.raises(UserError, match="expected this file"):
        extend(late, calls[0][1], calls[0][2])
    monkeypatch.setattr(sink, "_content", lambda *_: b"")  # it had read the files before they were deleted
    monkeypatch.setattr(rows, "merge", lambda *_: None)
    assert extend(late, calls[0][1], calls[0][2]) == receipt
    assert contents(run) == before


def test_a_retry_beside_a_fresh_start_is_refused(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus)
    run = label(*flags)
    identity = identity_of(run)
    label(*flags, "--retry_failures", "--overwrite", output=run, expect=2)
    assert "--retry_failures and --overwrite: expected one of them, found both; drop one." in capsys.readouterr().err
    assert identity_of(run) == identity


def test_what_fails_again_stays_a_failure(
    tmp_path: Path, colours: Path, label: Label, flaky: Flaky, capsys: pytest.CaptureFixture[str]
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

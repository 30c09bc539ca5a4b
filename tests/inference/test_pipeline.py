"""Tests the whole pipeline on DirectRunner: what it writes, how it treats bad input, and that no line is lost."""

import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from inference.corpus.records import Document
from inference.runs import handler
from inference.runs import receipts as all_receipts
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from models import weights
from models.decision import probabilities
from models.network import PooledClassifier
from tests.inference.conftest import contents, identity_of, rows_of, texts, write_corpus
from tests.tiny import encode
from training import measurement

Label = Callable[..., Path]


def summary_of(folder: Path) -> dict[str, Any]:
    totals: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert totals["predicted"] + totals["failed"] + totals["blank"] == totals["lines"]
    return totals


BAD_LINES: list[tuple[bytes, str | None]] = [
    (b'{"id": "good", "text": "red sky"}', None),
    (b'{"id": "caf\xe9", "text": "x"}', "not_utf8"),
    (b"{broken", "not_json"),
    (b"[1, 2]", "not_an_object"),
    (b"", "blank"),
    (b'{"text": "no id"}', "no_id"),
    (b'{"id": "no text"}', "no_text"),
    (b'{"id": "number", "text": 5}', "text_not_string"),
    (b'{"id": "empty", "text": " \\n "}', "empty_text"),
    (b'{"id": "crlf", "text": "green grass"}\r', None),
    (b'{"id": "long", "text": "' + b"x" * (10 * 1024 * 1024) + b'"}', "line_too_long"),
    (b'{"id": "nul", "text": "nul \0 and \\u0000"}', None),
    ('{"id": "emoji", "text": "\U0001f600 blue"}'.encode(), None),
    (b'{"id": "surrogate", "text": "half \\ud83d"}', None),
    (b"   ", "blank"),
    (b'{"id": "good", "text": "the same id again"}', None),
    (b'{"id": "last", "text": "no newline"}', None),
]


def test_every_kind_of_bad_line_is_accounted_for(tmp_path: Path, colours: Path, label: Label) -> None:
    corpus = tmp_path / "bad.jsonl"
    corpus.write_bytes(b"\xef\xbb\xbf" + b"\n".join(line for line, _ in BAD_LINES))
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.5, expect=3)

    outcomes = Counter(outcome for _, outcome in BAD_LINES)
    totals = summary_of(run)
    assert totals["lines"] == len(BAD_LINES)
    assert (totals["predicted"], totals["blank"]) == (outcomes.pop(None), outcomes.pop("blank"))
    assert totals["failures"] == outcomes
    assert totals["duplicate_ids"] == 1
    assert totals["failure_rate"] == pytest.approx(8 / 15)
    expected = [json.loads(line.replace(b"\0", b""))["id"] for line, outcome in BAD_LINES if outcome is None]
    assert [row["id"] for row in rows_of(run)] == expected
    failures = rows_of(run, "failures")
    assert [(f["line"], f["reason"]) for f in failures] == [
        (number, outcome) for number, (_, outcome) in enumerate(BAD_LINES, 1) if outcome not in (None, "blank")
    ]
    assert {f["file"] for f in failures} == {str(corpus)}
    assert all(len(f["raw"].encode()) <= 1100 for f in failures)
    assert next(f for f in failures if f["reason"] == "no_text")["id"] == "no text"


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_truncated_file_is_labelled_as_far_as_it_goes(
    tmp_path: Path, colours: Path, label: Label, keep: float
) -> None:
    data = gzip.compress(write_corpus(tmp_path / "c.jsonl", 400).read_bytes())
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(data[: int(len(data) * keep)])
    (tmp_path / "empty.jsonl").write_bytes(b"")
    flags = ("--model", colours, "--input", broken, "--input", tmp_path / "empty.jsonl", "--max_failure_rate", 1)
    run = label(*flags, "--allow_damaged_files")
    ids = [row["id"] for row in rows_of(run)]
    assert ids == [f"d{i}" for i in range(len(ids))]
    assert 100 < len(ids) <= 400
    (failure,) = rows_of(run, "failures")
    assert (failure["file"], failure["line"], failure["reason"]) == (str(broken), len(ids) + 1, "damaged_file")
    assert "at byte" in failure["detail"]
    summary_of(run)


def test_a_text_that_makes_the_model_fail_fails_alone(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = encode(colours, "@")[1]
    forward = PooledClassifier.forward

    def failing(self: PooledClassifier, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if (input_ids == poison).any():
            raise RuntimeError("the model cannot take this")
        return forward(self, input_ids, mask)

    lines = corpus.read_text().splitlines()
    lines[150] = '{"id": "poison", "text": "red @ blue"}'
    corpus.write_text("\n".join(lines))
    monkeypatch.setattr(PooledClassifier, "forward", failing)
    run = label("--model", colours, "--input", corpus, "--runtime", "torch")
    monkeypatch.undo()
    (failure,) = rows_of(run, "failures")
    assert (failure["id"], failure["line"], failure["reason"]) == ("poison", 151, "model_failed")
    assert "colours: RuntimeError: the model cannot take this" in failure["detail"]
    assert failure["raw"] == lines[150]
    assert [row["id"] for row in rows_of(run)] == [f"d{i}" for i in range(300) if i != 150]


def test_failures_can_be_kept_free_of_texts(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "Mrs Robinson"
    poison = encode(colours, "@")[1]
    lines = [
        f"not json of {secret}",
        json.dumps({"id": "x", "text": [secret]}),
        json.dumps({"id": "y", "text": f"@ {secret}"}),
    ]
    corpus.write_text(corpus.read_text() + "\n".join(lines) + "\n")
    forward = PooledClassifier.forward

    def failing(self: PooledClassifier, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if (input_ids == poison).any():
            raise RuntimeError(f"the model cannot take {secret}")
        return forward(self, input_ids, mask)

    monkeypatch.setattr(PooledClassifier, "forward", failing)
    flags = ("--model", colours, "--input", corpus, "--runtime", "torch", "--max_failure_rate", "1")
    run = label(*flags, "--redact_failures")
    assert {row["reason"] for row in rows_of(run, "failures")} >= {"not_json", "model_failed"}
    assert all(row["raw"] == "" for row in rows_of(run, "failures"))
    for path in run.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert secret in "".join(row["raw"] for row in rows_of(label(*flags), "failures"))


def test_rows_of_several_models_equal_those_of_single_runs(
    corpus: Path, colours: Path, offensive: Path, label: Label
) -> None:
    flags = ("--input", corpus, "--scores", "all", "--keep_fields", "year")
    both = rows_of(label("--model", colours, "--model", offensive, *flags))
    first = rows_of(label("--model", colours, *flags))
    second = rows_of(label("--model", offensive, *flags))
    assert both == [a | b for a, b in zip(first, second, strict=True)]
    assert list(both[0]) == ["id", "year", "colours", "offensive"]
    assert [row["id"] for row in both] == [f"d{i}" for i in range(300)]
    assert len({row["colours"]["scores"][0]["score"] for row in both}) > 30


def test_scores_are_those_of_the_evaluation_that_training_does(corpus: Path, colours: Path, label: Label) -> None:
    model = weights.load(colours)
    run = label("--model", colours, "--input", corpus, "--scores", "all", "--precision", "fp32")
    scores = np.array([[score["score"] for score in row["colours"]["scores"]] for row in rows_of(run)])
    logits = measurement.score(model.network, model.tokenizer, texts(300), model.manifest.text)
    expected = probabilities(logits, model.manifest.labels.task, model.manifest.decision)
    assert np.abs(scores - expected).max() < 1e-5


def test_parquet_holds_what_jsonl_holds(corpus: Path, colours: Path, label: Label) -> None:
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--keep_fields", "year", "--slice_mb", 0.005)
    jsonl, parquet = label(*flags), label(*flags, "--format", "parquet")
    files = sorted((parquet / "predictions").glob("*.parquet"))
    assert len(files) == len(list((jsonl / "predictions").glob("*.jsonl"))) > 3
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert [{**row, "year": int(row["year"])} for row in rows] == rows_of(jsonl)
    assert summary_of(parquet)["labels"] == summary_of(jsonl)["labels"]
    assert json.loads((parquet / "schema.json").read_text())[1] == {
        "name": "year",
        "type": "STRING",
        "mode": "NULLABLE",
    }


@pytest.mark.parametrize(("scores", "count"), [("predicted", None), ("all", 3), ("top:2", 2)])
def test_which_scores_are_written(corpus: Path, colours: Path, label: Label, scores: str, count: int | None) -> None:
    for row in rows_of(label("--model", colours, "--input", corpus, "--scores", scores)):
        written = {score["label"]: score["score"] for score in row["colours"]["scores"]}
        if count is None:
            assert list(written) == row["colours"]["labels"]
            assert all(value >= 0.5 for value in written.values())
        else:
            assert len(written) == count
        if scores == "top:2":
            assert list(written.values()) == sorted(written.values(), reverse=True)


@pytest.mark.engine("FnApiRunner", "threads and processes write the same bytes")
def test_runs_in_threads_and_in_processes_write_the_same_files(corpus: Path, colours: Path, label: Label) -> None:
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--slice_mb", 0.005)
    single = contents(label(*flags))
    for mode in ("multi_threading", "multi_processing"):
        run = label(*flags, "--runner", "DirectRunner", "--direct_num_workers", 2, "--direct_running_mode", mode)
        assert contents(run) == single
        assert summary_of(run)["predicted"] == 300
    assert contents(label(*flags, "--runner", "FnApiRunner")) == single


def test_a_slice_is_written_before_the_next_is_read(corpus: Path, colours: Path, label: Label) -> None:
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.002, "--direct_num_workers", 1)
    receipts = [receipt for _, receipt in all_receipts.read_all(str(run), identity_of(run)) if receipt]
    receipts.sort(key=lambda receipt: receipt.finished)
    for done, following in pairwise(receipts):
        assert following.finished - following.seconds >= done.finished - 0.001  # seconds are rounded to milliseconds


def test_limit_labels_the_first_lines(corpus: Path, colours: Path, label: Label) -> None:
    run = label("--model", colours, "--input", corpus, "--limit", 37, "--slice_mb", 0.002)
    assert [row["id"] for row in rows_of(run)] == [f"d{i}" for i in range(37)]
    assert summary_of(run)["lines"] == 37


def test_without_an_id_field_ids_are_file_and_line(corpus: Path, colours: Path, label: Label) -> None:
    run = label("--model", colours, "--input", corpus, "--id_field=", "--slice_mb", 0.002)
    assert [row["id"] for row in rows_of(run)] == [f"{corpus}:{line}" for line in range(1, 301)]
    assert summary_of(run)["duplicate_ids"] == 0


def test_text_fields_and_max_tokens_of_the_run_override_the_models(tmp_path: Path, colours: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "title": "red rose", "body": "blue sky"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "1", "text": "red rose\\nblue sky"}\n')
    joined = rows_of(label("--model", colours, "--input", tmp_path / "a.jsonl", "--text_fields", "title,body"))
    plain = rows_of(label("--model", colours, "--input", tmp_path / "b.jsonl"))
    assert joined == plain
    run = label("--model", colours, "--input", tmp_path / "b.jsonl", "--max_tokens", 4)
    assert (summary_of(run)["tokens"], summary_of(run)["truncated"]) == ({"colours": 4}, {"colours": 1})


def test_the_report_on_screen_adds_up(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus)
    printed = capsys.readouterr().out
    assert "300 lines = 300 predicted + 0 failed + 0 blank" in printed
    for name, count in summary_of(run)["labels"]["colours"].items():
        assert f"│ {name}" in printed
        assert f" {count:,} │" in printed


def test_the_models_of_a_run_are_loaded_once_while_its_pipeline_is_built(
    tmp_path: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Scorer.__init__

    def counted(self: Scorer, options: ScoringOptions) -> None:
        loaded.append(threading.current_thread().name)
        load(self, options)

    monkeypatch.setattr(Scorer, "__init__", counted)
    flags = ("--model", colours, "--input", write_corpus(tmp_path / "a.jsonl", 200), "--slice_mb", 0.005)
    run = label(*flags)
    label(*flags, output=run)  # a finished run, for which Beam loads them too
    assert [name.partition("_")[0] for name in loaded] == ["load", "load"]
    assert handler._loading == {}


def test_no_document_is_pickled_to_know_the_size_of_a_slice(
    tmp_path: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled: list[Document] = []
    monkeypatch.setattr(Document, "__getstate__", pickled.append)
    label("--model", colours, "--input", write_corpus(tmp_path / "a.jsonl", 200), "--slice_mb", 0.005)
    assert pickled == []

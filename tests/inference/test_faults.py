"""Tests whose fault a failure is: a document that fails alone is sealed, and whatever else fails seals nothing."""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference import Classifier, run
from inference.corpus.records import Document, Documents
from inference.runs import handler
from inference.runs.handler import SliceDocuments, SliceHandler
from inference.scoring import faults, starting
from inference.scoring.faults import DeviceError, ScoringError
from inference.scoring.logits import Forward, Logits, to_numpy
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from inference.scoring.starting import Started
from tests.inference.conftest import rows_of, texts, write_corpus

Ids = NDArray[np.int64]
Fault = Callable[[int, Ids, Logits], Logits]  # from the number of calls so far, the ids and the right logits


def documents(count: int) -> list[Document]:
    return [Document(i + 1, f"d{i}", (text,), {}, b"") for i, text in enumerate(texts(count))]


def with_fault(forward: Forward, fault: Fault, calls: list[int]) -> Forward:
    """Return a forward that passes its result through the fault, and counts its calls."""

    def faulty(ids: Ids, mask: Ids | None) -> Logits:
        calls.append(len(ids))
        return fault(len(calls), ids, forward(ids, mask))

    return faulty


@pytest.fixture
def loaded(colours: Path) -> Scorer:
    """A scorer with batches of few documents, computed one after another."""
    scorer = Scorer(ScoringOptions((str(colours),), runtime="torch", device="cpu", scores="all", threads=1))
    scorer._models[0]._token_budget = 64
    return scorer


def break_down(scorer: Scorer, fault: Fault) -> list[int]:
    """Let the scorer's model fail, and return the list of its batches' sizes, which grows with each call."""
    calls: list[int] = []
    scorer._models[0]._forward = with_fault(scorer._models[0]._forward, fault, calls)
    return calls


def failing(when: Callable[[int, Ids], bool], error: Exception) -> Fault:
    def fault(call: int, ids: Ids, logits: Logits) -> Logits:
        if when(call, ids):
            raise error
        return logits

    return fault


def spoiled(when: Callable[[int, Ids], bool], value: float) -> Fault:
    return lambda call, ids, logits: to_numpy(logits) * 0 + np.float32(value) if when(call, ids) else logits


def from_40_on(call: int, _: Ids) -> bool:
    return call >= 40


@pytest.mark.parametrize(
    "fault",
    [
        failing(from_40_on, RuntimeError("the device is gone")),
        failing(from_40_on, MemoryError()),
        failing(from_40_on, RuntimeError("CUDA error: device-side assert triggered")),
        spoiled(from_40_on, float("nan")),
    ],
)
def test_a_device_that_goes_bad_seals_no_document(loaded: Scorer, fault: Fault) -> None:
    calls = break_down(loaded, fault)
    with pytest.raises(ScoringError, match="no document is at fault, and none that was scored together"):
        loaded.score(documents(1000))
    assert 40 <= len(calls) < 60  # the other batches are not tried


def test_one_document_that_fails_is_sealed_after_it_failed_twice_alone(loaded: Scorer) -> None:
    expected = {prediction.id: prediction for prediction in loaded.score(documents(300))[0]}
    poison = loaded._models[0].tokenizer.ids(["@"])[0][1]
    calls = break_down(loaded, failing(lambda _, ids: bool((ids == poison).any()), ValueError("not this")))
    predictions, failures, counts = loaded.score([*documents(300), Document(301, "x", ("red @",), {}, b"raw")])
    (failure,) = failures
    assert (failure.id, failure.reason, failure.detail) == ("x", "model_failed", "colours: ValueError: not this")
    assert [prediction.id for prediction in predictions] == list(expected)
    assert calls.count(1) >= 2
    assert counts.labels["colours"]


@pytest.mark.parametrize("length", [1, 2])
def test_a_burst_of_failures_that_spares_the_probe_costs_nothing(loaded: Scorer, length: int) -> None:
    """The burst begins at a batch of two documents, so its second failure is that of a lone document."""
    expected = [prediction.by_model["colours"].labels for prediction in loaded.score(documents(300))[0]]
    calls = break_down(loaded, failing(lambda call, _: 20 <= call < 20 + length, RuntimeError("just now")))
    predictions, failures, _ = loaded.score(documents(300))
    assert (calls[19:21], failures) == ([2, 1], [])
    assert [prediction.by_model["colours"].labels for prediction in predictions] == expected


@pytest.mark.parametrize("length", [3, 12])
def test_a_burst_of_failures_that_lasts_until_the_probe_seals_no_document(loaded: Scorer, length: int) -> None:
    break_down(loaded, failing(lambda call, _: 20 <= call < 20 + length, RuntimeError("just now")))
    with pytest.raises(ScoringError, match="expected that model 'colours' scores the probe texts"):
        loaded.score(documents(300))


def test_scores_that_are_not_finite_once_are_computed_again(loaded: Scorer) -> None:
    break_down(loaded, spoiled(lambda call, _: call == 20, float("nan")))
    predictions, failures, _ = loaded.score(documents(300))
    assert (len(predictions), failures) == (300, [])


def test_wrong_scores_are_noticed_at_the_end_of_the_slice(loaded: Scorer) -> None:
    break_down(loaded, spoiled(from_40_on, 3.0))
    element = SliceDocuments(mock.Mock(), Documents(300, documents=documents(300)), 0.0)
    with pytest.raises(ScoringError, match=r"found scores that differ by 0\.\d+;"):
        handler.score_slice(element, loaded)


def test_a_model_that_fails_on_all_but_the_probe_texts_seals_nothing(loaded: Scorer) -> None:
    probe = loaded._models[0]._probe._inputs[0]
    damaged = failing(lambda _, ids: not np.array_equal(ids, probe), ValueError("this shape"))
    break_down(loaded, damaged)
    with pytest.raises(ScoringError, match=r"of [\d,]+ texts fail \(ValueError: this shape\)"):
        loaded.score(documents(100))
    assert len(loaded.score(documents(faults.FEWEST_FAILED - 1))[1]) == faults.FEWEST_FAILED - 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_memory_is_the_machines_fault(loaded: Scorer, error: Exception) -> None:
    model = loaded._models[0]
    forward, probe = model._forward, model._probe._inputs[0]
    model._token_budget = 2048
    break_down(loaded, failing(lambda _, ids: ids.size > 128, error))
    predictions, failures, _ = loaded.score(documents(300))
    assert (len(predictions), failures) == (300, [])
    assert model._token_budget <= 256

    model._forward = forward
    break_down(loaded, failing(lambda _, ids: ids.shape[1] == 32 and not np.array_equal(ids, probe), error))
    with pytest.raises(ScoringError, match="memory does not suffice for one text of 32 tokens"):
        loaded.score(documents(300))


def test_a_lost_gpu_stops_at_once(loaded: Scorer) -> None:
    lost = failing(from_40_on, RuntimeError("CUDA error: an illegal memory access was encountered"))
    calls = break_down(loaded, lost)
    with pytest.raises(DeviceError, match="lost to this process"):
        loaded.score(documents(1000))
    assert len(calls) in range(40, 44)  # the thread may begin another batch meanwhile


class Late:
    """Logits of a GPU that reports its error when they are fetched."""

    def wait(self) -> NDArray[np.float32]:
        raise RuntimeError("late")


@pytest.mark.parametrize("for_ever", [True, False])
def test_an_error_that_a_gpu_reports_late_belongs_to_its_batch(loaded: Scorer, for_ever: bool) -> None:
    def late(call: int, _: Ids, logits: Logits) -> Logits:
        return Late() if call == 40 or (for_ever and call > 40) else logits

    loaded._models[0].on_gpu = True
    break_down(loaded, late)
    if for_ever:
        with pytest.raises(ScoringError, match="RuntimeError: late"):
            loaded.score(documents(1000))
    else:
        predictions, failures, _ = loaded.score(documents(1000))
        assert (len(predictions), failures) == (1000, [])


@pytest.mark.parametrize(("main", "ends"), [(handler.WORKER, True), ("inference.beam_runner", False)])
def test_a_worker_without_its_gpu_ends_at_the_next_slice(
    monkeypatch: pytest.MonkeyPatch, main: str, ends: bool
) -> None:
    monkeypatch.setattr(handler, "_device_lost", type(handler._device_lost)())
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name=main), raising=False)
    monkeypatch.setattr(os, "_exit", mock.Mock(side_effect=SystemExit))
    scorer = mock.Mock(score=mock.Mock(side_effect=DeviceError("lost")))
    batch = [SliceDocuments(mock.Mock(), Documents(), 0.0)]
    model_handler = SliceHandler(ScoringOptions(()))
    with pytest.raises(DeviceError):  # its sentence reaches the user first
        model_handler.run_inference(batch, scorer)
    with pytest.raises(SystemExit if ends else DeviceError):
        model_handler.run_inference(batch, scorer)


@pytest.fixture
def faulty_start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Return a function that makes every model fail from now on."""
    start = starting.start

    def install(fault: Fault) -> None:
        def broken(started: Started) -> Started:
            return started._replace(forward=with_fault(started.forward, fault, []))

        monkeypatch.setattr(starting, "start", lambda *model: broken(start(*model)))
        monkeypatch.setattr("inference.scoring.scorer.CPU_TOKEN_BUDGET", 64)

    return install


@pytest.mark.parametrize(
    "fault", [failing(from_40_on, RuntimeError("the device is gone")), spoiled(from_40_on, float("nan"))]
)
def test_a_run_whose_device_fails_stops_and_resumes(
    tmp_path: Path,
    colours: Path,
    label: Callable[..., Path],
    faulty_start: Callable[[Fault], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 400)
    flags = ("--model", colours, "--input", corpus, "--runtime", "torch", "--slice_mb", 0.01, "--max_failure_rate", 1)
    faulty_start(fault)
    out = label(*flags, expect=1)
    error = capsys.readouterr().err
    assert re.search("^failed: the device or the model failed, not the documents: .+ Finished slices are kept", error)
    assert "Traceback" not in error
    assert not (out / "failures").exists()
    assert not (out / "summary.json").exists()
    finished = {path.stem for path in (out / "receipts").glob("*")}
    assert {path.name.rpartition("-")[0] for path in (out / "predictions").glob("*")} == finished
    monkeypatch.undo()
    label(*flags, output=out)
    assert json.loads((out / "summary.json").read_text())["predicted"] == 400
    assert [row["id"] for row in rows_of(out)] == [f"d{i}" for i in range(400)]


def test_a_stream_whose_device_fails_ends_after_whole_rows(
    tmp_path: Path,
    colours: Path,
    faulty_start: Callable[[Fault], None],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr("inference.runs.stream.LINES_AT_ONCE", 100)
    corpus = write_corpus(tmp_path / "corpus.jsonl", 1000)
    faulty_start(failing(lambda call, _: call >= 100, RuntimeError("the device is gone")))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(corpus.read_bytes())))
    assert run.main(["--model", str(colours), "--runtime", "torch"]) == 1
    captured = capsysbinary.readouterr()
    rows = [json.loads(line)["id"] for line in captured.out.splitlines()]
    assert rows == [f"d{i}" for i in range(len(rows))]
    assert len(rows) in range(100, 1000, 100)
    assert captured.err.startswith(b"failed: the device or the model failed, not the documents: ")
    assert run.main(["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "rows")]) == 1
    assert not list(tmp_path.glob("rows*"))


def test_a_classifier_says_that_its_device_failed(colours: Path, faulty_start: Callable[[Fault], None]) -> None:
    faulty_start(failing(lambda call, _: call > 1, RuntimeError("the device is gone")))
    with pytest.raises(ScoringError, match="the device is gone"):
        Classifier(str(colours), runtime="torch").label(["red", "blue"])

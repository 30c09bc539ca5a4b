"""Tests the trial of how many batches to compute at once, on machines that hold back in known ways."""

import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from inference.scoring import batching, pace
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from models import hardware
from tests.tiny import tiny_model


class Machine:
    """Computes a batch in 8 ms of waiting, and no more than `cores` at a time."""

    def __init__(self, cores: int) -> None:
        self.most_at_once = 0
        self._cores = threading.Semaphore(cores)
        self._at_once = 0
        self._lock = threading.Lock()

    def compute(self) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        with self._cores:
            time.sleep(0.008)
        with self._lock:
            self._at_once -= 1


@pytest.mark.parametrize(("cores", "chosen"), [(4, 4), (8, 8)])
def test_more_threads_are_taken_only_if_they_compute_more(cores: int, chosen: int) -> None:
    machine = Machine(cores)
    assert pace.batches_at_once(machine.compute, 8) == chosen
    assert machine.most_at_once == 8


def test_a_batch_that_takes_long_is__in_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0)
    computed: list[int] = []
    pace.batches_at_once(lambda: computed.append(1), 4)
    assert len(computed) == 4 + 4 + pace.TURNS * (4 + 4)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_scorer_tries_only_where_threads_share_a_core_and_no_flag_decides(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen number is that of the pool, and the receipts name it."""
    tried: list[int] = []

    def half(compute: object, most: int) -> int:
        tried.append(most)
        return most // 2

    monkeypatch.setattr(pace, "batches_at_once", half)
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    monkeypatch.setattr(hardware, "threads_per_core", lambda: 1)
    options = ScoringOptions((str(tiny_model(tmp_path / "model")),), device="cpu", threads=threads)
    assert Scorer(options).runtime.threads == (threads or 4)
    assert not tried
    monkeypatch.setattr(hardware, "threads_per_core", lambda: 2)
    scorer = Scorer(options)
    assert tried == ([] if threads else [4])
    assert scorer.runtime.threads == scorer._pool._max_workers == 2
    assert ("4 are no faster" in scorer.runtime.reason) == (not threads)


def test_the_trial_computes_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "threads_per_core", lambda: 2)
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    scorer = Scorer(ScoringOptions((str(tiny_model(tmp_path / "model")),), device="cpu"))
    (model,) = scorer._models
    forward = mock.Mock(wraps=model._forward)
    monkeypatch.setattr(model, "_forward", forward)
    model.compute_usual()
    texts, tokens = forward.call_args.args[0].shape
    assert texts * tokens <= batching.FEWEST_TOKENS < (texts + 1) * tokens


def test_a_model_that_fails_in_the_trial_still_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails there fails again on a document, where it is judged."""
    monkeypatch.setattr(hardware, "threads_per_core", lambda: 2)
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    monkeypatch.setattr("inference.scoring.scorer._LoadedModel.compute_usual", lambda _: 1 / 0)
    assert Scorer(ScoringOptions((str(tiny_model(tmp_path / "model")),), device="cpu")).runtime.threads in (1, 2)

"""A plan tells what a training takes, and leaves nothing behind."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from models import trained_model
from training import fit, plan
from training.config import TrainingConfig


def test_a_plan_counts_what_the_training_then_does(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--set", "training.epochs=2", "--set", "training.batch_size=8")
    before = {path.name for path in tmp_path.iterdir()}
    assert start("multi_label", tmp_path / "m", *flags, "--plan") == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "m").exists()
    assert {path.name for path in tmp_path.iterdir()} - before <= {"rows.jsonl", "config.toml"}
    assert start("multi_label", tmp_path / "m", *flags) == 0
    manifest = trained_model.read_manifest(tmp_path / "m")
    steps = max(entry["step"] for entry in manifest.training["history"])
    found = re.search(r"for ([\d,]+) updates, by (\d+) of them", said)
    assert found
    assert int(found[1]) == steps
    assert int(found[2]) == min(plan.UPDATES + 1, steps)
    assert f"{manifest.training['documents']:,} documents" in said
    assert "for 2 evaluations" in said
    size = (tmp_path / "m" / "model.pth").stat().st_size
    assert f"{size >> 20:,} MiB for the model" in said
    assert manifest.training["tokens_per_second"] > 0


def test_several_models_are_planned_together(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("multi_label", tmp_path / "m", "--set", "training.epochs=1", "--seeds", "3", "--plan") == 0
    assert "for 3 models" in capsys.readouterr().out


def test_the_padding_of_updates_is_counted() -> None:
    training = TrainingConfig(batch_size=4, gradient_accumulation=2, epochs=1)
    lengths = np.random.default_rng(0).integers(1, 60, 50)
    found = fit.tokens_of_updates(of_lengths(lengths), training)
    assert len(found) == 7  # 12 batches of 4 and one of 2, two batches an update
    assert lengths.sum() <= found.sum() <= 50 * 60
    assert fit.tokens_of_updates(of_lengths(np.full(16, 9)), training).tolist() == [72, 72]
    assert fit.tokens_of_updates(of_lengths(np.full(16, 9)), training, devices=2).tolist() == [144]
    windows = Mock(lengths=np.full(8, 24), parts=np.full(8, 3), longest=np.full(8, 10))
    assert fit.tokens_of_updates(windows, training).tolist() == [240]


def of_lengths(lengths: np.ndarray) -> Any:
    return Mock(lengths=lengths, parts=np.ones_like(lengths), longest=lengths)


@pytest.mark.parametrize(("seconds", "said"), [(12.4, "12 s"), (150, "2 min"), (9_000, "2.5 h")])
def test_times_are_said_in_the_unit_that_suits(seconds: float, said: str) -> None:
    assert plan._minutes(seconds) == said

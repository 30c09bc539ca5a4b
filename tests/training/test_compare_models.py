"""A model is called better only if it is: simulated worlds in which the truth is known."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.decision import Floats
from training import compare, paired


def world(
    chance: np.random.Generator, documents: int, labels: int, skill: tuple[float, float]
) -> tuple[list[NDArray[np.bool_]], Floats]:
    """Return the labels that two models give, each right with a probability of its own, and the truth."""
    targets = (chance.random((documents, labels)) < 0.3).astype(np.float32)
    right = [chance.random((documents, labels)) < of_model for of_model in skill]
    return [np.where(of_model, targets > 0, targets == 0) for of_model in right], targets


def test_equal_models_are_told_apart_in_one_of_twenty_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "RESAMPLES", 400)
    chance = np.random.default_rng(0)
    p_values, covered = [], []
    for seed in range(300):
        predicted, targets = world(chance, 200, 2, (0.8, 0.8))
        macro, _ = paired.differences(predicted, targets, np.arange(200), seed)
        p_values.append(macro.p)
        covered.append(macro.low <= 0 <= macro.high)
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09  # two standard errors around 0.05
    assert 0.91 < np.mean(covered) < 0.98


def test_a_better_model_is_seen_and_its_interval_holds_the_truth() -> None:
    predicted, targets = world(np.random.default_rng(1), 3_000, 3, (0.75, 0.85))
    macro, labels = paired.differences(predicted, targets, np.arange(3_000))
    large, truth = world(np.random.default_rng(2), 300_000, 3, (0.75, 0.85))
    expected, _ = paired.differences(large, truth, np.arange(300_000) // 3_000)
    assert macro.p < 0.01
    assert macro.low < expected.difference < macro.high
    assert paired.discoveries([one.p for one in labels]) == [True] * 3


def test_documents_of_a_group_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten copies of each document make no model better."""
    monkeypatch.setattr(paired, "RESAMPLES", 400)
    chance = np.random.default_rng(3)
    wrongly, rightly = 0, 0
    for seed in range(150):
        predicted, targets = world(chance, 40, 1, (0.8, 0.8))
        copies = [np.repeat(of_all, 10, axis=0) for of_all in (*predicted, targets)]
        alone, _ = paired.differences(copies[:2], copies[2], np.arange(400), seed)
        grouped, _ = paired.differences(copies[:2], copies[2], np.repeat(np.arange(40), 10), seed)
        wrongly += alone.p <= 0.05
        rightly += grouped.p <= 0.05
    assert wrongly > 60  # had every copy counted
    assert rightly < 20


def test_unknown_labels_do_not_count() -> None:
    predicted, targets = world(np.random.default_rng(4), 400, 2, (0.8, 0.8))
    targets[:200, 0] = np.nan
    _, (first, _) = paired.differences(predicted, targets, np.arange(400))
    half, _ = world(np.random.default_rng(4), 400, 2, (0.8, 0.8))
    _, (alone, _) = paired.differences([of_model[200:] for of_model in half], targets[200:], np.arange(200))
    assert (first.first, first.second) == (alone.first, alone.second)


def test_false_discoveries_are_held_by_hand() -> None:
    assert paired.discoveries([0.01, 0.04, 0.03, 0.5]) == [True, False, False, False]  # limits .0125 .025 .0375 .05
    assert paired.discoveries([0.01, 0.02, 0.03, 0.5]) == [True, True, True, False]
    assert paired.discoveries([0.2, 0.3]) == [False, False]


@pytest.mark.parametrize("task", ["binary", "multi_label"])
def test_two_trained_models(
    task: str, start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--set", "data.seed=0"]
    assert start(task, tmp_path / "a", *flags, "--set", "training.epochs=1") == 0
    assert start(task, tmp_path / "b", *flags) == 0
    output = tmp_path / "out" / "found.json"
    capsys.readouterr()
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(output)]) == 0
    found = json.loads(output.read_bytes())
    metrics = [json.loads((tmp_path / name / "model.json").read_bytes())["metrics"]["test"] for name in "ab"]
    assert found["macro_f1"]["first"] == pytest.approx(metrics[0]["macro_f1"])
    assert found["macro_f1"]["second"] == pytest.approx(metrics[1]["macro_f1"])
    assert found["macro_f1"]["low"] <= found["macro_f1"]["difference"] <= found["macro_f1"]["high"]
    assert {row["label"] for row in found["labels"]} == set(metrics[0]["labels"])
    assert "B - A (95 %)" in capsys.readouterr().out
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "+0.000 to +0.000" in capsys.readouterr().out


def test_models_that_cannot_be_compared_are_named(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--set", "training.epochs=1")
    assert start("multi_label", tmp_path / "a", *short) == 0
    assert start("multi_label", tmp_path / "b", *short, "--set", "data.seed=5") == 0
    assert start("binary", tmp_path / "c", *short) == 0
    a, b, c = (str(tmp_path / name) for name in "abc")
    for one, other, problem in ((a, b, "measured on the same test documents, found others"), (a, c, "same task")):
        assert compare.main([one, other]) == 2
        assert problem in capsys.readouterr().err
    (table,) = (tmp_path / "a" / "evaluation").glob("holdout_green_scores.csv")
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    table.write_text("\n".join(",".join(row) for row in rows[:-1]))
    assert compare.main([a, a]) == 2
    assert "found some missing or changed" in capsys.readouterr().err

"""Thresholds have the best F1 and hold no noise, and calibrated scores match frequencies."""

from typing import Any

import numpy as np
import pytest

from models.decision import decide, probabilities
from models.labels import LabelSchema, Task
from training import calibrate, metrics

COLOURS = LabelSchema(task=Task.MULTI_LABEL, names=("red", "green"))
YES = LabelSchema(task=Task.BINARY, names=("no", "yes"))


def test_the_threshold_with_the_best_f1_lies_between_two_scores() -> None:
    probs = np.array([0.1, 0.2, 0.3, 0.35, 0.4] * 10)
    targets = (probs >= 0.3).astype(np.float32)
    both = np.stack([1 - probs, probs], axis=1)
    (threshold,) = calibrate.choose_thresholds(both, np.stack([1 - targets, targets], axis=1), YES)
    assert threshold == pytest.approx(0.25)
    assert calibrate.choose_thresholds(both, both, LabelSchema(task=Task.MULTI_CLASS, names=("a", "b"))) == ()


def many(rng: np.random.Generator, positives: tuple[int, int]) -> tuple[Any, Any]:
    targets = np.zeros((400, 2), np.float32)
    for label, count in enumerate(positives):
        targets[rng.permutation(400)[:count], label] = 1
    noise = rng.normal(size=targets.shape)
    return 1 / (1 + np.exp(-(3 * targets - 3 + noise))), targets


def test_a_rare_label_gets_the_threshold_that_suits_all_labels() -> None:
    probs, targets = many(np.random.default_rng(0), (120, 19))
    red, green = calibrate.choose_thresholds(probs, targets, COLOURS)
    one = LabelSchema(task=Task.MULTI_LABEL, names=("any",))
    (shared,) = calibrate.choose_thresholds(probs.reshape(-1, 1), targets.reshape(-1, 1), one)
    assert green == shared != red
    probs, targets = many(np.random.default_rng(0), (120, 20))
    assert calibrate.choose_thresholds(probs, targets, COLOURS)[1] != shared


def test_thresholds_are_at_least_as_good_as_one_half_and_always_the_same() -> None:
    probs, targets = many(np.random.default_rng(1), (100, 60))
    chosen = calibrate.choose_thresholds(probs, targets, COLOURS)
    assert chosen == calibrate.choose_thresholds(probs, targets, COLOURS)
    better, plain = (metrics.measure(probs, targets, COLOURS, t)["macro_f1"] for t in (chosen, (0.5, 0.5)))
    assert better > plain


@pytest.mark.parametrize("schema", [COLOURS, YES], ids=lambda schema: schema.task)
def test_labels_that_never_occur_get_one_half(schema: LabelSchema) -> None:
    none = np.zeros((5, 2), np.float32)
    assert calibrate.choose_thresholds(np.full((5, 2), 0.3), none, schema) == (0.5,) * schema.thresholds_needed


def test_equal_scores_everywhere_still_give_every_label_its_due() -> None:
    probs, targets = np.full((50, 2), 0.3), np.ones((50, 2), np.float32)
    thresholds = calibrate.choose_thresholds(probs, targets, COLOURS)
    assert decide(probs, COLOURS, thresholds).all()


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(task: Task, truth: float) -> None:
    chance = np.random.default_rng(0)
    honest = chance.normal(size=(20_000, 2)) * 1.5
    probs = probabilities(honest, task)
    if task is Task.MULTI_LABEL:
        targets = (chance.random(probs.shape) < probs).astype(np.float32)
    else:
        targets = np.eye(2, dtype=np.float32)[(chance.random(len(probs)) < probs[:, 1]).astype(int)]
    found = calibrate.fit_temperature(honest * truth, targets, task)
    assert found == pytest.approx(truth, rel=0.06)
    before, after = (
        calibrate.calibration_error(probabilities(honest * truth, task, temperature), targets, task)
        for temperature in (1.0, found)
    )
    assert after < 0.015
    assert after <= before + 0.005
    if truth != 1.0:
        assert before > 3 * after


def test_calibration_error_by_hand() -> None:
    probs = np.array([[0.9], [0.9], [0.1], [0.1]])
    targets = np.array([[1], [0], [0], [0]], np.float32)
    # Two of four scores say 0.9 and come true half the time, two say 0.1 and never do.
    assert calibrate.calibration_error(probs, targets, Task.MULTI_LABEL) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    top = np.array([[0.2, 0.8], [0.6, 0.4]])
    right = np.array([[0, 1], [0, 1]], np.float32)
    assert calibrate.calibration_error(top, right, Task.MULTI_CLASS) == pytest.approx(0.5 * 0.2 + 0.5 * 0.6)


def test_separable_scores_do_not_run_away() -> None:
    logits = np.array([[5.0, -5.0], [-5.0, 5.0]] * 30)
    targets = (logits > 0).astype(np.float32)
    decision = calibrate.fit(logits, targets, COLOURS)
    assert calibrate.TEMPERATURES[0] <= decision.temperature <= calibrate.TEMPERATURES[1]
    probs = probabilities(logits, Task.MULTI_LABEL, decision.temperature)
    assert np.array_equal(decide(probs, COLOURS, decision.thresholds), targets > 0)

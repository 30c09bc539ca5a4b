"""Thresholds have the best F1 and hold no noise, and calibrated scores match frequencies."""

from typing import Any

import numpy as np
import pytest

from models.decision import Decision, Floats, decide, probabilities
from models.labels import LabelSchema, Task
from training import calibrate, metrics, thresholds
from training.config import DecisionConfig

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


def test_the_rarer_a_label_the_nearer_its_threshold_is_to_the_one_of_all_labels() -> None:
    one = LabelSchema(task=Task.MULTI_LABEL, names=("any",))
    probs, targets = many(np.random.default_rng(0), (120, 10))
    probs = probs / (probs + (1 - probs) * np.e)  # so that 0.5 is worse than all thresholds below
    (pooled,) = calibrate.choose_thresholds(probs.reshape(-1, 1), targets.reshape(-1, 1), one)
    of_floor = {
        fewest: calibrate.choose_thresholds(probs, targets, COLOURS, DecisionConfig(fewest_positives=fewest))
        for fewest in (10, 20, 40, 1_000_000)
    }
    red, own = of_floor[10]
    distances = [abs(green - pooled) for _, green in of_floor.values()]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.01 > 1e-4 > distances[-1]
    assert of_floor[20][0] == of_floor[40][0] == red  # which has enough of its own


@pytest.mark.parametrize("objective", ["macro_f1", "best_f1", "precision >= 0.9", "recall >= 0.9"])
@pytest.mark.parametrize("schema", [COLOURS, YES], ids=lambda schema: schema.task)
def test_no_threshold_is_worse_than_one_half_on_validation(schema: LabelSchema, objective: str) -> None:
    parsed = thresholds.Objective.parse(objective)
    for seed in range(30):
        chance = np.random.default_rng(seed)
        probs, targets = many(chance, (int(chance.integers(1, 390)), int(chance.integers(1, 12))))
        if schema is YES:
            probs, targets = (np.stack([1 - of_all[:, 1], of_all[:, 1]], axis=1) for of_all in (probs, targets))
        chosen = calibrate.choose_thresholds(probs, targets, schema, DecisionConfig(objective=objective))
        for label, threshold in zip(range(2) if schema is COLOURS else (1,), chosen, strict=True):
            kind = thresholds.Objective("best_f1") if parsed.kind == "macro_f1" and schema is COLOURS else parsed
            passes = probs[:, label] >= np.array([[threshold], [0.5]])
            passed, positives = passes @ targets[:, label], float(targets[:, label].sum())
            found, half = kind.value(passed, passes.sum(axis=1), positives, len(targets))
            assert found >= half


def test_macro_f1_counts_both_labels_of_a_binary_task_and_best_f1_the_positive_one() -> None:
    for seed in range(5):
        chance = np.random.default_rng(seed)
        targets = (chance.random(2000) < 0.6).astype(np.float32)
        scores = 1 / (1 + np.exp(-(targets - 0.5 + chance.normal(size=2000))))
        both, truth = np.stack([1 - scores, scores], axis=1), np.stack([1 - targets, targets], axis=1)
        found = {
            objective: metrics.measure(
                both,
                truth,
                YES,
                Decision(thresholds=calibrate.choose_thresholds(both, truth, YES, DecisionConfig(objective=objective))),
            )
            for objective in ("macro_f1", "best_f1")
        }
        grid = [metrics.measure(both, truth, YES, Decision(thresholds=(t,))) for t in np.linspace(0.01, 0.99, 99)]
        assert found["macro_f1"]["macro_f1"] >= max(each["macro_f1"] for each in grid) - 1e-9
        assert found["best_f1"]["f1"] >= max(each["f1"] for each in grid) - 1e-9
        assert found["macro_f1"]["macro_f1"] > found["best_f1"]["macro_f1"]


@pytest.mark.parametrize("measure", ["precision", "recall"])
def test_a_bound_is_kept_at_the_least_cost_and_named_if_nothing_keeps_it(measure: str) -> None:
    probs, targets = many(np.random.default_rng(3), (150, 80))
    chosen = calibrate.choose_thresholds(probs, targets, COLOURS, DecisionConfig(objective=f"{measure} >= 0.8"))
    found = metrics.measure(probs, targets, COLOURS, Decision(thresholds=chosen))
    other = {"precision": "recall", "recall": "precision"}[measure]
    for place, name in enumerate(COLOURS.names):
        assert found["labels"][name][measure] >= 0.8
        for threshold in np.linspace(0.005, 0.995, 199):
            at = metrics.measure(probs, targets, COLOURS, Decision(thresholds=(threshold,) * 2))["labels"][name]
            assert at[measure] < 0.8 or at[other] <= found["labels"][name][other] + 1e-9, place
    noise = np.random.default_rng(0).random((400, 2))
    chosen = calibrate.choose_thresholds(noise, targets, COLOURS, DecisionConfig(objective="precision >= 0.999"))
    assert all(0 < threshold < 1 for threshold in chosen)


def test_a_fixed_threshold_is_not_chosen() -> None:
    probs, targets = many(np.random.default_rng(3), (150, 80))
    fixed = DecisionConfig(objective="fixed", threshold=0.3)
    assert calibrate.fit(probs, targets, COLOURS, fixed).thresholds == (0.3, 0.3)


@pytest.mark.parametrize("text", ["f1", "precision", "precision > 0.9", "precision >= 1.5", "recall >= x", ""])
def test_other_objectives_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected macro_f1, best_f1, fixed, precision >= 0.9"):
        thresholds.Objective.parse(text)


def test_thresholds_are_at_least_as_good_as_one_half_and_always_the_same() -> None:
    probs, targets = many(np.random.default_rng(1), (100, 60))
    chosen = calibrate.choose_thresholds(probs, targets, COLOURS)
    assert chosen == calibrate.choose_thresholds(probs, targets, COLOURS)
    better, plain = (
        metrics.measure(probs, targets, COLOURS, Decision(thresholds=of_labels))["macro_f1"]
        for of_labels in (chosen, (0.5, 0.5))
    )
    assert better > plain


@pytest.mark.parametrize("schema", [COLOURS, YES], ids=lambda schema: schema.task)
def test_labels_that_never_occur_get_one_half(schema: LabelSchema) -> None:
    none = np.zeros((5, 2), np.float32)
    assert calibrate.choose_thresholds(np.full((5, 2), 0.3), none, schema) == (0.5,) * schema.thresholds_needed


def test_equal_scores_everywhere_still_give_every_label_its_due() -> None:
    probs, targets = np.full((50, 2), 0.3), np.ones((50, 2), np.float32)
    chosen = calibrate.choose_thresholds(probs, targets, COLOURS)
    assert decide(probs, COLOURS, Decision(thresholds=chosen)).all()


SCHEMAS = [COLOURS, YES, LabelSchema(task=Task.MULTI_CLASS, names=("a", "b"))]


def honest_world(task: Task, chance: np.random.Generator, documents: int = 20_000) -> tuple[Floats, Floats]:
    """Return logits whose probabilities are the truth, and targets drawn from them."""
    logits = chance.normal(size=(documents, 2)) * 1.5
    probs = probabilities(logits, task)
    if task is Task.MULTI_LABEL:
        return logits, (chance.random(probs.shape) < probs).astype(np.float32)
    return logits, np.eye(2, dtype=np.float32)[(chance.random(len(probs)) < probs[:, 1]).astype(int)]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.task)
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_a_scale_and_a_shift_of_the_scores_are_undone(schema: LabelSchema, scale: float, shift: float) -> None:
    honest, targets = honest_world(schema.task, np.random.default_rng(0))
    logits = honest * scale + np.array([0.0, shift])
    decision = calibrate.fit(logits, targets, schema)
    first, second = np.broadcast_to(decision.temperature, 2)
    assert second == pytest.approx(scale, rel=0.08)
    assert decision.bias[1] - decision.bias[0] == pytest.approx(-shift / scale, abs=0.12)
    assert first == pytest.approx(scale, rel=0.08)
    before, after = (
        calibrate.calibration_error(probabilities(logits, schema.task, of), targets, schema.task)
        for of in (Decision(), decision)
    )
    assert after < 0.015
    assert after <= before + 0.005
    if shift:
        assert before > 3 * after


def test_scores_are_calibrated_after_an_undersampling() -> None:
    """Training on fewer negatives shifts each log odds by the logarithm of the share that was kept."""
    chance = np.random.default_rng(1)
    true_log_odds = chance.normal(-3, 1.5, 40_000)
    targets = (chance.random(40_000) < 1 / (1 + np.exp(-true_log_odds))).astype(np.float32)
    shifted = true_log_odds - np.log(0.05)  # a twentieth of the negatives was kept
    logits, truth = np.stack([np.zeros_like(shifted), shifted], axis=1), np.stack([1 - targets, targets], axis=1)
    fitted = calibrate.fit(logits[:20_000], truth[:20_000], YES)
    error = [
        calibrate.calibration_error_of_label(probabilities(logits[20_000:], Task.BINARY, of)[:, 1], targets[20_000:])
        for of in (Decision(thresholds=(0.5,)), fitted)
    ]
    assert error[0] is not None
    assert error[1] is not None
    assert error[0] > 0.15
    assert error[1] < 0.01
    assert fitted.bias[1] == pytest.approx(np.log(0.05), abs=0.15)


def test_a_rare_label_shares_the_calibration_of_all_labels() -> None:
    chance = np.random.default_rng(2)
    logits = chance.normal(size=(3_000, 2)) * 2
    targets = (chance.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(np.float32)
    targets[:, 1] = 0
    targets[:5, 1] = 1
    decision = calibrate.fit(logits, targets, COLOURS)
    alone = calibrate.fit(logits, targets, COLOURS, DecisionConfig(fewest_positives=1))
    assert isinstance(decision.temperature, tuple)
    assert isinstance(alone.temperature, tuple)
    assert decision.temperature[0] == alone.temperature[0]
    assert decision.bias[1] != alone.bias[1]
    assert abs(decision.bias[1]) < abs(alone.bias[1])


def test_a_calibration_at_its_bound_is_named() -> None:
    logits = np.random.default_rng(0).normal(size=(500, 2))
    targets = (np.random.default_rng(1).random((500, 2)) < 0.5).astype(np.float32)
    logits[:, 1] = targets[:, 0] * 0.01  # a score without any use
    decision = calibrate.fit(logits, targets, COLOURS)
    assert "green" in calibrate.at_bounds(COLOURS, decision) or "red" in calibrate.at_bounds(COLOURS, decision)
    honest, truth = honest_world(Task.MULTI_LABEL, np.random.default_rng(0))
    assert calibrate.at_bounds(COLOURS, calibrate.fit(honest, truth, COLOURS)) == []


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
    assert all(calibrate.TEMPERATURES[0] <= t <= calibrate.TEMPERATURES[1] for t in np.atleast_1d(decision.temperature))
    probs = probabilities(logits, Task.MULTI_LABEL, decision)
    assert np.array_equal(decide(probs, COLOURS, decision), targets > 0)

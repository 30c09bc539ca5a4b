"""The errors that the report shows are the surest ones, with the training texts that are like them."""

from pathlib import Path

import numpy as np
import pytest

from models.decision import Decision
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Manifest
from tests.pages import Page
from training import report, wrong_decisions
from training.examples import Examples
from training.explanation import Explanation
from training.measurement import Measurement, measure_split
from training.wrong_decisions import WrongDecision

TWO = LabelSchema(task=Task.MULTI_LABEL, names=("a", "b"))


def measured(probs: np.ndarray, targets: np.ndarray, texts: list[str], labels: LabelSchema = TWO) -> Measurement:
    examples = Examples.of(texts, targets.astype(np.float32), [str(i + 1) for i in range(len(texts))])
    decision = Decision(thresholds=(0.5,) * labels.thresholds_needed)
    return measure_split("test", examples, np.log(probs / (1 - probs)), labels, decision)


def test_the_surest_errors_come_first_one_a_document() -> None:
    probs = np.array([[0.99, 0.01], [0.3, 0.9], [0.6, 0.6], [0.02, 0.97], [0.4, 0.03]])
    targets = np.array([[1, 0], [1, 1], [0, 0], [1, 0], [0, 1]])
    texts = ["right", "missed a", "both wrong", "x" * 400, "missed b"]
    found = wrong_decisions.find(measured(probs, targets, texts))
    assert {label: [error.id for error in errors] for label, errors in found.items()} == {
        "a": ["4", "2", "3"],
        "b": ["5"],
    }
    first = found["a"][0]
    assert first == WrongDecision("4", "x" * 300 + "…", ["a"], ["b"], "a", first.score)
    assert first.score == pytest.approx(0.02)


def test_the_wrong_class_is_named_with_its_score() -> None:
    labels = LabelSchema(task=Task.MULTI_CLASS, names=("a", "b", "c"))
    probs = np.array([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1]])
    examples = Examples.of(["one", "two"], np.eye(3, dtype=np.float32)[[0, 1]], ["1", "2"])
    found = wrong_decisions.find(measure_split("test", examples, np.log(probs), labels, Decision()))
    ((label, (error,)),) = found.items()
    assert label == error.label == "c"
    assert (error.id, error.truth, error.predicted) == ("1", ["a"], ["c"])
    assert error.score == pytest.approx(0.7)


def test_no_label_takes_all_the_room() -> None:
    """The surest 1,000 errors are all of the first label."""
    labels = LabelSchema(task=Task.MULTI_LABEL, names=tuple(f"label {i}" for i in range(10)))
    chance = np.random.default_rng(0)
    probs = chance.uniform(0.51, 0.6, (2_000, 10))
    probs[:1_000, 0] = 0.99
    found = wrong_decisions.find(measured(probs, np.zeros((2_000, 10)), [str(i) for i in range(2_000)], labels))
    assert {len(errors) for errors in found.values()} == {6}
    assert len(found) == 10
    ids = [error.id for errors in found.values() for error in errors]
    assert len(ids) == len(set(ids))


def test_beside_an_error_stand_the_training_texts_that_are_like_it(tmp_path: Path) -> None:
    probs, targets = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0, 1], [0, 1]])
    start = "a long beginning that all have, " * 12
    texts = [start + "the rocket engine failed", "a right one"]
    learnt = ["bread and butter", start + "a rocket engine <b>that</b> failed", "the rocket", "sunshine"]
    train = Examples.of(learnt, np.array([[0, 1], [1, 0], [1, 1], [0, 0]], np.float32), list("wxyz"))
    measurement = measured(probs, targets, texts)
    (error,) = wrong_decisions.find(measurement, train)["a"]
    first, *others = error.closest
    assert first.labels == ["a"]
    assert first.text.endswith("…")
    assert 0.6 < first.similarity < 1
    assert all(other.similarity < first.similarity for other in others)
    assert wrong_decisions.find(measurement)["a"][0].closest == ()

    manifest = Manifest(labels=TWO, text=TextRecipe(), decision=Decision(thresholds=(0.5, 0.5)))
    report.write(tmp_path, Explanation(manifest, [measurement], train=train))
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "trained on: a ·" in content
    assert "<b>that" not in content
    assert Page(content)

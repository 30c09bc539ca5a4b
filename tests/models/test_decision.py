"""Test probabilities and labels of the three tasks against values worked out by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from models.decision import Decision, decide, probabilities
from models.labels import LabelSchema, Task


def test_multi_label_probabilities_are_independent_sigmoids() -> None:
    probs = probabilities(np.array([[0.0, np.log(3.0)]], dtype=np.float32), Task.MULTI_LABEL)
    assert probs == pytest.approx(np.array([[0.5, 0.75]]), abs=1e-7)


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_CLASS])
def test_other_probabilities_are_a_softmax(task: Task) -> None:
    probs = probabilities(np.array([[0.0, np.log(3.0)], [7.0, 7.0]], dtype=np.float32), task)
    assert probs == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), abs=1e-7)


@pytest.mark.parametrize("task", list(Task))
def test_a_high_temperature_flattens_and_huge_logits_stay_finite(task: Task) -> None:
    logits = np.array([[-2000.0, 2000.0], [1.0, -1.0]], dtype=np.float32)
    sharp, flat = probabilities(logits, task), probabilities(logits, task, Decision(temperature=10.0))
    assert np.isfinite(sharp).all()
    assert sharp[0] == pytest.approx([0.0, 1.0])
    assert np.abs(flat[1] - 0.5).max() < np.abs(sharp[1] - 0.5).max()
    assert (sharp.argmax(axis=1) == flat.argmax(axis=1)).all()


def test_binary_gives_one_label_by_the_positive_threshold_inclusive() -> None:
    labels = LabelSchema(task=Task.BINARY, names=("no", "yes"))
    probs = np.array([[0.7, 0.3], [0.71, 0.29], [0.1, 0.9]])
    assert decide(probs, labels, Decision(thresholds=(0.3,))).tolist() == [[False, True], [True, False], [False, True]]


def test_multi_class_gives_exactly_the_most_probable() -> None:
    labels = LabelSchema(task=Task.MULTI_CLASS, names=("a", "b", "c"))
    probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert decide(probs, labels, Decision(thresholds=())).tolist() == [[False, True, False], [True, False, False]]


def test_multi_label_gives_any_number_each_by_its_own_threshold() -> None:
    labels = LabelSchema(task=Task.MULTI_LABEL, names=("a", "b", "c"))
    probs = np.array([[0.2, 0.5, 0.9], [0.1, 0.4, 0.8]])
    decision = Decision(thresholds=(0.2, 0.5, 0.9))
    assert decide(probs, labels, decision).tolist() == [
        [True, True, True],
        [False, False, False],
    ]


def test_a_temperature_is_positive() -> None:
    with pytest.raises(ValidationError):
        Decision(temperature=0.0)

"""Metrics equal values that were worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from models.decision import Decision, decide
from models.labels import LabelSchema, Task
from training import metrics

COLOURS = LabelSchema(task=Task.MULTI_LABEL, names=("red", "green"))
YES = LabelSchema(task=Task.BINARY, names=("no", "yes"))
CLASSES = LabelSchema(task=Task.MULTI_CLASS, names=("a", "b", "c"))


def test_multi_label_metrics() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.9], [0.2, 0.7], [0.1, 0.1]])
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    found = metrics.measure(probs, targets, COLOURS, Decision(thresholds=(0.5, 0.5)))
    assert found["labels"]["red"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "predicted": 2}
    assert found["labels"]["green"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1,
        "predicted": 2,
    }
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 3))  # 2 of 4 given labels are right, and 3 are due
    assert found["accuracy"] == 0.5
    assert found["documents"] == 4


def test_binary_and_multi_class_metrics() -> None:
    probs = np.array([[0.4, 0.6], [0.4, 0.6], [0.7, 0.3], [0.9, 0.1]])
    targets = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    found = metrics.measure(probs, targets, YES, Decision(thresholds=(0.5,)))
    assert found["accuracy"] == found["f1"] == found["macro_f1"] == 0.5
    found = metrics.measure(probs, targets, YES, Decision(thresholds=(0.2,)))
    assert found["labels"]["yes"]["recall"] == 1.0
    assert found["f1"] == pytest.approx(0.8)
    found = metrics.measure(np.eye(3), np.eye(3, dtype=np.float32)[[0, 1, 1]], CLASSES, Decision())
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["labels"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "predicted": 1}


def test_averages_over_labels_documents_and_supports() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.9], [0.2, 0.7], [0.1, 0.1]])
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    found = metrics.measure(probs, targets, COLOURS, Decision(thresholds=(0.5, 0.5)))
    assert found["macro_precision"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["macro_recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["weighted_f1"] == pytest.approx((2 * 1 / 2 + 1 * 2 / 3) / 3)
    assert found["samples_f1"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert "samples_f1" not in metrics.measure(np.eye(3), np.eye(3, dtype=np.float32), CLASSES, Decision())


def test_ranking_by_hand_and_none_where_there_is_nothing_to_rank() -> None:
    probs = np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5], [0.1, 0.5]])
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    found = metrics.ranking(probs, targets, COLOURS)
    assert found["labels"]["red"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["labels"]["red"]["roc_auc"] == pytest.approx(3 / 4)
    assert found["labels"]["green"] == {"average_precision": None, "roc_auc": None}
    assert found["roc_auc"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("places", [1, 2, 9])  # with few places, many scores are equal
def test_arrays_give_what_scikit_learn_gives_label_by_label(places: int) -> None:
    chance = np.random.default_rng(places)
    targets = (chance.random((300, 70)) < chance.beta(1, 5, 70)).astype(np.float32)
    targets[0], targets[1] = 1, 0  # so that each label but the first two can be ranked
    targets[:, :2] = (0, 1)
    probs = np.clip(targets * 0.2 + chance.random(targets.shape), 0, 1).round(places)
    many = LabelSchema(task=Task.MULTI_LABEL, names=tuple(f"label {i}" for i in range(70)))
    found = metrics.measure(probs, targets, many, Decision(thresholds=(0.7,) * 70))
    for average in ("macro", "micro", "weighted", "samples"):
        values = precision_recall_fscore_support(targets, probs >= 0.7, average=average, zero_division=0)[:3]
        assert [found[f"{average}_{name}"] for name in metrics.MEASURES] == pytest.approx(values)
    ranked = metrics.ranking(probs, targets, many)
    for i, name in list(enumerate(many.names))[2:]:
        values = average_precision_score(targets[:, i], probs[:, i]), roc_auc_score(targets[:, i], probs[:, i])
        assert [*ranked["labels"][name].values()] == pytest.approx(values)
    assert ranked["labels"]["label 0"] == ranked["labels"]["label 1"] == dict.fromkeys(metrics.RANKINGS)


def test_intervals_hold_the_measure_and_shrink_with_more_documents() -> None:
    chance = np.random.default_rng(0)
    widths = []
    for documents in (100, 10_000):
        targets = (chance.random((documents, 2)) < 0.4).astype(np.float32)
        probs = np.clip(targets * 0.3 + chance.random((documents, 2)) * 0.7, 0, 1)
        predicted = decide(probs, COLOURS, Decision(thresholds=(0.5, 0.5)))
        measured = metrics.measure(probs, targets, COLOURS, Decision(thresholds=(0.5, 0.5)))
        found = metrics.intervals(predicted, targets, COLOURS)
        for key in ("macro_f1", "micro_f1"):
            assert found[key][0] < measured[key] < found[key][1]
        for key in metrics.MEASURES:
            low, high = found["labels"]["red"][key]
            assert low < measured["labels"]["red"][key] < high
        widths.append(found["macro_f1"][1] - found["macro_f1"][0])
    # The standard error falls with the root of the number of documents.
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.3)
    assert found == metrics.intervals(predicted, targets, COLOURS)


def test_an_interval_is_that_of_a_binomial_share() -> None:
    targets = np.ones((400, 1), np.float32)
    predicted = np.arange(400)[:, None] < 300  # recall 0.75
    one = LabelSchema(task=Task.MULTI_LABEL, names=("any",))
    low, high = metrics.intervals(predicted, targets, one)["labels"]["any"]["recall"]
    error = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert (low, high) == (pytest.approx(0.75 - error, abs=0.006), pytest.approx(0.75 + error, abs=0.006))


def test_the_confusion_matrix_has_the_truth_in_rows() -> None:
    targets = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    predicted = np.eye(3, dtype=bool)[[0, 1, 1, 1]]
    assert metrics.confusion(predicted, targets, CLASSES) == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert metrics.confusion(predicted[:, :2], targets[:, :2], COLOURS) is None

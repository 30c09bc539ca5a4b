"""Metrics against values worked out by hand, thresholds that are chosen with care, scores in the order of the texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import trained_model
from models.decision import decide
from models.labels import LabelSchema, Task
from tests.tiny import tiny_model
from training import evaluate

COLOURS = LabelSchema(task=Task.MULTI_LABEL, names=("red", "green"))
YES = LabelSchema(task=Task.BINARY, names=("no", "yes"))


def test_multi_label_metrics() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.9], [0.2, 0.7], [0.1, 0.1]])
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    found = evaluate.measure(probs, targets, COLOURS, (0.5, 0.5))
    assert found["labels"]["red"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert found["labels"]["green"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 3))  # 2 right of 4 given and 3 due
    assert found["accuracy"] == 0.5
    assert found["documents"] == 4


def test_binary_and_multi_class_metrics() -> None:
    probs = np.array([[0.4, 0.6], [0.4, 0.6], [0.7, 0.3], [0.9, 0.1]])
    targets = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    found = evaluate.measure(probs, targets, YES, (0.5,))
    assert found["accuracy"] == found["f1"] == found["macro_f1"] == 0.5
    found = evaluate.measure(probs, targets, YES, (0.2,))
    assert found["labels"]["yes"]["recall"] == 1.0
    assert found["f1"] == pytest.approx(0.8)
    classes = LabelSchema(task=Task.MULTI_CLASS, names=("a", "b", "c"))
    found = evaluate.measure(np.eye(3), np.eye(3, dtype=np.float32)[[0, 1, 1]], classes, ())
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["labels"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_the_threshold_with_the_best_f1_lies_between_two_scores() -> None:
    probs = np.array([0.1, 0.2, 0.3, 0.35, 0.4] * 10)
    targets = (probs >= 0.3).astype(np.float32)
    both = np.stack([1 - probs, probs], axis=1)
    (threshold,) = evaluate.choose_thresholds(both, np.stack([1 - targets, targets], axis=1), YES)
    assert threshold == pytest.approx(0.25)
    assert evaluate.choose_thresholds(both, both, LabelSchema(task=Task.MULTI_CLASS, names=("a", "b"))) == ()


def many(rng: np.random.Generator, positives: tuple[int, int]) -> tuple[Any, Any]:
    targets = np.zeros((400, 2), np.float32)
    for label, count in enumerate(positives):
        targets[rng.permutation(400)[:count], label] = 1
    noise = rng.normal(size=targets.shape)
    return 1 / (1 + np.exp(-(3 * targets - 3 + noise))), targets


def test_a_rare_label_gets_the_threshold_that_suits_all_labels() -> None:
    probs, targets = many(np.random.default_rng(0), (120, 19))
    red, green = evaluate.choose_thresholds(probs, targets, COLOURS)
    one = LabelSchema(task=Task.MULTI_LABEL, names=("any",))
    (shared,) = evaluate.choose_thresholds(probs.reshape(-1, 1), targets.reshape(-1, 1), one)
    assert green == shared != red
    probs, targets = many(np.random.default_rng(0), (120, 20))
    assert evaluate.choose_thresholds(probs, targets, COLOURS)[1] != shared


def test_thresholds_are_at_least_as_good_as_one_half_and_always_the_same() -> None:
    probs, targets = many(np.random.default_rng(1), (100, 60))
    chosen = evaluate.choose_thresholds(probs, targets, COLOURS)
    assert chosen == evaluate.choose_thresholds(probs, targets, COLOURS)
    better, plain = (evaluate.measure(probs, targets, COLOURS, t)["macro_f1"] for t in (chosen, (0.5, 0.5)))
    assert better > plain


@pytest.mark.parametrize("schema", [COLOURS, YES], ids=lambda schema: schema.task)
def test_labels_that_never_occur_get_one_half(schema: LabelSchema) -> None:
    none = np.zeros((5, 2), np.float32)
    assert evaluate.choose_thresholds(np.full((5, 2), 0.3), none, schema) == (0.5,) * schema.thresholds_needed


def test_equal_scores_everywhere_still_give_every_label_its_due() -> None:
    probs, targets = np.full((50, 2), 0.3), np.ones((50, 2), np.float32)
    thresholds = evaluate.choose_thresholds(probs, targets, COLOURS)
    assert decide(probs, COLOURS, thresholds).all()


def test_scores_are_in_the_order_of_the_texts_and_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    model = trained_model.load(tiny_model(tmp_path / "m"))
    texts = ["red " * (1 + 7 * number % 40) + "rose" for number in range(100)]
    found = evaluate.score(model.network, model.tokenizer, texts, 24)
    assert found.shape == (100, 3)
    assert found.dtype == np.float32
    for number in (0, 17, 99):
        alone = model.tokenizer(texts[number], truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            expected = model.network(alone["input_ids"], alone["attention_mask"])[0].numpy()
        assert found[number] == pytest.approx(expected, abs=1e-5)

"""Losses and label weights equal values that were worked out by hand."""

import math

import pytest
import torch

from models.labels import Task
from training import objective

TARGETS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_multi_label_is_the_mean_over_documents_and_labels() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    found = objective.loss(logits, torch.tensor([[1.0, 0.0]]), Task.MULTI_LABEL)
    assert found.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_a_weight_multiplies_the_positives_of_its_label() -> None:
    logits, weights = torch.zeros(1, 2), torch.tensor([5.0, 7.0])
    found = objective.loss(logits, torch.tensor([[1.0, 0.0]]), Task.MULTI_LABEL, weights)
    assert found.item() == pytest.approx((5 * math.log(2) + math.log(2)) / 2)


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_CLASS])
def test_other_tasks_are_cross_entropy_over_the_labels(task: Task) -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    targets = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert objective.loss(logits, targets, task).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    weighted = objective.loss(logits, targets, task, torch.tensor([1.0, 3.0])).item()
    assert weighted == pytest.approx((3 * math.log(4 / 3) + math.log(2)) / 4)


def test_rare_labels_weigh_more() -> None:
    assert objective.label_weights(TARGETS, Task.MULTI_LABEL).tolist() == [1.0, 3.0]
    assert objective.label_weights(TARGETS, Task.BINARY).tolist() == pytest.approx([0.5, 1.5])
    never = torch.zeros(1000, 1)
    assert objective.label_weights(never, Task.MULTI_LABEL).tolist() == [100.0]

"""The loss of each task."""

import torch
from torch import Tensor
from torch.nn import functional

from models.labels import Task


def loss(
    logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean loss of a batch: logits and 0/1 targets (documents, labels), weights (labels) or none.

    multi_label: binary cross-entropy for each label, weights on its positives; otherwise cross-entropy over labels.
    Label smoothing moves targets by its half (multi_label) or its share of all labels towards even odds.
    """
    if task is Task.MULTI_LABEL:
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)
    return functional.cross_entropy(logits, targets.argmax(dim=1), weight=weights, label_smoothing=label_smoothing)


def label_weights(targets: Tensor, task: Task) -> Tensor:
    """Weights (labels) that make rare labels count.

    Negatives over positives for multi_label, capped at 100; inverse frequency with mean 1 otherwise.
    """
    positives = targets.sum(dim=0).clamp(min=1)
    if task is Task.MULTI_LABEL:
        return ((len(targets) - positives) / positives).clamp(min=1, max=100)
    inverse = len(targets) / positives
    return inverse / inverse.mean()


def as_tensor(targets: object) -> Tensor:
    """Targets as float32."""
    return torch.as_tensor(targets, dtype=torch.float32)

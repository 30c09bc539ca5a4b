"""The loss of each task, and the weights of labels in it."""

import torch
from torch import Tensor
from torch.nn import functional

from models.labels import Task


def loss(
    logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean loss of a batch, for logits and targets (documents, labels) and optional weights (labels).

    A target is 0 or 1, or the probability that a teacher gives. For multi_label the loss is the binary cross-entropy of
    each label, with the weights on its positives. A label whose target is NaN has no part in it. Otherwise it is the
    cross-entropy over the labels, and a document counts by the weight of its labels. Label smoothing moves the targets
    towards even odds: by half of it for multi_label, else by an equal part for each label.
    """
    if task is Task.MULTI_LABEL:
        known = ~targets.isnan()
        smooth = targets.nan_to_num() * (1 - label_smoothing) + label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)
    losses = functional.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=label_smoothing)
    return losses.mean() if weights is None else losses.sum() / (targets * weights).sum()


def label_weights(targets: Tensor, task: Task) -> Tensor:
    """Return weights (labels) that make rare labels count more, from 0/1 targets, or NaN for unknown.

    For multi_label they are negatives over positives, between 1 and 100. Otherwise they are inverse frequencies with
    mean 1.
    """
    positives = targets.nansum(dim=0).clamp(min=1)
    if task is Task.MULTI_LABEL:
        return (((~targets.isnan()).sum(dim=0) - positives) / positives).clamp(min=1, max=100)
    inverse = len(targets) / positives
    return inverse / inverse.mean()


def as_tensor(targets: object) -> Tensor:
    """Return targets as a float32 tensor."""
    return torch.as_tensor(targets, dtype=torch.float32)

"""From logits to probabilities to labels, for the three tasks. Arrays are numpy, float32 or wider."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.labels import LabelSchema, Task

Floats = NDArray[np.floating[Any]]


class Decision(BaseModel):
    """What turns a network's logits into labels: fitted on validation data and carried by the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, gt=0)
    thresholds: tuple[float, ...] = ()  # binary: the positive label's; multi_label: one a label; multi_class: none


def probabilities(logits: Floats, task: Task, temperature: float = 1.0) -> Floats:
    """Logits (documents, labels) to probabilities of the same shape: sigmoid for multi_label, softmax otherwise."""
    scaled = logits.astype(np.float64) / temperature
    if task is Task.MULTI_LABEL:
        return np.exp(-np.logaddexp(0.0, -scaled))
    shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(probs: Floats, labels: LabelSchema, thresholds: tuple[float, ...]) -> NDArray[np.bool_]:
    """Which labels each document gets: probabilities (documents, labels) to booleans of the same shape.

    binary: exactly one of the two, the positive one from its threshold up; multi_class: the most probable one;
    multi_label: every label from its own threshold up.
    """
    if labels.task is Task.BINARY:
        positive = probs[:, 1] >= thresholds[0]
        return np.stack([~positive, positive], axis=1)
    if labels.task is Task.MULTI_CLASS:
        chosen: NDArray[np.bool_] = np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
        return chosen
    return probs >= np.asarray(thresholds)


def thresholds_of(labels: LabelSchema, decision: Decision) -> dict[str, float]:
    """The threshold of each label that has one: all for multi_label, the positive one for binary."""
    names = {Task.BINARY: labels.names[1:], Task.MULTI_CLASS: (), Task.MULTI_LABEL: labels.names}[labels.task]
    return dict(zip(names, decision.thresholds, strict=True))

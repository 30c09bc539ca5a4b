"""Turns logits into probabilities and labels, for the three tasks. Arrays are numpy, float32 or wider."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.labels import LabelSchema, Task

Floats = NDArray[np.floating[Any]]


class Decision(BaseModel):
    """The parameters that turn a network's logits into labels; they are fitted on validation data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, gt=0)  # divisor of the logits
    # thresholds of probabilities: the positive label's for binary, one per label for multi_label, none for multi_class
    thresholds: tuple[float, ...] = ()


def probabilities(logits: Floats, task: Task, temperature: float = 1.0) -> Floats:
    """Return the probabilities of logits, both (documents, labels).

    Divide the logits by the temperature; use a sigmoid for multi_label and a softmax otherwise.
    """
    scaled = logits.astype(np.float64) / temperature
    if task is Task.MULTI_LABEL:
        return np.exp(-np.logaddexp(0.0, -scaled))
    shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(probs: Floats, labels: LabelSchema, thresholds: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return whether each label applies, as booleans, from probabilities, both (documents, labels).

    A binary document gets exactly one label: the positive one if its probability is at least its threshold. A
    multi_class document gets the most probable label. A multi_label document gets every label whose probability is at
    least its own threshold.
    """
    if labels.task is Task.BINARY:
        positive = probs[:, 1] >= thresholds[0]
        return np.stack([~positive, positive], axis=1)
    if labels.task is Task.MULTI_CLASS:
        chosen: NDArray[np.bool_] = np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
        return chosen
    return probs >= np.asarray(thresholds)


def thresholds_of(labels: LabelSchema, decision: Decision) -> dict[str, float]:
    """Return thresholds by label name: of all labels for multi_label, of the positive one for binary, else none."""
    names = {Task.BINARY: labels.names[1:], Task.MULTI_CLASS: (), Task.MULTI_LABEL: labels.names}[labels.task]
    return dict(zip(names, decision.thresholds, strict=True))

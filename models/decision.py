"""Turns logits into probabilities and labels, for the three tasks. Arrays are numpy, float32 or wider."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.labels import LabelSchema, Task

Floats = NDArray[np.floating[Any]]
Temperature = Annotated[float, Field(gt=0)]


class Decision(BaseModel):
    """The parameters that turn a network's logits into labels; they are fitted on validation data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Temperature | tuple[Temperature, ...] = 1.0  # divisor of the logits, one for all labels or for each
    bias: tuple[float, ...] = ()  # number that is added to each label's divided logit; none is added if there is none
    # thresholds of probabilities: the positive label's for binary, one per label for multi_label, none for multi_class
    thresholds: tuple[float, ...] = ()
    abstain_below: float = Field(0.0, ge=0, lt=1)  # score below which a multi_class document gets no label


UNCALIBRATED = Decision()


def probabilities(logits: Floats, task: Task, decision: Decision = UNCALIBRATED) -> Floats:
    """Return the probabilities of logits, both (documents, labels).

    Divide the logits by the temperature and add the bias; use a sigmoid for multi_label and a softmax otherwise.
    """
    scaled = logits.astype(np.float64) / decision.temperature
    if decision.bias:
        scaled += decision.bias
    if task is Task.MULTI_LABEL:
        return np.exp(-np.logaddexp(0.0, -scaled))
    shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(probs: Floats, labels: LabelSchema, decision: Decision) -> NDArray[np.bool_]:
    """Return whether each label applies, as booleans, from probabilities, both (documents, labels).

    A binary document gets exactly one label: the positive one if its probability is at least its threshold. A
    multi_class document gets the most probable label, or none if its probability is below `abstain_below`. A
    multi_label document gets every label whose probability is at least its own threshold.
    """
    if labels.task is Task.BINARY:
        positive = probs[:, 1] >= decision.thresholds[0]
        return np.stack([~positive, positive], axis=1)
    if labels.task is Task.MULTI_CLASS:
        best = np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
        chosen: NDArray[np.bool_] = best & (probs >= decision.abstain_below)
        return chosen
    return probs >= np.asarray(decision.thresholds)


def thresholds_of(labels: LabelSchema, decision: Decision) -> dict[str, float]:
    """Return thresholds by label name: of all labels for multi_label, of the positive one for binary, else none."""
    names = {Task.BINARY: labels.names[1:], Task.MULTI_CLASS: (), Task.MULTI_LABEL: labels.names}[labels.task]
    return dict(zip(names, decision.thresholds, strict=True))


def calibration_of(labels: LabelSchema, decision: Decision) -> dict[str, tuple[float, float]]:
    """Return temperature and bias by label name."""
    temperatures, biases = (
        np.broadcast_to(values, len(labels.names)).tolist() for values in (decision.temperature, decision.bias or 0.0)
    )
    return dict(zip(labels.names, zip(temperatures, biases, strict=True), strict=True))

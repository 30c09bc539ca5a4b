"""Fits a decision to validation data: temperature and bias of each label, and its threshold.

One temperature cannot undo what class weights, undersampling and weak negatives do to scores, which is to shift them.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from models.decision import Decision, Floats, calibration_of, probabilities
from models.labels import LabelSchema, Task
from training import thresholds
from training.config import DecisionConfig
from training.thresholds import Objective

TEMPERATURES = (0.05, 20.0)  # beyond these limits the scores are all alike, or all 0 and 1
BIAS = 10.0  # largest bias; it moves a score of 0.5 to 0.99995
MOST_POOLED = 1_000_000  # scores that the common calibration of all labels is fitted to
PLACES = 4  # decimal places of temperatures and biases


def fit(logits: Floats, targets: Floats, labels: LabelSchema, config: DecisionConfig | None = None) -> Decision:
    """Return the decision that suits logits and targets, both (documents, labels).

    Here and below, targets are 0 or 1, or NaN for an unknown label, which does not count.
    """
    config = config or DecisionConfig()
    if labels.task is Task.MULTI_LABEL:
        decision = _of_each_label(logits, targets, config.fewest_positives)
    elif labels.task is Task.BINARY:
        temperature, bias = _scaled(logits[:, 1] - logits[:, 0], targets[:, 1])
        decision = Decision(temperature=temperature, bias=(0.0, bias))
    else:
        decision = _of_classes(logits, targets, config.fewest_positives)
    chosen = choose_thresholds(probabilities(logits, labels.task, decision), targets, labels, config)
    abstain_below = config.abstain_below if labels.task is Task.MULTI_CLASS else 0.0
    return decision.model_copy(update={"thresholds": chosen, "abstain_below": abstain_below})


def choose_thresholds(
    probs: Floats, targets: Floats, labels: LabelSchema, config: DecisionConfig | None = None
) -> tuple[float, ...]:
    """Return the thresholds that the configuration asks for, from probabilities and targets (documents, labels)."""
    config = config or DecisionConfig()
    if config.objective == "fixed":
        return (config.threshold,) * labels.thresholds_needed
    return thresholds.choose(probs, targets, labels, Objective.parse(config.objective), config.fewest_positives)


def at_bounds(labels: LabelSchema, decision: Decision) -> list[str]:
    """Return the labels whose temperature or bias is as far as it may go."""
    values = calibration_of(labels, decision).items()
    return [name for name, (temperature, bias) in values if temperature in TEMPERATURES or abs(bias) >= BIAS]


def _of_each_label(logits: Floats, targets: Floats, fewest: int) -> Decision:
    """Return temperature and bias of each label. Labels with few positives or negatives share those of all labels."""
    chance = np.random.default_rng(0)
    places = np.arange(logits.size)
    some = places if logits.size <= MOST_POOLED else chance.choice(places, MOST_POOLED, replace=False)
    pooled = _scaled(logits.ravel()[some], targets.ravel()[some])
    positives, known = (targets > 0).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    enough = np.minimum(positives, known - positives) >= fewest
    found = [_scaled(logits[:, i], targets[:, i]) if enough[i] else pooled for i in range(logits.shape[1])]
    return Decision(temperature=tuple(t for t, _ in found), bias=tuple(bias for _, bias in found))


def _scaled(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Return the temperature and the bias with the lowest log loss for the logits (documents,) of one label.

    The targets are moved towards the middle by one document each, as in Platt, Probabilistic Outputs for Support Vector
    Machines, 1999. So scores that tell all documents apart do not run away.
    """
    known = ~np.isnan(targets)
    logits, truth = logits[known].astype(np.float64), targets[known] > 0
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return 1.0, 0.0
    soft = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def log_loss(parameters: Floats) -> tuple[float, Floats]:
        divided = logits / np.exp(parameters[0])
        error = expit(divided + parameters[1]) - soft
        loss = np.logaddexp(0.0, divided + parameters[1]) - soft * (divided + parameters[1])
        return float(loss.mean()), np.array([-(error * divided).mean(), error.mean()])

    temperature, bias = _minimum(log_loss, [(-BIAS, BIAS)])
    return temperature, bias


def _of_classes(logits: Floats, targets: Floats, fewest: int) -> Decision:
    """Return one temperature, and the bias of each class with enough documents, with the lowest log loss.

    A temperature of each class would change which of two classes is more probable by the scale of their logits.
    """
    documents = (targets > 0).sum(axis=0)
    bounds = [(-BIAS, BIAS) if count >= fewest else (0.0, 0.0) for count in documents]
    logits = logits.astype(np.float64)

    def log_loss(parameters: Floats) -> tuple[float, Floats]:
        divided = logits / np.exp(parameters[0])
        logs = log_softmax(divided + parameters[1:], axis=1)
        error = np.exp(logs) - targets
        gradient = np.concatenate([[-(error * divided).sum(axis=1).mean()], error.mean(axis=0)])
        return float(-(targets * logs).sum(axis=1).mean()), gradient

    temperature, *bias = _minimum(log_loss, bounds)
    return Decision(temperature=temperature, bias=tuple(bias))


def _minimum(log_loss: object, bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Return the temperature and the biases, within their bounds, that give the lowest loss."""
    lowest, highest = np.log(TEMPERATURES)
    found = minimize(
        log_loss, np.zeros(1 + len(bounds)), jac=True, method="L-BFGS-B", bounds=[(lowest, highest), *bounds]
    )
    return [round(float(value), PLACES) for value in (np.exp(found.x[0]), *found.x[1:])]


def calibration_error(probs: Floats, targets: Floats, task: Task, bins: int = 15) -> float:
    """Return the expected calibration error, from 0 to 1: the mean distance of scores from their frequencies.

    It is taken over equal-width bins of the scores that `outcomes` selects (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017).
    """
    scores, came_true = outcomes(probs, targets, task)
    return _error(scores, came_true, bins)


def calibration_error_of_label(probs: Floats, targets: Floats, bins: int = 15) -> float | None:
    """Return the expected calibration error of one label's scores, both (documents,). None if all are unknown."""
    known = ~np.isnan(targets)
    return _error(probs[known], targets[known], bins) if known.any() else None


def _error(scores: Floats, came_true: Floats, bins: int) -> float:
    means, shares, weights = reliability(scores, came_true, bins)
    return float((np.abs(means - shares) * weights).sum())


def outcomes(probs: Floats, targets: Floats, task: Task) -> tuple[Floats, Floats]:
    """Return scores and whether each came true (0 or 1), both one-dimensional.

    For multi_label these are the scores of all known labels, otherwise those of each document's most probable label.
    """
    if task is Task.MULTI_LABEL:
        known = ~np.isnan(targets)
        return probs[known], targets[known]
    top = probs.argmax(axis=1)
    rows = np.arange(len(probs))
    return probs[rows, top], targets[rows, top]


def reliability(scores: Floats, came_true: Floats, bins: int = 15) -> tuple[Floats, Floats, Floats]:
    """Return the mean score, the share that came true, and the share of all documents, for each bin with documents."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    filled = counts > 0
    means = np.bincount(places, scores, bins)[filled] / counts[filled]
    shares = np.bincount(places, came_true, bins)[filled] / counts[filled]
    return means, shares, counts[filled] / counts.sum()

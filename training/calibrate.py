"""Fits a decision to validation data: a temperature for all logits, and a threshold for each label."""

import numpy as np
from scipy.optimize import minimize_scalar

from models.decision import Decision, Floats, probabilities
from models.labels import LabelSchema, Task

FEWEST_POSITIVES = 20  # a label with fewer positives gets the threshold that suits all labels; its own would be noise
TEMPERATURES = (0.05, 20.0)  # beyond these limits the scores are all alike, or all 0 and 1


def fit(logits: Floats, targets: Floats, labels: LabelSchema) -> Decision:
    """Return the temperature and the thresholds that suit logits and targets, both (documents, labels).

    Here and below, targets are 0 or 1, or NaN for an unknown label, which does not count.
    """
    temperature = fit_temperature(logits, targets, labels.task)
    probs = probabilities(logits, labels.task, temperature)
    return Decision(temperature=temperature, thresholds=choose_thresholds(probs, targets, labels))


def fit_temperature(logits: Floats, targets: Floats, task: Task) -> float:
    """Return the divisor of logits (documents, labels) that gives the lowest log loss on 0/1 targets.

    It changes scores, and never their order (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    """

    def log_loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        if task is Task.MULTI_LABEL:
            return float(np.nanmean(np.logaddexp(0.0, scaled) - targets * scaled))
        log_total = np.logaddexp.reduce(scaled, axis=1)
        return float((log_total - (targets * scaled).sum(axis=1)).mean())

    lowest, highest = np.log(TEMPERATURES)
    best = minimize_scalar(log_loss, bounds=(lowest, highest), method="bounded")
    return round(float(np.exp(best.x)), 4)


def choose_thresholds(probs: Floats, targets: Floats, labels: LabelSchema) -> tuple[float, ...]:
    """Return the thresholds with the best F1 for probabilities and 0/1 targets, both (documents, labels).

    A label with fewer than FEWEST_POSITIVES positives gets the threshold that is best for all labels together.
    """
    if labels.task is Task.MULTI_CLASS:
        return ()
    if labels.task is Task.BINARY:
        return (_best_threshold(probs[:, 1], targets[:, 1]),)
    shared = _best_threshold(probs.ravel(), targets.ravel())
    return tuple(
        _best_threshold(probs[:, i], targets[:, i]) if (targets[:, i] > 0).sum() >= FEWEST_POSITIVES else shared
        for i in range(len(labels.names))
    )


def _best_threshold(probs: Floats, targets: Floats) -> float:
    known = ~np.isnan(targets)
    probs, targets = probs[known], targets[known]
    if not targets.any():
        return 0.5
    order = np.argsort(probs)
    scores = probs[order]
    starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))  # each distinct score is a cut, which it passes itself
    cuts = scores[starts]
    hits = np.cumsum(targets[order][::-1], dtype=np.float64)[::-1][starts]
    precision, recall = hits / (len(scores) - starts), hits / hits[0]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1.argmax())
    below = cuts[best - 1] if best else 0.0
    # No text is at the edge of a threshold half-way between the lowest score that passes and the next lower one.
    return round(float((cuts[best] + below) / 2), 6)


def calibration_error(probs: Floats, targets: Floats, task: Task, bins: int = 15) -> float:
    """Return the expected calibration error, from 0 to 1: the mean distance of scores from their frequencies.

    It is taken over equal-width bins of the scores that `outcomes` selects (Guo et al., 2017).
    """
    scores, came_true = outcomes(probs, targets, task)
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

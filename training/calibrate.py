"""Fits on validation what turns logits into labels: a temperature, and a threshold for each label."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_curve

from models.decision import Decision, Floats, probabilities
from models.labels import LabelSchema, Task

FEWEST_POSITIVES = 20  # below it a label's own best threshold is noise: it gets the one that suits all labels
TEMPERATURES = (0.05, 20.0)  # beyond these the scores are all alike, or all 0 and 1


def fit(logits: Floats, targets: Floats, labels: LabelSchema) -> Decision:
    """The temperature, then the thresholds, that suit these documents: logits and 0/1 targets (documents, labels)."""
    temperature = fit_temperature(logits, targets, labels.task)
    probs = probabilities(logits, labels.task, temperature)
    return Decision(temperature=temperature, thresholds=choose_thresholds(probs, targets, labels))


def fit_temperature(logits: Floats, targets: Floats, task: Task) -> float:
    """The number by which to divide logits (documents, labels) for the lowest log loss on 0/1 targets.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. It moves scores, never their order.
    """

    def log_loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        if task is Task.MULTI_LABEL:
            return float((np.logaddexp(0.0, scaled) - targets * scaled).mean())
        log_total = np.logaddexp.reduce(scaled, axis=1)
        return float((log_total - (targets * scaled).sum(axis=1)).mean())

    lowest, highest = np.log(TEMPERATURES)
    best = minimize_scalar(log_loss, bounds=(lowest, highest), method="bounded")
    return round(float(np.exp(best.x)), 4)


def choose_thresholds(probs: Floats, targets: Floats, labels: LabelSchema) -> tuple[float, ...]:
    """The thresholds with the best F1 on these documents: probabilities and 0/1 targets, both (documents, labels).

    A label with fewer than FEWEST_POSITIVES positives gets the threshold that is best for all labels together.
    """
    if labels.task is Task.MULTI_CLASS:
        return ()
    if labels.task is Task.BINARY:
        return (_best_threshold(probs[:, 1], targets[:, 1]),)
    shared = _best_threshold(probs.ravel(), targets.ravel())
    return tuple(
        _best_threshold(probs[:, i], targets[:, i]) if targets[:, i].sum() >= FEWEST_POSITIVES else shared
        for i in range(len(labels.names))
    )


def _best_threshold(probs: Floats, targets: Floats) -> float:
    if not targets.any():
        return 0.5
    precision, recall, cuts = precision_recall_curve(targets, probs)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1[: len(cuts)].argmax())
    below = cuts[best - 1] if best else 0.0
    # Half way between the score that must pass and the next lower one: no text sits on the edge.
    return round(float((cuts[best] + below) / 2), 6)


def calibration_error(probs: Floats, targets: Floats, task: Task, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1: how far scores are from the frequencies with which they come true.

    Of every label's score for multi_label, of the most probable label's otherwise (Guo et al., 2017); equal-width bins.
    """
    scores, came_true = outcomes(probs, targets, task)
    means, shares, weights = reliability(scores, came_true, bins)
    return float((np.abs(means - shares) * weights).sum())


def outcomes(probs: Floats, targets: Floats, task: Task) -> tuple[Floats, Floats]:
    """Scores and whether each came true (0 or 1), both flat: all labels' for multi_label, otherwise the top one's."""
    if task is Task.MULTI_LABEL:
        return probs.ravel(), targets.ravel()
    top = probs.argmax(axis=1)
    rows = np.arange(len(probs))
    return probs[rows, top], targets[rows, top]


def reliability(scores: Floats, came_true: Floats, bins: int = 15) -> tuple[Floats, Floats, Floats]:
    """Mean score, share that came true and share of all documents, for each equal-width bin that holds any."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    held = counts > 0
    means = np.bincount(places, scores, bins)[held] / counts[held]
    shares = np.bincount(places, came_true, bins)[held] / counts[held]
    return means, shares, counts[held] / counts.sum()

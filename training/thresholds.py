"""Chooses the threshold of each label on validation data, by what the threshold is for.

macro_f1          the best F1 of each label; for binary, of both labels together
best_f1           the best F1 of each label; for binary, of the positive label
precision >= P    the highest recall at a precision of at least P
recall >= R       the highest precision at a recall of at least R
fixed             one given threshold for all labels
"""

import re
from dataclasses import dataclass

import numpy as np

from models.decision import Floats
from models.labels import LabelSchema, Task

OBJECTIVES = ("macro_f1", "best_f1", "fixed")
HALF = 0.5
CLOSEST = 1e-6  # of a threshold to 0 and to 1, where its log odds end
_BOUND = re.compile(r"(precision|recall)\s*>=\s*(0?\.\d+|1(?:\.0*)?)")


@dataclass(frozen=True)
class Objective:
    """What a threshold is for."""

    kind: str  # one of OBJECTIVES, precision or recall
    bound: float = 0.0  # lowest precision or recall

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Return the objective that a text names.

        Raises:
            ValueError: it names none.
        """
        if text in OBJECTIVES:
            return cls(text)
        if bound := _BOUND.fullmatch(text.strip()):
            return cls(bound[1], float(bound[2]))
        raise ValueError(f"expected {', '.join(OBJECTIVES)}, precision >= 0.9 or recall >= 0.9, found {text!r}")

    def value(self, passed: Floats, passing: Floats, positives: float, documents: int) -> Floats:
        """Return how good some thresholds are, as numbers to compare with each other.

        Args:
            passed: documents with the label whose scores pass a threshold (thresholds,)
            passing: documents whose scores pass a threshold (thresholds,)
            positives: documents with the label
            documents: all documents
        """
        precision = passed / np.maximum(passing, 1)
        recall = passed / max(positives, 1)
        if self.kind in ("precision", "recall"):
            bounded, other = (precision, recall) if self.kind == "precision" else (recall, precision)
            return np.where(bounded >= self.bound, 1 + other, bounded)  # what keeps the bound beats what does not
        f1 = 2 * passed / np.maximum(passing + positives, 1)
        if self.kind == "best_f1":
            return f1
        below, negatives = documents - passing, documents - positives
        return (f1 + 2 * (below - positives + passed) / np.maximum(below + negatives, 1)) / 2


def choose(probs: Floats, targets: Floats, labels: LabelSchema, objective: Objective, fewest: int) -> tuple[float, ...]:
    """Return the thresholds that suit the objective, for probabilities and targets, both (documents, labels).

    A label with fewer than `fewest` positives, or negatives, has a threshold between its own, which is mostly chance,
    and the one that suits all labels together: 0.5 for binary. The fewer there are, the nearer it is to that one. No
    threshold is worse than 0.5 on these documents.
    """
    if labels.task is Task.MULTI_CLASS:
        return ()
    if labels.task is Task.BINARY:
        return (_of_label(probs[:, 1], targets[:, 1], objective, HALF, fewest),)
    if objective.kind == "macro_f1":
        objective = Objective("best_f1")  # the mean over the labels is best if each of them is
    pooled = _best(probs.ravel(), targets.ravel(), objective)
    columns = zip(probs.T, targets.T, strict=True)
    return tuple(_of_label(of_label, truth, objective, pooled, fewest) for of_label, truth in columns)


def _of_label(probs: Floats, targets: Floats, objective: Objective, pooled: float, fewest: int) -> float:
    known = ~np.isnan(targets)
    probs, targets = probs[known], targets[known]
    positives = int((targets > 0).sum())
    trust = min(1.0, min(positives, len(targets) - positives) / fewest)
    if not trust:
        return pooled
    threshold = _between(pooled, _best(probs, targets, objective), trust)
    passes = probs >= np.array([[HALF], [threshold]])
    at_half, found = objective.value(passes @ targets, passes.sum(axis=1), positives, len(targets))
    return threshold if found > at_half else HALF


def _between(pooled: float, own: float, trust: float) -> float:
    """Return a threshold between two others, as near to the second as the trust says, from 0 to 1, in log odds."""
    log_odds = [np.log(p / (1 - p)) for p in np.clip((pooled, own), CLOSEST, 1 - CLOSEST)]
    return own if trust == 1 else round(float(1 / (1 + np.exp(-np.interp(trust, (0, 1), log_odds)))), 6)


def _best(probs: Floats, targets: Floats, objective: Objective) -> float:
    """Return the threshold with the highest value, half-way between two scores, so that no text is at its edge."""
    known = ~np.isnan(targets)
    probs, targets = probs[known], targets[known]
    if not targets.any():
        return HALF
    order = np.argsort(probs)
    scores = probs[order]
    starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))  # the lowest of each distinct score
    passed = np.cumsum(targets[order][::-1], dtype=np.float64)[::-1][starts]
    passing = (len(scores) - starts).astype(np.float64)
    best = int(objective.value(passed, passing, passed[0], len(scores)).argmax())
    below = scores[starts[best - 1]] if best else 0.0
    return round(float((scores[starts[best]] + below) / 2), 6)

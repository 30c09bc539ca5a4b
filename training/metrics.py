"""Measures predictions against the truth. All functions are pure, and all arrays are (documents, labels)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

from models.decision import Floats, decide
from models.labels import LabelSchema, Task

RESAMPLES = 1000  # number of bootstrap resamples
MEASURES = ("precision", "recall", "f1")


def measure(probs: Floats, targets: Floats, labels: LabelSchema, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """Return precision, recall, F1, support and number of predictions of each label, their averages, and accuracy.

    Averages are macro, micro, weighted and, for multi_label, samples. Accuracy is the share of documents whose labels
    are all right. For binary, averages are over both labels, and `f1` is the F1 of the positive label.
    """
    predicted = decide(probs, labels, thresholds).astype(int)
    truth = targets.astype(int)
    metrics: dict[str, Any] = {"documents": len(truth), "accuracy": float((predicted == truth).all(axis=1).mean())}
    averages = ["macro", "micro", "weighted"] + (["samples"] if labels.task is Task.MULTI_LABEL else [])
    for average in averages:
        values = precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        metrics |= {f"{average}_{name}": float(value) for name, value in zip(MEASURES, values[:3], strict=True)}
    columns = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    metrics["labels"] = {
        name: {key: float(column[i]) for key, column in zip(MEASURES, columns[:3], strict=True)}
        | {"support": int(truth[:, i].sum()), "predicted": int(predicted[:, i].sum())}
        for i, name in enumerate(labels.names)
    }
    if labels.task is Task.BINARY:
        metrics["f1"] = metrics["labels"][labels.names[1]]["f1"]
    return metrics


def ranking(probs: Floats, targets: Floats, labels: LabelSchema) -> dict[str, Any]:
    """Return average precision and ROC AUC of each label, and their means over the labels.

    Both are None for a label that no document or every document has.
    """
    by_label: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(labels.names):
        mixed = 0 < targets[:, i].sum() < len(targets)
        by_label[name] = {
            "average_precision": float(average_precision_score(targets[:, i], probs[:, i])) if mixed else None,
            "roc_auc": float(roc_auc_score(targets[:, i], probs[:, i])) if mixed else None,
        }
    means: dict[str, Any] = {}
    for key in ("average_precision", "roc_auc"):
        known = [values[key] for values in by_label.values() if values[key] is not None]
        means[key] = float(np.mean(known)) if known else None
    return means | {"labels": by_label}


def intervals(predicted: NDArray[np.bool_], targets: Floats, labels: LabelSchema) -> dict[str, Any]:
    """Return 95 % intervals [low, high] by a seeded percentile bootstrap over documents.

    `labels` holds the intervals of precision, recall and F1 of each label, beside `macro_f1` and `micro_f1`.
    """
    chance = np.random.default_rng(0)
    kinds = (predicted & (targets > 0), predicted, targets > 0)
    counted = np.concatenate([kind.astype(np.float32) for kind in kinds], axis=1)
    documents, width = len(targets), len(labels.names)
    sums = np.empty((RESAMPLES, counted.shape[1]))
    for resample in range(RESAMPLES):
        # Each document counts as often as it was drawn.
        drawn = np.bincount(chance.integers(documents, size=documents), minlength=documents).astype(np.float32)
        sums[resample] = drawn @ counted
    hits, positives, support = sums[:, :width], sums[:, width : 2 * width], sums[:, 2 * width :]
    measures = {
        "precision": _ratio(hits, positives),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, positives + support),
    }
    micro = _ratio(2 * hits.sum(axis=1), (positives + support).sum(axis=1))
    return {
        "macro_f1": _interval(measures["f1"].mean(axis=1)),
        "micro_f1": _interval(micro),
        "labels": {
            name: {key: _interval(values[:, i]) for key, values in measures.items()}
            for i, name in enumerate(labels.names)
        },
    }


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _interval(values: Floats) -> list[float]:
    return [round(float(bound), 6) for bound in np.percentile(values, (2.5, 97.5))]


def confusion(predicted: NDArray[np.bool_], targets: Floats, labels: LabelSchema) -> list[list[int]] | None:
    """Return the number of documents by true label (row) and predicted label (column).

    It is None for multi_label, where one document would stand in several rows.
    """
    if labels.task is Task.MULTI_LABEL:
        return None
    places = list(range(len(labels.names)))
    return confusion_matrix(targets.argmax(axis=1), predicted.argmax(axis=1), labels=places).tolist()

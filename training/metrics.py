"""Measures predictions against the truth. All functions are pure, and all arrays are (documents, labels).

Targets are 0 or 1, or NaN where it is unknown whether a label applies. A document does not count for an unknown label.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from models.decision import Decision, Floats, decide
from models.labels import LabelSchema, Task

RESAMPLES = 1000  # number of bootstrap resamples
AT_ONCE = 50  # resamples, or labels to rank, in one array
MEASURES = ("precision", "recall", "f1")
RANKINGS = ("average_precision", "roc_auc")


def measure(probs: Floats, targets: Floats, labels: LabelSchema, decision: Decision) -> dict[str, Any]:
    """Return precision, recall, F1, support and number of predictions of each label, their averages, and accuracy.

    Averages are macro, micro, weighted and, for multi_label, samples. Accuracy is the share of documents whose
    known labels are all right. For binary, averages are over both labels, and `f1` is the F1 of the positive label. For
    multi_class, `abstained` is the number of documents that got no label. A label that no document has, of which
    `labels_without_documents` is the list, counts as 0 in macro averages; `macro_f1_of_others` leaves it out.
    """
    known, truth = ~np.isnan(targets), targets > 0
    predicted = decide(probs, labels, decision) & known
    kinds = (predicted & truth, predicted, truth)
    by_label = [kind.sum(axis=0) for kind in kinds]
    columns = _measures(*by_label)
    support = by_label[2]
    averages = {
        "macro": [column.mean() for column in columns.values()],
        "micro": [column[0] for column in _measures(*(kind.sum(keepdims=True) for kind in by_label)).values()],
        "weighted": [np.average(column, weights=support if support.any() else None) for column in columns.values()],
    }
    if labels.task is Task.MULTI_LABEL:
        by_document = _measures(*(kind.sum(axis=1) for kind in kinds))
        averages["samples"] = [column.mean() for column in by_document.values()]
    metrics: dict[str, Any] = {"documents": len(truth), "accuracy": float((predicted == truth).all(axis=1).mean())}
    for average, values in averages.items():
        metrics |= {f"{average}_{name}": float(value) for name, value in zip(MEASURES, values, strict=True)}
    metrics["labels"] = {
        name: {key: float(column[i]) for key, column in columns.items()}
        | {"support": int(support[i]), "predicted": int(by_label[1][i])}
        for i, name in enumerate(labels.names)
    }
    metrics["labels_without_documents"] = [name for name, count in zip(labels.names, support, strict=True) if not count]
    if support.any():
        metrics["macro_f1_of_others"] = float(columns["f1"][support > 0].mean())
    if labels.task is Task.MULTI_CLASS:
        metrics["abstained"] = int((~predicted.any(axis=1)).sum())
    if labels.task is Task.BINARY:
        metrics["f1"] = metrics["labels"][labels.names[1]]["f1"]
    return metrics


def ranking(probs: Floats, targets: Floats, labels: LabelSchema) -> dict[str, Any]:
    """Return average precision and ROC AUC of each label, and their means over the labels.

    Both are None for a label that no document or every document has.
    """
    by_label: dict[str, dict[str, Any]] = {name: {"average_precision": None, "roc_auc": None} for name in labels.names}
    known = ~np.isnan(targets)
    mixed = (targets > 0).any(axis=0) & (targets == 0).any(axis=0)
    whole = np.flatnonzero(mixed & known.all(axis=0))
    groups = [whole[start : start + AT_ONCE] for start in range(0, len(whole), AT_ONCE)]
    groups += [np.array([place]) for place in np.flatnonzero(mixed & ~known.all(axis=0))]
    for places in groups:
        rows = known[:, places].all(axis=1)
        ranked = _ranked(probs[rows][:, places].T, targets[rows][:, places].T > 0)
        for place, *values in zip(places, *ranked, strict=True):
            by_label[labels.names[place]] = dict(zip(RANKINGS, map(float, values), strict=True))
    means: dict[str, Any] = {}
    for key in RANKINGS:
        ranked_labels = [values[key] for values in by_label.values() if values[key] is not None]
        means[key] = float(np.mean(ranked_labels)) if ranked_labels else None
    return means | {"labels": by_label}


def _ranked(probs: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the average precision and the ROC AUC of each label, from arrays (labels, documents).

    Documents with equal scores share a rank. Each label has documents with it and without it.
    """
    order = np.argsort(-probs, axis=1)
    scores, truth = np.take_along_axis(probs, order, 1), np.take_along_axis(truth, order, 1)
    places, documents = np.arange(probs.shape[1]), probs.shape[1]
    new = np.diff(scores, axis=1, prepend=np.inf) != 0
    first = np.maximum.accumulate(np.where(new, places, 0), axis=1)
    after = np.where(np.roll(new, -1, axis=1), places, documents)  # the score of the first document differs from inf
    last = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    hits = np.cumsum(truth, axis=1)
    above: NDArray[Any] = np.take_along_axis(hits - truth, first, 1)  # documents with the label above this rank
    up_to = np.take_along_axis(hits, last, 1)
    positives = hits[:, -1]
    precision = (truth * up_to / (last + 1)).sum(axis=1) / positives
    area = (~truth * (above + up_to) / 2).sum(axis=1) / (positives * (documents - positives))
    return precision, area


def intervals(predicted: NDArray[np.bool_], targets: Floats, labels: LabelSchema) -> dict[str, Any]:
    """Return 95 % intervals [low, high] by a seeded percentile bootstrap over documents.

    `labels` holds the intervals of precision, recall and F1 of each label, beside `macro_f1` and `micro_f1`.
    """
    chance = np.random.default_rng(0)
    predicted = predicted & ~np.isnan(targets)
    kinds = (predicted & (targets > 0), predicted, targets > 0)
    counted = np.concatenate([kind.astype(np.float32) for kind in kinds], axis=1)
    documents, width = len(targets), len(labels.names)
    sums = np.empty((RESAMPLES, counted.shape[1]))
    for start in range(0, RESAMPLES, AT_ONCE):
        # Each document counts as often as it was drawn.
        drawn = [np.bincount(chance.integers(documents, size=documents), minlength=documents) for _ in range(AT_ONCE)]
        sums[start : start + AT_ONCE] = np.array(drawn, np.float32) @ counted
    hits, positives, support = sums[:, :width], sums[:, width : 2 * width], sums[:, 2 * width :]
    measures = _measures(hits, positives, support)
    micro = _ratio(2 * hits.sum(axis=1), (positives + support).sum(axis=1))
    macro_f1, micro_f1 = _bounds(np.stack([measures["f1"].mean(axis=1), micro], axis=1))
    bounds = {key: _bounds(values) for key, values in measures.items()}
    return {
        "macro_f1": macro_f1,
        "micro_f1": micro_f1,
        "labels": {name: {key: of_all[i] for key, of_all in bounds.items()} for i, name in enumerate(labels.names)},
    }


def _measures(hits: NDArray[Any], positives: NDArray[Any], support: NDArray[Any]) -> dict[str, Floats]:
    """Return precision, recall and F1 from numbers of documents: right predictions, predictions, and due labels."""
    values = (_ratio(hits, positives), _ratio(hits, support), _ratio(2 * hits, positives + support))
    return dict(zip(MEASURES, values, strict=True))


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    return np.divide(above, below, out=np.zeros(above.shape), where=below > 0)


def _bounds(values: Floats) -> list[list[float]]:
    """Return [low, high] of each column of values (resamples, columns)."""
    limits = np.percentile(values, (2.5, 97.5), axis=0)
    return [[round(low, 6), round(high, 6)] for low, high in limits.T.tolist()]


def confusion(predicted: NDArray[np.bool_], targets: Floats, labels: LabelSchema) -> list[list[int]] | None:
    """Return the number of documents by true label (row) and predicted label (column).

    It is None for multi_label, where one document would stand in several rows. Documents without a predicted label are
    left out.
    """
    if labels.task is Task.MULTI_LABEL:
        return None
    places, given = list(range(len(labels.names))), predicted.any(axis=1)
    return confusion_matrix(targets[given].argmax(axis=1), predicted[given].argmax(axis=1), labels=places).tolist()

"""Draws report.html, which shows the training of a model, its quality, and its errors. The page asks no other host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import page
from models.decision import thresholds_of
from models.labels import Task
from models.trained_model import Manifest
from training import charts
from training.checks import Finding
from training.measurement import Measurement

FILE = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / FILE
WORST = 20  # errors that the report shows
LONGEST = 300  # characters that it shows of a text
MOST_CELLS = 40  # labels up to which a heat map can be read


def write(
    directory: Path,
    measurements: Sequence[Measurement],
    manifest: Manifest,
    findings: Sequence[Finding] = (),
    name: str | None = None,
) -> None:
    """Write `report.html` with the last measurement in full, which is test if there is one, and totals of all."""
    content = _content(measurements, manifest, name or directory.name) | {"findings": findings}
    (directory / FILE).write_text(page.render(TEMPLATE, **content), encoding="utf-8")


def _content(measurements: Sequence[Measurement], manifest: Manifest, name: str) -> dict[str, Any]:
    main, training = measurements[-1], manifest.training
    history, config = training.get("history", []), training.get("config", {})
    metric = config.get("training", {}).get("metric", "macro_f1")
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    return {
        "name": name,
        "manifest": manifest,
        "training": training,
        "config": config,
        "measurements": measurements,
        "main": main,
        "metrics": main.metrics,
        "thresholds": thresholds,
        "curves": charts.curves(history, metric) if history else None,
        "precision_recall": charts.precision_recall(main, thresholds),
        "panels": charts.MOST_PANELS,
        "reliability": charts.reliability(main, manifest.labels.task),
        "reliability_by_label": charts.reliability_by_label(main) if len(manifest.labels.names) > 2 else None,
        "heat_map": _heat_map(main),
        "worst": worst_errors(main),
        "multi_label": manifest.labels.task is Task.MULTI_LABEL,
    }


def _heat_map(measurement: Measurement) -> str | None:
    """Draw true labels against predicted ones, as shares of the documents with the true label.

    For multi_label it shows every pair that occurs in a document, otherwise the confusion matrix. Return None if there
    are too many labels to read.
    """
    if len(measurement.labels.names) > MOST_CELLS:
        return None
    truth = measurement.examples.positive.astype(float)
    counts = truth.T @ measurement.predicted.astype(float)
    shares = counts / np.maximum(truth.sum(axis=0), 1)[:, None]
    return charts.heat_map(shares, counts, measurement.labels.names)


def worst_errors(measurement: Measurement) -> list[dict[str, Any]]:
    """Return the wrong decisions with the most certain scores, at most one for each document.

    Each has the keys text, id, truth, predicted, label and score.
    """
    truth, known = measurement.examples.positive, measurement.examples.known
    against = np.where(truth, 1 - measurement.probs, measurement.probs)  # weight of the score against the truth
    certainty = np.where((truth != measurement.predicted) & known, against, -1.0)
    if measurement.labels.task is not Task.MULTI_LABEL:  # keep the label that was given instead of the true one
        certainty = np.where(measurement.predicted, certainty, -1.0)
    labels = certainty.argmax(axis=1)
    by_document = certainty.max(axis=1)
    names = np.array(measurement.labels.names)
    return [
        {
            "id": measurement.examples.ids[i],
            "text": _shortened(measurement.examples.texts[i]),
            "truth": names[truth[i]].tolist(),
            "predicted": names[measurement.predicted[i]].tolist(),
            "label": str(names[labels[i]]),
            "score": float(measurement.probs[i, labels[i]]),
        }
        for i in np.argsort(-by_document, kind="stable")[:WORST]
        if by_document[i] >= 0
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}…"

"""Draws report.html, which shows the training of a model, its quality, and its errors. The page asks no other host."""

from pathlib import Path
from typing import Any

import numpy as np

from models import page
from models.decision import thresholds_of
from models.labels import Task
from training import charts
from training.explanation import Explanation
from training.measurement import Measurement

FILE = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / FILE
MOST_CELLS = 40  # labels up to which a heat map can be read


def write(directory: Path, explanation: Explanation, name: str | None = None) -> None:
    """Write `report.html` with the last measurement in full, and totals of all."""
    content = _content(explanation) | {"name": name or directory.name}
    (directory / FILE).write_text(page.render(TEMPLATE, **content), encoding="utf-8")


def _content(explanation: Explanation) -> dict[str, Any]:
    manifest, main = explanation.manifest, explanation.main
    training = manifest.training
    history, config = training.get("history", []), training.get("config", {})
    metric = config.get("training", {}).get("metric", "macro_f1")
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    return {
        "manifest": manifest,
        "training": training,
        "config": config,
        "measurements": explanation.measurements,
        "findings": explanation.checked.findings,
        "wrong": explanation.wrong,
        "main": main,
        "metrics": main.metrics,
        "thresholds": thresholds,
        "curves": charts.curves(history, metric) if history else None,
        "precision_recall": charts.precision_recall(main, thresholds),
        "panels": charts.MOST_PANELS,
        "reliability": charts.reliability(main, manifest.labels.task),
        "reliability_by_label": charts.reliability_by_label(main) if len(manifest.labels.names) > 2 else None,
        "heat_map": _heat_map(main),
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

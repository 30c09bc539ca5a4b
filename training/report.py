"""Draws report.html: how a model was trained, how well it does, and where it errs. One file that asks no other host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import page
from models.decision import thresholds_of
from models.labels import Task
from models.trained_model import Manifest
from training import charts
from training.evaluation import Evaluation

FILE = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / FILE
WORST = 20
LONGEST = 300  # characters of a text that are shown
MOST_CELLS = 40  # labels up to which a heat map can be read


def write(directory: Path, evaluations: Sequence[Evaluation], manifest: Manifest, name: str | None = None) -> None:
    """Writes `report.html`: the last evaluation (test, where there is one) in full, of the others the totals."""
    content = _content(evaluations, manifest, name or directory.name)
    (directory / FILE).write_text(page.render(TEMPLATE, **content), encoding="utf-8")


def _content(evaluations: Sequence[Evaluation], manifest: Manifest, name: str) -> dict[str, Any]:
    main, training = evaluations[-1], manifest.training
    history, config = training.get("history", []), training.get("config", {})
    metric = config.get("training", {}).get("metric", "macro_f1")
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    return {
        "name": name,
        "manifest": manifest,
        "training": training,
        "config": config,
        "evaluations": evaluations,
        "main": main,
        "metrics": main.metrics,
        "thresholds": thresholds,
        "curves": charts.curves(history, metric) if history else None,
        "precision_recall": charts.precision_recall(main, thresholds),
        "panels": charts.MOST_PANELS,
        "reliability": charts.reliability(main, manifest.labels.task),
        "heat_map": _heat_map(main),
        "worst": worst_errors(main),
        "multi_label": manifest.labels.task is Task.MULTI_LABEL,
    }


def _heat_map(evaluation: Evaluation) -> str | None:
    """True labels against predicted ones, as shares of the documents with the true label.

    For multi_label every pair that meets in a document, otherwise the confusion matrix.
    """
    if len(evaluation.labels.names) > MOST_CELLS:
        return None
    truth = evaluation.examples.targets.astype(float)
    counts = truth.T @ evaluation.predicted.astype(float)
    shares = counts / np.maximum(truth.sum(axis=0), 1)[:, None]
    return charts.heat_map(shares, counts, evaluation.labels.names)


def worst_errors(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The wrong decisions that the model was surest of, one a document: text, id, truth, prediction, label, score."""
    truth = evaluation.examples.targets > 0
    against = np.where(truth, 1 - evaluation.probs, evaluation.probs)  # how strongly the score speaks against the truth
    surest = np.where(truth != evaluation.predicted, against, -1.0)
    if evaluation.labels.task is not Task.MULTI_LABEL:  # the label that was given instead of the true one
        surest = np.where(evaluation.predicted, surest, -1.0)
    labels = surest.argmax(axis=1)
    of_document = surest.max(axis=1)
    names = np.array(evaluation.labels.names)
    return [
        {
            "id": evaluation.examples.ids[i],
            "text": _shortened(evaluation.examples.texts[i]),
            "truth": names[truth[i]].tolist(),
            "predicted": names[evaluation.predicted[i]].tolist(),
            "label": str(names[labels[i]]),
            "score": float(evaluation.probs[i, labels[i]]),
        }
        for i in np.argsort(-of_document, kind="stable")[:WORST]
        if of_document[i] >= 0
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}…"

"""Compares the labels that a run gave with the training data: a label far from its share there deserves a look."""

import math
from collections.abc import Sequence
from typing import Any

from inference.scoring import model_files
from models import trained_model
from models.errors import ModelError
from models.trained_model import Manifest

RATIO = 1.5  # a label's share may differ from the training data's by this factor without a warning
NAMED = 8  # labels that a warning names


def manifest_of(path: str) -> Manifest | None:
    """Return a model's manifest; None if it cannot be read here, such as that of a model in an image."""
    try:
        return trained_model.read_manifest(model_files.local(path))
    except ModelError:
        return None


def expected_share(label: str, manifest: Manifest | None) -> float | None:
    """Return the share of the training documents that have a label; None if the manifest does not say."""
    training = manifest.training if manifest else {}
    documents: int = training.get("documents", 0)
    return training.get("label_counts", {}).get(label, 0) / documents if documents else None


def has_drifted(share: float, predicted: int, expected: float, documents: int) -> bool:
    """Whether a label's share differs from the training data's by more than RATIO, and not by chance.

    `share` is measured on `predicted` documents, `expected` on the `documents` of the training data. Chance explains
    two standard errors of the difference of two proportions.
    """
    pooled = (share * predicted + expected * documents) / (predicted + documents)
    error = math.sqrt(pooled * (1 - pooled) * (1 / max(predicted, 1) + 1 / documents))
    ratio = max(share, expected) / max(min(share, expected), 1e-12)
    return abs(share - expected) > 2 * error and ratio > RATIO


def drifted_labels(counts: dict[str, int], predicted: int, manifest: Manifest | None) -> list[str]:
    """Return the labels of a model that have drifted, the most frequent first; `counts` are documents by label."""
    if manifest is None or not (documents := manifest.training.get("documents")):
        return []
    labels = sorted(manifest.labels.names, key=lambda label: -counts.get(label, 0))
    shares = {label: counts.get(label, 0) / max(predicted, 1) for label in labels}
    expected = {label: expected_share(label, manifest) or 0.0 for label in labels}
    return [label for label in labels if has_drifted(shares[label], predicted, expected[label], documents)]


def warning(labels: Sequence[str]) -> str:
    """Return what a report and the console say of labels that have drifted."""
    names = ", ".join(labels[:NAMED]) + (f" and {len(labels) - NAMED} others" if len(labels) > NAMED else "")
    return (
        f"{names}: more than {RATIO:g} times as frequent or as rare as in the training data, and not by chance. The "
        "corpus may be of another kind, or the training data was balanced on purpose. Look at a sample of these "
        "documents before you use the labels."
    )


def warnings(description: dict[str, Any], totals: dict[str, Any]) -> list[str]:
    """Return a warning for each model of a run whose labels have drifted."""
    found = []
    for model in description["models"]:
        counts = totals["labels"].get(model["name"], {})
        if labels := drifted_labels(counts, totals["predicted"], manifest_of(model["path"])):
            found.append(f"model {model['name']}: {warning(labels)}")
    return found

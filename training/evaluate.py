"""Scores texts, measures predictions and chooses thresholds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve, precision_recall_fscore_support
from torch import nn
from transformers import PreTrainedTokenizerBase

from models.decision import decide
from models.labels import LabelSchema, Task

Floats = NDArray[np.floating[Any]]

FEWEST_POSITIVES = 20  # below it a label's own best threshold is noise: it gets the one that suits all labels


@torch.inference_mode()
def score(network: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> Floats:
    """Logits (documents, labels) in fp32, in the order of the texts: the plain loop that inference is held against."""
    network.eval()
    device = next(network.parameters()).device
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    batches = [order[start : start + 32] for start in range(0, len(order), 32)]
    rows: dict[int, Floats] = {}
    for batch in batches:
        encoded = tokenizer(
            [texts[index] for index in batch],
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        ).to(device)
        logits = network(encoded["input_ids"], encoded["attention_mask"]).float().cpu().numpy()
        rows |= dict(zip(batch, logits, strict=True))
    return np.stack([rows[index] for index in range(len(texts))])


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


def measure(probs: Floats, targets: Floats, labels: LabelSchema, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each label, macro and micro F1, and the share of documents all right.

    For binary, macro_f1 is over both labels and `f1` is the positive label's.
    """
    predicted = decide(probs, labels, thresholds).astype(int)
    truth = targets.astype(int)
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    metrics: dict[str, Any] = {
        "documents": len(truth),
        "macro_f1": float(f1.mean()),
        "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0)),
        "accuracy": float(accuracy_score(truth, predicted)),
        "labels": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(labels.names)
        },
    }
    if labels.task is Task.BINARY:
        metrics["f1"] = float(f1[1])
    return metrics

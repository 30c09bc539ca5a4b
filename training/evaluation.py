"""What a model does with labelled examples: scores, measures, tables."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedTokenizerBase

from models.decision import Decision, Floats, decide, probabilities, thresholds_of
from models.labels import LabelSchema, Task
from training import calibrate, metrics
from training.data import Examples

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how what a spreadsheet computes begins


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on one split beside the truth; arrays are (documents, labels)."""

    split: str  # validation or test
    labels: LabelSchema
    examples: Examples
    raw_probs: Floats  # before the temperature
    probs: Floats  # after it
    predicted: NDArray[np.bool_]  # by the model's thresholds
    metrics: dict[str, Any]  # as they stand in model.json


def evaluate(split: str, examples: Examples, logits: Floats, labels: LabelSchema, decision: Decision) -> Evaluation:
    """Measures logits (documents, labels) of these examples under a decision: everything that is reported of a split.

    At the top level the measures at the thresholds; `at_half` those at 0.5 (not for multi_class, which has none).
    """
    targets = examples.targets
    raw = probabilities(logits, labels.task)
    probs = probabilities(logits, labels.task, decision.temperature)
    predicted = decide(probs, labels, decision.thresholds)
    found = metrics.measure(probs, targets, labels, decision.thresholds)
    ranked = metrics.ranking(probs, targets, labels)
    for name, values in ranked.pop("labels").items():
        found["labels"][name] |= values
    found |= ranked
    if labels.thresholds_needed:
        # Halves of the calibrated scores; where sigmoid or two-way softmax gives 0.5, temperature changes nothing.
        found["at_half"] = metrics.measure(probs, targets, labels, (0.5,) * labels.thresholds_needed)
    found["intervals"] = metrics.intervals(predicted, targets, labels)
    found["calibration_error"] = {
        "before": calibrate.calibration_error(raw, targets, labels.task),
        "after": calibrate.calibration_error(probs, targets, labels.task),
    }
    found["confusion"] = metrics.confusion(predicted, targets, labels)
    found["data_sha256"] = examples.sha256()
    return Evaluation(split, labels, examples, raw, probs, predicted, found)


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


def write_tables(evaluation: Evaluation, decision: Decision, directory: Path, data_path: str, run_id: str) -> None:
    """Two CSV files for each label: `<split>_<label>_evaluation.csv` and `<split>_<label>_scores.csv`.

    The first has a row a metric, at 0.5 and at the threshold, with date, data path and run id; the second a row a
    document: its id, the truth (0 or 1), the score, and whether the model gives the label (0 or 1).
    """
    directory.mkdir(parents=True, exist_ok=True)
    prefix = {"validation": "val", "test": "holdout"}[evaluation.split]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    labels, found = evaluation.labels, evaluation.metrics
    thresholds = thresholds_of(labels, decision)
    for i, name in enumerate(labels.names):
        if labels.task is Task.BINARY and i == 0:
            continue  # the positive label says it all
        stem = f"{prefix}_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}"
        rows: list[tuple[str, Any]] = [("date", date), ("data_path", data_path), ("run_id", run_id)]
        rows += [("documents", found["documents"]), ("threshold", thresholds.get(name, "highest score"))]
        rows += _label_rows(found, name)
        _write_csv(directory / f"{stem}_evaluation.csv", ("metric", "value"), rows)
        scores = zip(
            evaluation.examples.ids,
            evaluation.examples.targets[:, i].astype(int).tolist(),
            evaluation.probs[:, i].round(6).tolist(),
            evaluation.predicted[:, i].astype(int).tolist(),
            strict=True,
        )
        _write_csv(directory / f"{stem}_scores.csv", ("id", "truth", "score", "predicted"), scores)


def _label_rows(found: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    at_threshold = found["labels"][name]
    for key in ("support", "average_precision", "roc_auc"):
        yield key, at_threshold[key]
    at_half = found["at_half"]["labels"][name] if "at_half" in found else None
    for suffix, values in (("at_threshold", at_threshold), ("at_0.5", at_half)):
        if values:
            yield from ((f"{key}_{suffix}", values[key]) for key in (*metrics.MEASURES, "predicted"))
    for key, (low, high) in found["intervals"]["labels"][name].items():
        yield f"{key}_at_threshold_low", low
        yield f"{key}_at_threshold_high", high


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_inert(cell) for cell in row] for row in rows)


def _inert(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula, marked as a text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def show(evaluation: Evaluation) -> None:
    """Prints the split's measures as a table."""
    found = evaluation.metrics
    low, high = found["intervals"]["macro_f1"]
    table = Table(
        title=f"{evaluation.split}: macro-F1 {found['macro_f1']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"micro-F1 {found['micro_f1']:.3f}",
        title_justify="left",
    )
    columns = {"precision": "precision", "recall": "recall", "F1": "f1", "avg. precision": "average_precision"}
    table.add_column("label")
    for heading in (*columns, "support"):
        table.add_column(heading, justify="right")
    for name, values in found["labels"].items():
        cells = ("–" if values[key] is None else f"{values[key]:.3f}" for key in columns.values())
        table.add_row(name, *cells, f"{values['support']:,}")
    Console().print(table)

"""Says how much the metrics of models differ that were trained alike, but for the seed or the fold."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models import trained_model
from training import terminal

AVERAGES = ("macro_f1", "micro_f1", "weighted_f1", "accuracy", "average_precision")


def write(output: Path, models: Sequence[Path], differing: str) -> None:
    """Write mean, standard deviation, lowest and highest of each metric, and print them as a table.

    `differing` is what the models differ in, `seed` or `fold`; the file is seeds.json or folds.json.
    """
    manifests = [trained_model.read_manifest(model) for model in models]
    split = "test" if "test" in manifests[0].metrics else "validation"
    metrics = [manifest.metrics[split] for manifest in manifests]
    rows = {name: _spread([values[name] for values in metrics]) for name in AVERAGES}
    labels = {name: _spread([_f1(values["labels"][name]) for values in metrics]) for name in manifests[0].labels.names}
    content = {"split": split, "models": [model.name for model in models], "metrics": rows, "labels": labels}
    path = output / f"{differing}s.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    table = terminal.new_table(f"{split}: {len(models)} models, alike but for the {differing}")
    table.add_column("metric")
    for heading in ("mean", "st. dev.", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for name, row in (*((f"F1 of {label}", row) for label, row in labels.items()), *rows.items()):
        table.add_row(
            name, *("–" if value is None else f"{value:.3f}" for key, value in row.items() if key != "values")
        )
    terminal.print_table(table)
    print(f"the numbers: {path}")


def _f1(values: dict[str, Any]) -> float | None:
    """Return the F1 of a label, or None if no document has it."""
    return float(values["f1"]) if values["support"] else None


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, sample standard deviation, lowest and highest, and the values; None where a value is missing."""
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return {"mean": None, "deviation": None, "lowest": None, "highest": None, "values": list(values)}
    return {
        "mean": statistics.mean(found),
        "deviation": statistics.stdev(found),
        "lowest": min(found),
        "highest": max(found),
        "values": found,
    }

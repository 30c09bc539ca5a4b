"""Prints the table of all results, for the documentation.

python -m benchmarks.quality.table
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MOST_LABELS = 8


def main() -> None:
    """Print a row for each model, and one for each label if there are few."""
    print(
        "| configuration | of | F1, 95 % interval | at 0.5 | precision | recall | baseline's F1 | trained on | time |"
    )
    print("|-|-|-|-:|-:|-:|-:|-:|-:|")
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_bytes())
        if "baseline" not in result:  # of another benchmark
            continue
        time = f"{result['documents']['train']:,}", f"{result['model']['seconds'] / 60:.0f} min"
        for name, cells in rows(result):
            print("| " + " | ".join([result["name"] if name == "macro" else "", name, *cells, *time]) + " |")
            time = "", ""


def rows(result: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the label of a row, and its cells: F1 with interval and at 0.5, precision, recall, the baseline's F1."""
    model, baseline = result["model"], result["baseline"]
    half = model["at_half"]
    macro = {key: model[f"macro_{key}"] for key in ("f1", "precision", "recall")}
    yield "macro", _cells(macro, model["intervals"]["macro_f1"], half["macro_f1"], baseline["macro_f1"])
    labels = list(model["labels"])[1 if result["config"]["labels"]["task"] == "binary" else 0 :]
    for name in labels if len(labels) <= MOST_LABELS else ():
        interval = model["intervals"]["labels"][name]["f1"]
        yield name, _cells(model["labels"][name], interval, half["labels"][name]["f1"], baseline["labels"][name]["f1"])


def _cells(found: dict[str, float], interval: Sequence[float], at_half: float, baseline: float) -> list[str]:
    low, high = interval
    f1 = f"{found['f1']:.3f} ({low:.3f} to {high:.3f})"
    return [f1, f"{at_half:.3f}", f"{found['precision']:.3f}", f"{found['recall']:.3f}", f"{baseline:.3f}"]


if __name__ == "__main__":
    main()

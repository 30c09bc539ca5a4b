"""Makes the tables of the audit's benchmark for the documentation."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from docs.code_tables import table

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "audit" / "results"
NAMES = {"arxiv": "arXiv, four subjects", "archive": "arXiv up to 2019", "goemotions": "GoEmotions"}


def audit_table() -> Iterator[str]:
    """Yield how often the intervals held the truth, and how wide they were, by corpus, shift and size."""
    rows = []
    for name, corpus in NAMES.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for world in ("as it is", "half", "double"):
            for size in sorted({row["size"] for row in result["rows"]}):
                chosen = [row for row in result["rows"] if (row["world"], row["size"]) == (world, size)]
                if chosen:
                    rows.append([corpus, world, f"{size:,}", *_cells(chosen)])
    head = ["corpus", "shift", "labelled", "count held", "precision held", "recall held", "groups held"]
    yield from table([*head, "width, random sample = 1", "model's count is wrong by"], rows)


def audit_example() -> Iterator[str]:
    """Yield what the audit of the worked example found, in a paragraph."""
    found = json.loads((RESULTS / "example.json").read_text(encoding="utf-8"))
    count = {name: f"{value:,.0f}" for name, value in found["count"].items()}
    yield textwrap.fill(
        f"Of {found['documents']:,} papers, {found['truth']:,} are on {found['label']}. The model counts "
        f"{found['naive']:,} of them. The audit with {found['drawn']:,} labels says {count['value']} "
        f"({count['low']} to {count['high']}). In {found['months_held']} of {len(found['months'])} months the truth "
        "lies in the interval.",
        100,
    )


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    cells = []
    for name in ("count", "precision", "recall", "groups"):
        held = [row["coverage"][name] for row in rows if name in row["coverage"]]
        cells.append(f"{100 * mean(held):.0f} %" if held else "–")
    widths = mean(row["width"] / row["width_of_random"] for row in rows)
    return [*cells, f"{widths:.2f}", f"{100 * mean(abs(row['naive_error']) for row in rows):.0f} %"]

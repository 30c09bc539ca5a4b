r"""Draws the picture of docs/howto/audit.md: a label by month as the model counts it, as an audit does, and in truth.

    python -m benchmarks.audit.example --run runs/arxiv --corpus corpora/arxiv.jsonl --label robotics --work build/audit

The audit labels its documents by the true categories. It takes the same commands as a user does.
"""

import argparse
import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks import environment
from inference import audit

PICTURE = environment.ROOT / "docs" / "audit.svg"
RESULT = Path(__file__).parent / "results" / "example.json"


def main() -> None:
    """Draw an audit, label it, estimate, and write the picture and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--run", "--label"):
        parser.add_argument(flag, required=True)
    for flag in ("--corpus", "--work"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--size", type=int, default=400)
    flags = parser.parse_args()
    truths = {row["id"]: row for row in map(json.loads, flags.corpus.read_text(encoding="utf-8").splitlines())}
    draw = ["draw", flags.run, "--label", flags.label, "--by", "month", "--size", flags.size, "--output", flags.work]
    sheet = flags.work / "labelled.csv"
    if audit.main(list(map(str, draw))):
        sys.exit(2)
    _label(flags.work, sheet, flags.label, truths)
    if audit.main(["estimate", str(flags.work), "--labelled", str(sheet)]):
        sys.exit(2)
    found = json.loads((flags.work / "estimates.json").read_text(encoding="utf-8"))["labels"][flags.label]
    true = Counter(row["month"] for row in truths.values() if flags.label in row["truth"])
    groups = [{**group, "truth": true[group["group"]]} for group in found["groups"]]
    held = sum(group["count"]["low"] <= group["truth"] <= group["count"]["high"] for group in groups)
    result = {
        **environment.describe(),
        "label": flags.label,
        "drawn": flags.size,
        "truth": true.total(),
        **{name: found[name] for name in ("documents", "naive", "count", "precision", "recall")},
        "months_held": held,
        "months": groups,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _picture(groups, flags.label)
    print(
        f"truth {true.total():,}, model {found['naive']:,}, audit {found['count']}; {held} of {len(groups)} months held"
    )


def _label(folder: Path, to: Path, label: str, truths: dict[str, Any]) -> None:
    ids = {one["row"]: one["id"] for one in json.loads((folder / "audit.json").read_bytes())["documents"]}
    rows = list(csv.DictReader(io.StringIO((folder / "sheet.csv").read_text("utf-8-sig"), newline="")))
    with to.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, f"{label}?": int(label in truths[ids[row["row"]]]["truth"])} for row in rows)


def _picture(groups: list[dict[str, Any]], label: str) -> None:
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "labelbeam"  # the same picture gives the same bytes
    from matplotlib import pyplot as plt

    months = [group["group"] for group in groups]
    figure, axes = plt.subplots(figsize=(9, 4))
    axes.fill_between(
        months,
        [group["count"]["low"] for group in groups],
        [group["count"]["high"] for group in groups],
        color="#2b6cb0",
        alpha=0.2,
        label="95 % interval of the audit",
    )
    axes.plot(months, [group["count"]["value"] for group in groups], color="#2b6cb0", label="audit")
    axes.plot(months, [group["naive"] for group in groups], color="#d9731a", label="model's count")
    axes.plot(months, [group["truth"] for group in groups], "o", color="#1d2430", label="truth")
    axes.set(ylabel=f"papers on {label}", ylim=(0, None))
    axes.tick_params(axis="x", rotation=60)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()

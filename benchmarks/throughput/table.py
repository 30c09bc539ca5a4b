"""Prints the table of a result and draws it beside the result file.

python -m benchmarks.throughput.table papers
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
OURS, RIVALS = "#0b6e4f", "#9aa5b1"
SHARE = "share of matrix rate"


def main() -> None:
    """Print a row for each contestant, the fastest first, loops and pipelines apart."""
    path = RESULTS / f"{sys.argv[1]}.json"
    result = json.loads(path.read_bytes())
    rows = sorted(result["contestants"].items(), key=lambda item: -item[1]["docs_per_second"])
    print(
        f"| | docs/s (range of {result['rounds']} rounds) | {SHARE} | same labels | CPU ms a document | peak memory |"
    )
    print("|-|-:|-:|-:|-:|-:|")
    for name, row in rows:
        print("| " + " | ".join([name, *cells(row, result["workload"]["documents"])]) + " |")
    draw(result, path.with_suffix(".png"))


def cells(row: dict[str, Any], documents: int) -> list[str]:
    """Return speed with its range, share of the matrix rate, agreement with fp32, CPU time and memory."""
    low, high = row["range"]
    same = f"{row['same_labels']:.2%}" if "same_labels" in row else ""
    speed = f"{row['docs_per_second']:.1f}" + (f" ({low:.1f} to {high:.1f})" if low < high else "")
    cpu = f"{row['cpu_seconds'] / documents * 1000:,.1f}" if "cpu_seconds" in row else ""
    return [speed, f"{row['share_of_matrix_rate']:.0%}", same, cpu, f"{row['peak_memory_mib']:,.0f} MiB"]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw bars of documents a second with their ranges, and the limit."""
    rows = sorted(result["contestants"].items(), key=lambda item: item[1]["docs_per_second"])
    speeds = [row["docs_per_second"] for _, row in rows]
    errors = [[abs(row["range"][side] - row["docs_per_second"]) for _, row in rows] for side in (0, 1)]
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = [OURS if name.startswith("labelbeam") else RIVALS for name, _ in rows]
    axes.barh([name for name, _ in rows], speeds, color=colours, xerr=errors, ecolor="#333333", capsize=2)
    work = result["workload"]
    for kind, rate in result["matrix_gflops"].items():
        limit = rate * work["documents"] / work["gflop"]
        axes.axvline(limit, color="#c0392b", linewidth=1, linestyle="--")
        axes.text(limit, len(rows) - 0.4, f" {kind} matrix products alone", color="#c0392b", fontsize=8, va="bottom")
    axes.set_xlabel(f"documents a second ({work['documents']:,} papers, {work['mean_tokens']:.0f} tokens on average)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

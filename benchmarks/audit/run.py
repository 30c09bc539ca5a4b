r"""Simulates audits of real scores and real labels, of which an audit sees only those drawn; writes results/NAME.json.

    python -m benchmarks.audit.run arxiv --run runs/arxiv --corpus corpora/arxiv.jsonl --by month
    python -m benchmarks.audit.run goemotions --run runs/goemotions --corpus corpora/goemotions.jsonl

`benchmarks.audit.corpora` writes the corpora; label them with --scores all, and --keep_fields month where there are
months. A corpus is also shifted: half of a label's documents are left out, or so many others that its share doubles.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks import environment
from benchmarks.audit.worlds import World
from inference.audits import estimates, population

RESULTS = Path(__file__).parent / "results"
SIZES = (200, 400, 1000)
SHARES = (0.003, 0.85)  # of labels that are audited


def main() -> None:
    """Simulate audits of each label, world and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result")
    parser.add_argument("--run", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--audits", type=int, default=100, help="audits of each label, world and size")
    parser.add_argument("--by", help="field whose values are counted apart (default: none)")
    parser.add_argument("--labels", nargs="+", default=[], help="labels to audit (default: all)")
    flags = parser.parse_args()
    truths = {row["id"]: row for row in map(json.loads, flags.corpus.read_text(encoding="utf-8").splitlines())}
    labels = flags.labels or sorted({label for row in truths.values() for label in row["truth"]})
    source = population.find(flags.run, None, labels, flags.by)
    blocks = [block for file in source.files for block in population.blocks(file, source.question)]
    scores = np.concatenate([block.scores for block in blocks])
    applies = np.concatenate([block.applies for block in blocks]).astype(np.int64)
    ids = [identifier for block in blocks for identifier in block.ids]
    _, groups = np.unique([group for block in blocks for group in block.groups], return_inverse=True)
    rows = []
    for place, label in enumerate(labels):
        truth = np.array([label in truths[identifier]["truth"] for identifier in ids])
        if not SHARES[0] <= truth.mean() <= SHARES[1]:
            continue
        for name, kept in _shifts(truth):
            for size in SIZES:
                world = World(scores[kept, place], truth[kept], applies[kept, place], groups[kept], size)
                rows.append({"label": label, "world": name, "size": size, **_simulate(world, flags.audits)})
                print(json.dumps(rows[-1]), flush=True)
    result = {**environment.describe(), "audits": flags.audits, "documents": len(ids), "rows": rows, "all": _all(rows)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{flags.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["all"]))


def _shifts(truth: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield a name and the documents of the corpus as it is, and with half and twice the share of the label."""
    rng = np.random.default_rng(0)
    with_label, others = np.flatnonzero(truth), np.flatnonzero(~truth)
    yield "as it is", np.arange(len(truth))
    share = truth.mean()
    half = rng.permutation(with_label)[: round(len(others) * share / 2 / (1 - share / 2))]
    yield "half", np.sort(np.concatenate([half, others]))
    if share < 0.45:
        fewer = rng.permutation(others)[: round(len(with_label) * (1 - 2 * share) / (2 * share))]
        yield "double", np.sort(np.concatenate([with_label, fewer]))


def _simulate(world: World, audits: int) -> dict[str, Any]:
    rng = np.random.default_rng(world.size)
    documents, truth = len(world.truth), int(world.truth.sum())
    given = world.applies == 1
    truths = {"count": truth, "precision": world.truth[given].mean(), "recall": world.applies[world.truth].mean()}
    hits: dict[str, list[bool]] = {name: [] for name in (*truths, "groups", "at_random")}
    errors, widths, random_widths = [], [], []
    of_groups = np.bincount(world.group[world.truth], minlength=int(world.group.max()) + 1)
    for seed in range(audits):
        labelled = world.audit(rng)
        found = estimates.estimate(labelled, seed)
        for name, value in truths.items():
            if interval := getattr(found, name):
                hits[name].append(bool(interval.low <= value <= interval.high))
        errors.append(found.count.value - truth)
        widths.append(found.count.high - found.count.low)
        if len(of_groups) > 1:
            intervals = estimates.by_group(labelled, found.count.value, seed)
            hits["groups"] += [
                bool(one.low <= value <= one.high) for one, value in zip(intervals, of_groups, strict=True)
            ]
        seen = int(world.truth[rng.choice(documents, world.size, replace=False)].sum())
        low, high = stats.binomtest(seen, world.size).proportion_ci(0.95, "wilson")
        hits["at_random"].append(bool(low * documents <= truth <= high * documents))
        random_widths.append((high - low) * documents)
    return {
        "documents": documents,
        "share": round(truth / documents, 5),
        "naive_error": round(int(given.sum()) / truth - 1, 3),
        "bias": round(float(np.mean(errors)) / float(np.mean(widths)), 3),
        "width": round(float(np.mean(widths)) / truth, 3),
        "width_of_random": round(float(np.mean(random_widths)) / truth, 3),
        "coverage": {name: round(float(np.mean(held)), 3) for name, held in hits.items() if held},
    }


def _all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each coverage, the lowest of the counts', and the widths and biases of all rows."""
    names = sorted({name for row in rows for name in row["coverage"]})
    widths = [row["width"] / row["width_of_random"] for row in rows]
    rare = [row["width"] / row["width_of_random"] for row in rows if 0.008 <= row["share"] <= 0.02]
    return {
        "coverage": {
            name: round(float(np.mean([row["coverage"][name] for row in rows if name in row["coverage"]])), 4)
            for name in names
        },
        "lowest_coverage": min(row["coverage"]["count"] for row in rows),
        "width_to_random": round(float(np.mean(widths)), 3),
        "width_to_random_near_1.3_percent": round(float(np.mean(rare)), 3) if rare else None,
        "largest_bias": max(abs(row["bias"]) for row in rows),
        "largest_naive_error": max((row["naive_error"] for row in rows), key=abs),
    }


if __name__ == "__main__":
    main()

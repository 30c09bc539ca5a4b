"""Draws report.html, one page about a run, from what its folder holds. The run need not have ended."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from inference.corpus import storage
from inference.runs import drift, own_files, receipts, run_folder, sink, summary
from inference.runs.own_files import AUDITS, REPORT
from inference.runs.progress import duration
from inference.runs.receipts import Receipt
from inference.scoring import tally
from inference.scoring.tally import BINS
from models import page
from models.decision import thresholds_of

TEMPLATE = Path(__file__).parent / "templates" / REPORT
MOST_LABELS = 24  # labels in the histograms and in the table of pairs, the most frequent first
EXAMPLES = 3  # rows shown for each reason of failures
MOST_WORKERS = 30
POINTS = 60  # bars in the chart of speed over time
LONG_REST = 60.0  # seconds between two attempts above which the page mentions the pause


def write(output: str, paid: Mapping[str, Any] | None = None) -> str:
    """Write the report into the run's folder and return its path; `paid` is the bill of its job, if it is known.

    Raises:
        UserError: the folder holds no run.
    """
    description = run_folder.require(output)
    finished = summary.read(output, description["run"])
    read: list[Receipt] = []
    totals = finished or {}
    for _, receipt in receipts.read_all(output, description["run"]):
        if receipt:
            read.append(receipt.small())
            totals = finished or tally.add([totals, receipt.totals()])
    content = {
        "name": output.rstrip("/").rsplit("/", 1)[-1],
        "output": output,
        "run": description,
        "totals": totals,
        "finished": finished is not None,
        "share_done": _share_done(description, read),
        "models": [_model(model, totals) for model in description["models"]] if read else [],
        "failures": _failures(read, output),
        "speed": speed(read),
        "paid": paid,
        "audits": _audits(output, description["run"], totals),
        "bins": BINS,
    }
    path = storage.join(output, REPORT)
    storage.write_file(path, page.render(TEMPLATE, **content).encode())
    return path


def _audits(output: str, run: str, totals: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the estimates of the audits of a run, with the highest bar of each chart.

    Those of fewer documents, before a retry, are left out.
    """
    folder = storage.join(output, AUDITS)
    names = sorted(name for name in own_files.of(output, AUDITS) if name.endswith(".json"))
    found = [orjson.loads(storage.read_file(storage.join(folder, name))) for name in names]
    for audit in found:
        for row in audit["labels"].values():
            row["most"] = max((max(one["naive"], one["count"]["high"]) for one in row["groups"]), default=0)
    return [audit for audit in found if audit["run"] == run and audit["predicted"] == totals.get("predicted")]


def _share_done(run: dict[str, Any], read: Sequence[Receipt]) -> float:
    if limit := run["options"].get("limit"):
        return min(sum(receipt.lines for receipt in read) / limit, 1.0)
    size = sum(file["size"] for file in run["files"])
    return sum(receipt.source_bytes for receipt in read) / size if size else 1.0


def _model(model: dict[str, str], totals: dict[str, Any]) -> dict[str, Any]:
    """Return what the page says of one model."""
    name, manifest = model["name"], drift.manifest_of(model["path"])
    predicted, tokens = totals["predicted"], totals["tokens"].get(name, 0)  # 0 if every document ended its process
    counts: dict[str, int] = totals["labels"].get(name, {})
    names = sorted(manifest.labels.names if manifest else counts, key=lambda label: -counts.get(label, 0))
    thresholds = thresholds_of(manifest.labels, manifest.decision) if manifest else {}
    drifted = drift.drifted_labels(counts, predicted, manifest)
    rows = [
        {
            "label": label,
            "count": counts.get(label, 0),
            "share": counts.get(label, 0) / max(predicted, 1),
            "expected": drift.expected_share(label, manifest),
            "drifted": label in drifted,
        }
        for label in names
    ]
    shown = [label for label in names if label in counts][:MOST_LABELS]
    scores = totals.get("scores", {}).get(name, {})
    return {
        **model,
        "task": manifest.labels.task if manifest else None,
        "labels": rows,
        "has_expected": any(row["expected"] is not None for row in rows),
        "warning": drift.warning(drifted) if drifted else None,
        "histograms": [
            {
                "label": label,
                "bars": _bars(scores[label], logarithmic=True),
                "most": max(scores[label]),
                "threshold": thresholds.get(label),
            }
            for label in shown
            if label in scores
        ],
        "has_thresholds": bool(thresholds),
        "pairs": _pairs(shown, counts, totals.get("pairs", {}).get(name, {})),
        "lengths": _bars(totals.get("lengths", {}).get(name, [0] * BINS)),
        "most_texts": max(totals.get("lengths", {}).get(name, [0])),
        "tokens": tokens,
        "padding": 1 - tokens / totals["padded_tokens"][name] if tokens else 0.0,
        "truncated": totals["truncated"].get(name, 0) / max(predicted, 1),
        "repeated": totals["repeated"].get(name, 0),
        "most_tokens": manifest.text.most_tokens if manifest else None,
    }


def _bars(counts: Sequence[int], *, logarithmic: bool = False) -> list[dict[str, Any]]:
    """Return counts and bar heights from 0 to 1."""
    scale = math.log1p if logarithmic else float
    most = scale(max(counts, default=0)) or 1.0
    return [{"count": count, "height": scale(count) / most} for count in counts]


def _pairs(
    names: Sequence[str], counts: dict[str, int], pairs: dict[str, dict[str, int]]
) -> list[dict[str, Any]] | None:
    """Return for each label the share of its documents that have each other label; None if no two labels meet."""
    if not pairs:
        return None

    def together(one: str, other: str) -> int:
        return pairs.get(one, {}).get(other, 0) + pairs.get(other, {}).get(one, 0)

    return [
        {"label": one, "cells": [None if one == other else together(one, other) / counts[one] for other in names]}
        for one in names
    ]


def _failures(read: Iterable[Receipt], output: str) -> list[dict[str, Any]]:
    """Return the reasons with their counts, the most frequent first, and the first examples of each."""
    counts: dict[str, int] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    for receipt in sorted(read, key=lambda receipt: receipt.number):
        for reason, count in receipt.failures.items():
            counts[reason] = counts.get(reason, 0) + count
        if any(len(examples.get(reason, ())) < EXAMPLES for reason in receipt.failures):
            for row in sink.read_failures(receipt, output):
                examples.setdefault(row["reason"], []).append(row)
    return [
        {"reason": reason, "count": count, "examples": examples[reason][:EXAMPLES]}
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def speed(read: Sequence[Receipt]) -> dict[str, Any] | None:
    """Return when and how fast the run went, over time and by worker; None before the first slice."""
    if not read:
        return None
    spans = sorted((r.finished - r.seconds, r.finished) for r in read)
    first, last = spans[0][0], max(end for _, end in spans)
    step = max((last - first) / POINTS, 1e-3)
    documents = [0.0] * POINTS
    for receipt in read:
        place = min(int((receipt.finished - first) / step), POINTS - 1)
        documents[place] += receipt.predicted + receipt.failed
    rates = [number / step for number in documents]
    busy = _covered(spans)
    rest = last - first - busy
    done = sum(r.predicted + r.failed for r in read)
    workers = [_worker(name, list(group)) for name, group in _grouped(read)]
    return {
        "began": _date(first),
        "ended": _date(last),
        "busy": duration(busy),
        "paused": duration(rest) if rest > LONG_REST else None,
        "rate": done / max(busy, 1e-3),
        "rates": rates,
        "most": max(rates),
        "bars": [rate / max(rates) if max(rates) else 0.0 for rate in rates],
        "workers": sorted(workers, key=lambda worker: -worker["documents"])[:MOST_WORKERS],
        "workers_in_all": len(workers),
    }


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans that are sorted by their beginning."""
    total, reached = 0.0, -math.inf
    for begin, end in spans:
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


def _grouped(read: Iterable[Receipt]) -> Iterable[tuple[str, Iterable[Receipt]]]:
    return itertools.groupby(sorted(read, key=lambda r: r.worker), key=lambda r: r.worker)


def _worker(name: str, read: Sequence[Receipt]) -> dict[str, Any]:
    documents = sum(r.predicted + r.failed for r in read)
    scoring = sum(r.scoring_seconds for r in read)
    return {
        "name": name,
        "slices": len(read),
        "documents": documents,
        "rate": documents / max(scoring, 1e-3),
        "runtimes": sorted({r.runtime for r in read}),
    }


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

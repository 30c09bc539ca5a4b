"""Adds receipts up, checks that every line is accounted for, and shows the totals."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from rich.console import Console
from rich.table import Table

from inference.corpus import storage
from inference.corpus.storage import read_file, write_file
from inference.runs import sink
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring.tally import Totals
from models import seals

SUMMARY = "summary.json"

_ID_BUCKETS = 256


def id_hashes(receipt: Receipt, output: str) -> list[tuple[int, bytes]]:
    """Return the 64-bit hashes of a slice's ids, in buckets that are checked one at a time."""
    digests = [hashlib.blake2b(i.encode(), digest_size=8).digest() for i in sink.read_ids(receipt, output)]
    buckets: dict[int, list[bytes]] = {}
    for digest in digests:
        buckets.setdefault(digest[0] % _ID_BUCKETS, []).append(digest)
    return [(bucket, b"".join(members)) for bucket, members in buckets.items()]


def count_duplicates(hashes: Iterable[bytes]) -> int:
    """Return how many ids of one bucket repeat another."""
    values = np.frombuffer(b"".join(hashes), np.uint64)
    return len(values) - len(np.unique(values))


def summarise(totals: Totals, slices: int, duplicates: int) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Raises:
        ArithmeticError: a slice has no receipt, or a line is neither predicted, failed nor blank.
    """
    if totals.get("slices", 0) != slices:
        raise ArithmeticError(f"{slices} slices, but {totals.get('slices', 0)} receipts")
    if totals["predicted"] + totals["failed"] + totals["blank"] != totals["lines"]:
        raise ArithmeticError(f"the totals do not add up: {totals}")
    documents = totals["predicted"] + totals["failed"]
    return {
        **totals,
        "duplicate_ids": duplicates,
        "failure_rate": totals["failed"] / documents if documents else 0.0,
        "failure_rate_in_bytes": totals["failed_bytes"] / totals["bytes"] if totals["bytes"] else 0.0,
    }


def write(summary: dict[str, Any], options: RunOptions) -> None:
    """Write `summary.json`, sealed."""
    content = seals.seal({"run": options.run, **summary}, indent=True)
    write_file(FileSystems.join(options.output, SUMMARY), content)


def read(output: str, run: str) -> dict[str, Any] | None:
    """Read `summary.json`; return None if there is none, or if it is damaged or of another run."""
    path = FileSystems.join(output, SUMMARY)
    if not storage.exists(path):
        return None
    summary = seals.unseal(read_file(path))
    return summary if summary and summary["run"] == run else None


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the totals, the failures by reason, and the labels of each model."""
    console.print(
        f"{summary['lines']:,} lines = {summary['predicted']:,} predicted + {summary['failed']:,} failed "
        f"+ {summary['blank']:,} blank, in {summary['slices']:,} slices",
    )
    if summary["duplicate_ids"]:
        console.print(
            f"{summary['duplicate_ids']:,} documents repeat an earlier id; they are labelled too", highlight=False
        )
    for reason, count in summary["failures"].items():
        console.print(f"  failed: {reason} {count:,}")
    for model, labels in summary["labels"].items():
        predicted = max(summary["predicted"], 1)
        console.print(_labels_table(model, labels, predicted))
        tokens, padded = summary["tokens"][model], max(summary["padded_tokens"][model], 1)
        console.print(
            f"{tokens:,} tokens, padding {1 - tokens / padded:.1%}; "
            f"{summary['truncated'][model] / predicted:.1%} of the texts were truncated"
            + (f", {summary['repeated'][model]:,} repeat another text" if summary["repeated"][model] else ""),
        )
    console.print(f"runtime: {', '.join(summary['runtimes'])}")


def _labels_table(model: str, labels: dict[str, int], predicted: int) -> Table:
    table = Table(title=f"model {model}", title_justify="left")
    table.add_column("label")
    table.add_column("documents", justify="right")
    table.add_column("share", justify="right")
    for label, count in sorted(labels.items(), key=lambda item: -item[1]):
        table.add_row(label, f"{count:,}", f"{count / predicted:.1%}")
    return table

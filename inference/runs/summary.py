"""Adds receipts up, checks that every line is accounted for, and shows the totals."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from inference.corpus import storage
from inference.corpus.slices import Slice
from inference.runs import receipts, sink
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring import tally
from inference.scoring.tally import Totals
from models import seals
from models.errors import UserError

SUMMARY = "summary.json"

_ID_BUCKETS = 64  # open files
_BUCKET_SPAN = np.uint64(2**64 // _ID_BUCKETS)  # hashes of a bucket
_WAITING_BYTES = 16 * 1024 * 1024  # bytes of hashes that are distributed together
_BUCKET_BYTES = 256 * 1024  # bytes of a bucket that stay in memory


class DamagedReceipts(UserError):
    """Some receipts were damaged. They are deleted, so that the same command does their slices again."""


def account(slices: Sequence[Slice], options: RunOptions) -> dict[str, Any]:
    """Return the content of `summary.json`, from the receipts of all slices. Memory does not grow with their number.

    Raises:
        ArithmeticError: a slice has no receipt, or a line is neither predicted, failed nor blank.
        DamagedReceipts: a receipt is damaged; then it is deleted.
        UserError: a file with the hashes of ids is gone or has changed.
    """
    totals: Totals = {}
    damaged = []
    with _IdCounter() as ids:
        for piece, receipt, hashes in _read_all(slices, options):
            if receipt is None:
                damaged.append(piece.name)
            else:
                tally.add_to(totals, receipt.totals())
                ids.add(hashes)
        if damaged:
            _discard(damaged, options)
            raise DamagedReceipts(
                f"{len(damaged):,} receipt{'s were' if len(damaged) > 1 else ' was'} damaged, such as that of "
                f"{damaged[0]}; each was deleted."
            )
        return summarise(totals, len(slices), ids.count_repeated())


def _discard(damaged: Sequence[str], options: RunOptions) -> None:
    """Delete the receipts of these slices. The files that they named count as those of an attempt."""
    for name in damaged:
        sink.begin_attempt(options, name)
        receipts.delete(options.output, options.run, name)


def _read_all(slices: Sequence[Slice], options: RunOptions) -> Iterator[tuple[Slice, Receipt | None, bytes]]:
    """Yield each slice that has a receipt, the receipt, and the hashes of the slice's ids."""
    names = receipts.names(options.output, options.run)
    finished = [piece for piece in slices if piece.name in names]

    def read_receipt(piece: Slice) -> Receipt | None:
        return receipts.read(receipts.path_of(options.output, options.run, piece.name), options.run)

    def read_ids(receipt: Receipt | None) -> bytes:
        return sink.read_id_hashes(receipt, options.output) if receipt else b""

    with ThreadPoolExecutor(receipts.READERS) as pool:
        for start in range(0, len(finished), receipts.CHUNK):
            chunk = finished[start : start + receipts.CHUNK]
            read = list(pool.map(read_receipt, chunk))
            yield from zip(chunk, read, pool.map(read_ids, read), strict=True)


class _IdCounter:
    """Counts the ids that repeat an earlier one. Their hashes are on disk in buckets, which are read one at a time."""

    def __enter__(self) -> "_IdCounter":
        self._files = ExitStack()
        new = tempfile.SpooledTemporaryFile
        self._buckets = [self._files.enter_context(new(max_size=_BUCKET_BYTES)) for _ in range(_ID_BUCKETS)]
        self._waiting = bytearray()  # hashes that are in no bucket yet
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, hashes: bytes) -> None:
        """Add the hashes of a slice, sink.ID_BYTES each."""
        self._waiting += hashes
        if len(self._waiting) >= _WAITING_BYTES:
            self._distribute()

    def _distribute(self) -> None:
        values = np.sort(np.frombuffer(self._waiting, ">u8").astype(np.uint64))  # native numbers are sorted faster
        self._waiting = bytearray()
        ends = np.searchsorted(values, np.arange(1, _ID_BUCKETS, dtype=np.uint64) * _BUCKET_SPAN)
        for bucket, members in zip(self._buckets, np.split(values, ends), strict=True):
            bucket.write(members.tobytes())

    def count_repeated(self) -> int:
        """Return how many ids repeat an earlier one."""
        self._distribute()
        repeated = 0
        for bucket in self._buckets:
            bucket.seek(0)
            values = np.sort(np.frombuffer(bucket.read(), np.uint64))
            repeated += int((values[1:] == values[:-1]).sum())
        return repeated


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


def write(summary: dict[str, Any], options: RunOptions, require_own: Callable[[], None]) -> None:
    """Write `summary.json`, sealed. `require_own` raises an error if the folder belongs to another run."""
    content = seals.seal({"run": options.run, **summary}, indent=True)
    storage.replace_file(storage.join(options.output, SUMMARY), content, require_own)


def read(output: str, run: str) -> dict[str, Any] | None:
    """Read `summary.json`; return None if there is none, or if it is damaged or of another run."""
    path = storage.join(output, SUMMARY)
    stored = storage.read_if_there(path)
    summary = seals.unseal(stored) if stored is not None else None
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

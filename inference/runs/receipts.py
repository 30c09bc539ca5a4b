"""Defines the receipt of a slice, and writes, seals, finds and reads receipts.

A receipt is written last, so a slice that has one is complete.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.scoring.tally import Counts, Totals

RECEIPTS = "receipts"  # folder of the receipts, in the folder of the run

READERS = 32  # threads that read receipts, because a receipt in Cloud Storage takes longer to arrive than to parse
CHUNK = 8 * READERS  # receipts that are in memory at the same time
SEAL = b',"seal":"'


@dataclass(frozen=True, kw_only=True)
class SliceTotals(Counts):
    """The counters of a slice, which add up over slices, with `predicted + failed + blank == lines`."""

    lines: int  # number of lines
    predicted: int  # number of documents with a prediction
    failed: int  # number of lines that failed
    blank: int  # number of blank lines
    failures: dict[str, int]  # number of lines that failed, by reason
    source_bytes: int  # the slice's share of the file's bytes as stored
    seconds: float  # time to read, score and write the slice
    scoring_seconds: float  # time to score the slice


@dataclass(frozen=True, kw_only=True)
class Receipt(SliceTotals):
    """The receipt of a finished slice."""

    slice: str  # name of the slice
    file: str  # input file
    start: int  # position of the slice's first byte in the decompressed file
    end: int  # position after the slice's last byte
    first_line: int  # number of the slice's first line in the file, from 1
    checksum: int  # CRC-32 of the slice's bytes
    runtime: str  # runtime and precision that scored the slice
    finished: float  # time when the slice was finished, in seconds since the epoch
    worker: str  # host and process that wrote the slice
    sha256: dict[str, str] = field(default_factory=dict)  # SHA-256 of each written file, by its path in the run

    def totals(self) -> Totals:
        """Return the counters that add up over slices, and the number of slices by runtime."""
        numbers = {counter.name: getattr(self, counter.name) for counter in fields(SliceTotals)}
        return {"slices": 1, "runtimes": {self.runtime: 1}, **numbers}

    def without_histograms(self) -> "Receipt":
        """Return a small copy, so that the receipts of a large run fit in memory together."""
        return replace(self, pairs={}, scores={}, lengths={})


def write(receipt: Receipt, output: str) -> None:
    """Write the receipt of a slice. Its other files have to be written already."""
    storage.write_file(_path(output, receipt.slice), seal(receipt))


def seal(receipt: Receipt) -> bytes:
    """Return the stored form of a receipt: JSON that ends with the SHA-256 of everything before it."""
    content = orjson.dumps(receipt)[:-1]
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'"}'


def find(output: str, slice_name: str) -> Receipt | None:
    """Return the receipt of a slice, or None if the slice is not finished."""
    path = _path(output, slice_name)
    return read(path) if FileSystems.exists(path) else None


def read(path: str) -> Receipt | None:
    """Read a receipt. Return None if it is damaged or of another version, so that its slice is labelled again."""
    content, _, seal = storage.read_file(path).rpartition(SEAL)
    if seal != hashlib.sha256(content).hexdigest().encode() + b'"}':
        return None
    try:
        return Receipt(**orjson.loads(content + b"}"))
    except TypeError:  # a receipt of another version has other fields
        return None


def read_all(output: str) -> Iterator[tuple[str, Receipt | None]]:
    """Yield the path of each receipt and what `read` returns for it. The paths are sorted."""
    all_paths = sorted(paths(output))
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(all_paths), CHUNK):
            chunk = all_paths[start : start + CHUNK]
            yield from zip(chunk, pool.map(read, chunk), strict=True)


def paths(output: str) -> Iterator[str]:
    """Yield the paths of all receipts that exist now."""
    return storage.matching(FileSystems.join(output, RECEIPTS, "*.json"))


def _path(output: str, slice_name: str) -> str:
    return FileSystems.join(output, RECEIPTS, f"{slice_name}.json")

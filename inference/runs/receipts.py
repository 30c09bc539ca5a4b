"""A slice's receipt: what it says, how it is sealed, and how receipts are found and read.

A receipt is written last, so a slice that has one is whole.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.scoring.tally import Counts, Totals

RECEIPTS = "receipts"  # the folder, below the run's

READERS = 32  # threads: a receipt in Cloud Storage takes longer to arrive than to read
CHUNK = 8 * READERS
SEAL = b',"seal":"'


@dataclass(frozen=True, kw_only=True)
class SliceTotals(Counts):
    """The numbers of a slice that add up over slices. `predicted + failed + blank == lines`."""

    lines: int
    predicted: int  # documents
    failed: int  # lines
    blank: int  # lines
    failures: dict[str, int]  # lines, by reason
    source_bytes: int  # the slice's share of the file as stored
    seconds: float  # to read, score and write
    scoring_seconds: float  # to score alone


@dataclass(frozen=True, kw_only=True)
class Receipt(SliceTotals):
    """What is known about a finished slice."""

    slice: str  # name of the slice
    file: str  # input file
    start: int  # first byte of the slice, in the decompressed file
    end: int  # byte after its last
    first_line: int  # number of its first line, from 1
    checksum: int  # CRC-32 of its bytes
    runtime: str  # runtime and number format that scored it
    finished: float  # seconds since the epoch
    worker: str  # host and process
    sha256: dict[str, str] = field(default_factory=dict)  # of each file written, by its path below the output folder

    def totals(self) -> Totals:
        """Return the numbers that add up over slices, and how often each runtime was used."""
        numbers = {counter.name: getattr(self, counter.name) for counter in fields(SliceTotals)}
        return {"slices": 1, "runtimes": {self.runtime: 1}, **numbers}

    def without_histograms(self) -> "Receipt":
        """Return a receipt small enough to hold all of a large run's in memory."""
        return replace(self, pairs={}, scores={}, lengths={})


def write(receipt: Receipt, output: str) -> None:
    """Write the receipt of a slice whose other files are written."""
    storage.write_file(_path(output, receipt.slice), seal(receipt))


def seal(receipt: Receipt) -> bytes:
    """Return a receipt as it is stored: JSON that ends with the SHA-256 of everything before it."""
    content = orjson.dumps(receipt)[:-1]
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'"}'


def find(output: str, slice_name: str) -> Receipt | None:
    """Return the receipt of a slice; None if the slice is still to do."""
    path = _path(output, slice_name)
    return read(path) if FileSystems.exists(path) else None


def read(path: str) -> Receipt | None:
    """Read a receipt by its path; None if it is not as it was written, so that its slice is done again."""
    content, _, seal = storage.read_file(path).rpartition(SEAL)
    if seal != hashlib.sha256(content).hexdigest().encode() + b'"}':
        return None
    try:
        return Receipt(**orjson.loads(content + b"}"))
    except TypeError:  # another version's
        return None


def read_all(output: str) -> Iterator[tuple[str, Receipt | None]]:
    """Yield the path of each receipt that is there now, in order, and the receipt; many are read at once."""
    found = sorted(paths(output))
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(found), CHUNK):  # bounds how many are in memory
            chunk = found[start : start + CHUNK]
            yield from zip(chunk, pool.map(read, chunk), strict=True)


def paths(output: str) -> Iterator[str]:
    """Yield the paths of all receipts that are there now."""
    return storage.matching(FileSystems.join(output, RECEIPTS, "*.json"))


def _path(output: str, slice_name: str) -> str:
    return FileSystems.join(output, RECEIPTS, f"{slice_name}.json")

"""Defines the receipt of a slice, and writes, seals, finds and reads receipts.

A receipt is written last, so a slice that has one is complete. It carries the identity of its run. A receipt of another
run counts as none.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

from inference.corpus import storage
from inference.corpus.objects import ConflictError
from inference.scoring.tally import Counts, Totals
from models import seals

RECEIPTS = "receipts"  # folder of the receipts, in the folder of the run

READERS = 32  # threads that read receipts, because a remote receipt takes longer to arrive than to parse
CHUNK = 8 * READERS  # receipts that are in memory at the same time
RUN_PART = 8  # hexadecimal digits of a run's identity in the names of its files


@dataclass(frozen=True, kw_only=True)
class SliceTotals(Counts):
    """The counters of a slice, which add up over slices, with `predicted + failed + blank == lines`."""

    lines: int  # number of lines
    predicted: int  # number of documents with a prediction
    failed: int  # number of lines that failed
    blank: int  # number of blank lines
    failures: dict[str, int]  # number of lines that failed, by reason
    bytes: int  # bytes of all lines
    failed_bytes: int  # bytes of the lines that failed
    source_bytes: int  # the slice's share of the file's bytes as stored
    seconds: float  # time to read, score and write the slice
    scoring_seconds: float  # time to score the slice


@dataclass(frozen=True, kw_only=True)
class Receipt(SliceTotals):
    """The receipt of a finished slice."""

    run: str  # identity of the run, as in `run.json`
    slice: str  # name of the slice
    number: int  # place of the slice in the corpus, as in `slices.json`
    checksum: str  # SHA-256 of the bytes of the lines that were labelled, as in `slices.json`
    runtime: str  # runtime and precision that scored the slice
    weights: dict[str, str]  # SHA-256 of the `model.json` or `conversion.json` of the weights that computed, by model
    finished: float  # time when the slice was finished, in seconds since the epoch
    worker: str  # host and process that wrote the slice
    sha256: dict[str, str] = field(default_factory=dict)  # SHA-256 of each written file, by its path in the run

    def totals(self) -> Totals:
        """Return the counters that add up over slices, and the number of slices by runtime and by weights."""
        numbers = {counter.name: getattr(self, counter.name) for counter in fields(SliceTotals)}
        weights = {model: {sha256: 1} for model, sha256 in self.weights.items()}
        return {"slices": 1, "runtimes": {self.runtime: 1}, "weights": weights, **numbers}

    def small(self) -> "Receipt":
        """Return a copy without counts by label, so that the receipts of a large run fit in memory together."""
        return replace(self, labels={}, pairs={}, scores={}, lengths={})


def write(receipt: Receipt, output: str) -> Receipt:
    """Write the receipt of a slice whose other files are written, unless it has one. Return the one that counts.

    Several attempts may finish the same slice. The first receipt stays, and the files of the others count for nothing.
    """
    path = path_of(output, receipt.run, receipt.slice)
    if storage.create_file(path, seals.seal(vars(receipt))):
        return receipt
    if winner := read(path, receipt.run):
        return winner
    storage.write_file(path, seals.seal(vars(receipt)))  # the one that was there is damaged
    return receipt


def replace_old(old: Receipt, new: Receipt, output: str, require_own: Callable[[], None]) -> Receipt:
    """Write the receipt of a slice in place of its earlier one, unless another was faster. Return the one that counts.

    `require_own` raises an error if the folder belongs to another run.
    """
    path = path_of(output, old.run, old.slice)

    def require_old() -> None:
        require_own()
        if find(output, old.run, old.slice) not in (None, old):
            raise ConflictError(path)

    try:
        storage.replace_file(path, seals.seal(vars(new)), require_old)
    except ConflictError:
        return find(output, old.run, old.slice) or old
    return new


def find(output: str, run: str, slice_name: str) -> Receipt | None:
    """Return the receipt of a slice in a run, or None if the slice is not finished."""
    stored = storage.read_if_there(path_of(output, run, slice_name))
    return parse(stored, run) if stored is not None else None


def read(path: str, run: str) -> Receipt | None:
    """Read a receipt and return what `parse` returns."""
    return parse(storage.read_file(path), run)


def parse(stored: bytes, run: str) -> Receipt | None:
    """Return a receipt, or None if it is damaged, or of another run or version, so that its slice is done again."""
    content = seals.unseal(stored)
    if content is None:
        return None
    try:
        receipt = Receipt(**content)
    except TypeError:  # a receipt of another version has other fields
        return None
    return receipt if receipt.run == run else None


def read_all(output: str, run: str) -> Iterator[tuple[str, Receipt | None]]:
    """Yield the path of each receipt of a run and what `read` returns for it. The paths are sorted."""
    yield from read_each(sorted(paths(output, run)), run)


def read_each(all_paths: Sequence[str], run: str) -> Iterator[tuple[str, Receipt | None]]:
    """Yield each path and what `read` returns for it. Many receipts are read at the same time."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(all_paths), CHUNK):
            chunk = all_paths[start : start + CHUNK]
            yield from zip(chunk, pool.map(lambda path: read(path, run), chunk), strict=True)


def names(output: str, run: str) -> set[str]:
    """Return the names of the slices that have a receipt now."""
    end = len(f".{run_part(run)}.json")
    return {path.rpartition("/")[2][:-end] for path in paths(output, run)}


def delete(output: str, run: str, slice_name: str) -> None:
    """Delete the receipt of a slice, so that the slice is done again."""
    storage.delete(storage.join(output, RECEIPTS), [f"{slice_name}.{run_part(run)}.json"])


def paths(output: str, run: str) -> Iterator[str]:
    """Yield the paths of all receipts of a run that exist now."""
    folder = storage.join(output, RECEIPTS)
    suffix = f".{run_part(run)}.json"
    yield from (storage.join(folder, name) for name in storage.listing(folder) if name.endswith(suffix))


def run_part(run: str) -> str:
    """Return the part of a run's identity that stands in the names of its files, so that two runs never share one."""
    return run[:RUN_PART]


def path_of(output: str, run: str, slice_name: str) -> str:
    """Return the path of the receipt of a slice in a run."""
    return storage.join(output, RECEIPTS, f"{slice_name}.{run_part(run)}.json")

"""Compares the files of a run with its receipts, and the receipts with its input."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inference.corpus import counting, storage
from inference.corpus.files import SourceError, find_file
from inference.corpus.slices import Part, Slice
from inference.runs import receipts, run_folder, sink, slice_list, summary
from inference.runs.receipts import Receipt
from inference.scoring import tally
from inference.scoring.tally import Totals

READERS = 16  # threads that read files; each holds one file in memory


def verify(output: str) -> Iterator[str]:
    """Yield a sentence for each problem of a run.

    Raises:
        UserError: the folder holds no run.
    """
    description = run_folder.require(output)
    run = description["run"]
    whole_receipts = []
    totals: Totals = {}
    for path, receipt in receipts.read_all(output, run):
        if receipt is None:
            yield f"{path}: is damaged or of another version, so its slice counts as unfinished."
        else:
            whole_receipts.append(receipt.small())
            tally.add_to(totals, receipt.totals())
    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(lambda receipt: list(_file_problems(receipt, output)), whole_receipts):
            yield from problems
    yield from _unnamed_files(whole_receipts, output, run)
    all_slices = slice_list.read(output, run)
    if all_slices is None:
        yield f"{slice_list.SLICES}: is missing or damaged; run the same command again, which counts the lines anew."
    else:
        yield from _coverage_problems(description, all_slices)
        yield from _receipt_problems(all_slices, whole_receipts)
    yield from _summary_problems(totals, output, run)


def verify_input(output: str) -> Iterator[str]:
    """Read the corpus again. Yield a sentence for each file that has grown and for each part whose bytes differ.

    Raises:
        UserError: the folder holds no run.
        SourceError: storage fails.
    """
    description = run_folder.require(output)
    labelled: defaultdict[str, dict[int, Part]] = defaultdict(dict)
    for piece in slice_list.read(output, description["run"]) or ():
        for part in piece.parts:
            labelled[part.file.path][part.start] = part
    slice_bytes = description["options"]["slice_bytes"]
    files = run_folder.read_files(output)
    for file in files:
        now = find_file(file.path)
        if now and now.size > file.size and file.max_lines is None:
            yield f"{file.path}: expected {file.size:,} bytes as when the run began, found {now.size:,}."

    def changed(unit: counting.Unit) -> list[str]:
        try:
            counted = list(counting.count(unit, slice_bytes))
        except SourceError as error:
            return [str(error)]
        pairs = [(labelled[part.file.path].get(part.start), part) for part in counted]
        return [_changed(before) for before, part in pairs if before and before.checksum != part.checksum]

    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(changed, counting.units(files, slice_bytes)):
            yield from problems


def _changed(part: Part) -> str:
    return (
        f"{part.file.path}: the lines from {part.first_line:,} on have changed since they were labelled; put the file "
        "back, or label it into another folder."
    )


def _unnamed_files(all_receipts: Sequence[Receipt], output: str, run: str) -> Iterator[str]:
    """Name the files that belong to no receipt of the run."""
    named = [path for receipt in all_receipts for path in receipt.sha256]
    for path in sink.unnamed_files(output, named):
        yield f"{storage.join(output, path)}: belongs to no receipt of this run; delete it."
    suffix = f".{receipts.run_part(run)}.json"
    folder = storage.join(output, receipts.RECEIPTS)
    for name in sorted(storage.listing(folder)):
        if not name.endswith(suffix):
            yield f"{storage.join(folder, name)}: is no receipt of this run; delete it."


def _file_problems(receipt: Receipt, output: str) -> Iterator[str]:
    """Check that the files of a receipt exist, have its SHA-256 values, and have as many rows as it counts."""
    if receipt.predicted + receipt.failed + receipt.blank != receipt.lines:
        yield f"{receipt.slice}: the counts of its receipt do not add up."
    for name, sha256 in receipt.sha256.items():
        path = storage.join(output, name)
        if not storage.exists(path):
            yield f"{path}: is missing."
            continue
        content = storage.read_file(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"{path}: has changed since it was written: its receipt has another SHA-256."
            continue
        expected = receipt.failed if name.startswith(sink.FAILURES) else receipt.predicted
        if (rows := sink.count_rows(path, content)) != expected:
            yield f"{path}: expected the {expected:,} rows that its receipt counts, found {rows:,}."


def _coverage_problems(description: dict[str, Any], all_slices: Sequence[Slice]) -> Iterator[str]:
    """Check that the parts of each file cover all its bytes and lines without gaps or overlaps."""
    by_file: defaultdict[str, list[Part]] = defaultdict(list)
    for piece in all_slices:
        for part in piece.parts:
            by_file[part.file.path].append(part)
    for file in description["files"]:
        of_file = by_file.pop(file["path"], [])
        byte, line = 0, 1
        for part in of_file:
            if (part.start, part.first_line) != (byte, line):
                yield f"{file['path']}: no slice holds the bytes from {byte:,} to {part.start:,}."
            byte, line = part.end, part.first_line + part.lines
        limited = file["max_lines"] is not None
        if limited and line - 1 != file["max_lines"] and not (of_file and of_file[-1].damage):
            yield f"{file['path']}: expected {file['max_lines']:,} lines, found slices of {line - 1:,}."
        elif not limited and sum(part.source_bytes for part in of_file) != file["size"]:
            yield f"{file['path']}: no slice holds the bytes from {byte:,} on."
    for path in by_file:
        yield f"{path}: has slices, but is not an input of this run."


def _receipt_problems(all_slices: Sequence[Slice], all_receipts: Sequence[Receipt]) -> Iterator[str]:
    """Check that each slice has a receipt of the bytes and lines that were counted."""
    by_name = {receipt.slice: receipt for receipt in all_receipts}
    for missing, group in itertools.groupby(all_slices, key=lambda piece: piece.name not in by_name):
        pieces = list(group)
        if missing:
            first, last = pieces[0].parts[0], pieces[-1].parts[-1]
            yield (
                f"{len(pieces):,} slice{'s have' if len(pieces) > 1 else ' has'} no receipt, from line "
                f"{first.first_line:,} of {first.file.path} to line "
                f"{last.first_line + last.lines - 1:,} of {last.file.path}; run the same command again."
            )
            continue
        for piece in pieces:
            receipt = by_name[piece.name]
            broken = sum(part.damage is not None for part in piece.parts)
            if receipt.checksum != piece.checksum or not piece.lines <= receipt.lines <= piece.lines + broken:
                yield f"{piece.name}: its receipt is for other lines than {slice_list.SLICES} counts."


def _summary_problems(expected: Totals, output: str, run: str) -> Iterator[str]:
    totals = summary.read(output, run)
    if totals is None:
        yield f"{summary.SUMMARY}: is missing or damaged, so the run is unfinished; run the same command again."
        return
    for name in ("slices", "lines", "predicted", "failed", "blank", "failures", "labels"):
        if totals.get(name) != expected.get(name):
            yield f"{summary.SUMMARY}: expected {name} {expected.get(name)} by the receipts, found {totals.get(name)}."

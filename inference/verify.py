"""Checks a run: that every line of the input is accounted for, and every file is what its receipt says.

    python -m inference.verify runs/ai

Prints a line for each problem. Exit codes: 0 all is well, 1 something is not, 2 wrong use.
"""

import hashlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apache_beam.io.filesystems import FileSystems

from inference import command_line, run_folder, sink, storage, summary, tally
from inference.sink import Receipt
from models.errors import exit_code

READERS = 16  # threads: each holds a file


def main(argv: Sequence[str] | None = None) -> int:
    """Checks and prints. Returns 0 all is well, 1 a problem was found, 2 no such run."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> command_line.Parser:
    """The parser of `inference.verify`."""
    parser = command_line.Parser(prog="python -m inference.verify", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    command_line.add_json(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    flags, _, problems = make_parser().parse_with_beam(argv)
    command_line.refuse(problems)
    found = []
    for problem in verify(flags.run):
        found.append(problem)
        if not flags.json:
            print(problem)
    if flags.json:
        command_line.print_json({"run": flags.run, "problems": found})
    elif found:
        print(f"{len(found):,} problems: the same command as before, with the receipts at fault deleted, mends them.")
    else:
        print(f"{flags.run}: every line is accounted for, and every file is what its receipt says.")
    return 1 if found else 0


def verify(output: str) -> Iterator[str]:
    """A sentence for each thing that is not as it should be.

    Raises:
        UserError: the folder holds no run.
    """
    run = run_folder.require(output)
    receipts = []
    for path, receipt in sink.read_receipts(output):
        if receipt is None:
            yield f"{path}: is not what was written; its slice counts as not done."
        else:
            receipts.append(sink.without_histograms(receipt))
    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(lambda receipt: list(_file_problems(receipt, output)), receipts):
            yield from problems
    yield from _unaccounted(run, receipts)
    yield from _summary_problems(receipts, output)


def _file_problems(receipt: Receipt, output: str) -> Iterator[str]:
    """Whether the files that a receipt names are there, unchanged, with as many rows as it says."""
    if receipt.predicted + receipt.failed + receipt.blank != receipt.lines:
        yield f"{receipt.slice}: its receipt does not add up."
    for name, sha256 in receipt.sha256.items():
        path = FileSystems.join(output, name)
        if not FileSystems.exists(path):
            yield f"{path}: is missing."
            continue
        content = storage.read_file(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"{path}: is not what was written; its receipt has another SHA-256."
            continue
        expected = receipt.predicted if name.startswith(sink.PREDICTIONS) else receipt.failed
        if (rows := sink.count_rows(path, content)) != expected:
            yield f"{path}: expected {expected:,} rows as its receipt says, found {rows:,}."


def _unaccounted(run: dict[str, Any], receipts: Sequence[Receipt]) -> Iterator[str]:
    """Whether the slices of each file follow each other, byte by byte and line by line, from beginning to end."""
    by_file = {
        file: list(found)
        for file, found in itertools.groupby(sorted(receipts, key=lambda r: (r.file, r.start)), key=lambda r: r.file)
    }
    for file in run["files"]:
        found = by_file.pop(file["path"], [])
        byte, line = 0, 1
        for receipt in found:
            if (receipt.start, receipt.first_line) != (byte, line):
                yield f"{file['path']}: no receipt for the bytes from {byte:,} to {receipt.start:,}."
            byte, line = receipt.end, receipt.first_line + receipt.lines
        limited = file["max_lines"] is not None
        if limited and line - 1 != file["max_lines"]:
            yield f"{file['path']}: expected {file['max_lines']:,} lines, found receipts for {line - 1:,}."
        elif not limited and sum(receipt.source_bytes for receipt in found) != file["size"]:
            yield f"{file['path']}: no receipt for what follows byte {byte:,}; run the same command again."
    for path in by_file:
        yield f"{path}: has receipts, but is no input of this run."


def _summary_problems(receipts: Sequence[Receipt], output: str) -> Iterator[str]:
    totals = summary.read(output)
    if totals is None:
        yield f"there is no {summary.SUMMARY}: the run has not ended; run the same command again."
        return
    added = tally.add(map(summary.totals_of, receipts))
    for name in ("slices", "lines", "predicted", "failed", "blank", "failures", "labels"):
        if totals.get(name) != added.get(name):
            yield f"{summary.SUMMARY} says {name} {totals.get(name)}, the receipts {added.get(name)}."


if __name__ == "__main__":
    sys.exit(main())

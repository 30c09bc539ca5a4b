"""Compares ways to read the slices of one .gz file; writes results/entry.json.

    pip install indexed_gzip rapidgzip
    python -m benchmarks.scale.entry --data DATA

A run reads a file twice: once to count its lines, and once in slices that different workers read. `copies` is what
labelbeam does: the first reading writes the text of each slice. The others keep an index of places at which the file
can be entered. Papers are repeated until they fill the file. All times are CPU times on one thread.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import indexed_gzip
import orjson
import rapidgzip

from benchmarks import environment
from benchmarks.scale.cases import papers
from inference.corpus import counting, slices
from inference.corpus.counting import Unit
from inference.corpus.files import InputFile

RESULT = Path(__file__).parent / "results" / "entry.json"
MIB = 1024 * 1024
SLICE_BYTES = 8 * MIB
SPACING = 4 * MIB  # bytes of text between two places of an index


def main() -> None:
    """Measure each way on the same file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with arxiv/")
    parser.add_argument("--mib", type=int, default=512, help="size of the text (default: 512)")
    flags = parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "mib": flags.mib, "slice_mib": SLICE_BYTES // MIB, "rows": []}
    result["versions"] |= {"indexed_gzip": indexed_gzip.__version__, "rapidgzip": rapidgzip.__version__}
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "a.jsonl", Path(folder) / "a.jsonl.gz"
        plain.write_bytes(b"".join(_lines(flags.data, flags.mib * MIB)))
        packed.write_bytes(gzip.compress(plain.read_bytes(), 6))
        result["stored_mib"] = packed.stat().st_size // MIB
        for name, measure in WAYS.items():
            row = {"way": name, **measure(plain if name == "plain" else packed, Path(folder))}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _lines(data: Path, most_bytes: int) -> Iterator[bytes]:
    written = 0
    for number, text in enumerate(itertools.cycle(papers(data, "recent.jsonl.xz"))):
        line = orjson.dumps({"id": number, "text": text}) + b"\n"
        written += len(line)
        if written > most_bytes:
            return
        yield line


def _plain(path: Path, folder: Path) -> dict[str, Any]:  # noqa: ARG001
    file = InputFile(str(path), path.stat().st_size)
    units = list(counting.units([file], SLICE_BYTES))
    return _timed(lambda: [part for unit in units for part in counting.count(unit, SLICE_BYTES)], _read_parts)


def _copies(path: Path, folder: Path) -> dict[str, Any]:
    file, copies = InputFile(str(path), path.stat().st_size), folder / "text"
    row = _timed(
        lambda: list(counting.count(Unit((file,)), SLICE_BYTES, str(copies))),
        lambda parts: _read_parts(parts, str(copies)),
    )
    return row | {"kept_mib": round(sum(copy.stat().st_size for copy in copies.iterdir()) / MIB, 1)}


def _read_parts(parts: list[slices.Part], copies: str = "") -> int:
    return sum(line.size + 1 for part in parts for line in slices.read_lines(part, copies))


def _timed(count: Callable[[], Any], read: Callable[[Any], int]) -> dict[str, Any]:
    began = time.process_time()
    counted = count()
    between = time.process_time()
    size = read(counted)
    return {
        "count_seconds": round(between - began, 2),
        "read_seconds": round(time.process_time() - between, 2),
        "text_mib": size // MIB,
    }


def _indexed(opened: Callable[[], Any], index: Path) -> dict[str, Any]:
    """Count lines while the index is built, then enter the file at each slice with an index that was read again."""

    def count() -> int:
        lines, size, digest = 0, 0, hashlib.sha256()
        with opened() as file:
            while chunk := file.read(MIB):
                lines += chunk.count(b"\n")
                size += len(chunk)
                digest.update(chunk)
            file.export_index(str(index))
        return size

    def read(size: int) -> int:
        found = 0
        for start in range(0, size, SLICE_BYTES):
            with opened() as file:
                file.import_index(str(index))
                file.seek(start)
                content = file.read(min(SLICE_BYTES, size - start))
                found += sum(line.size + 1 for line in slices.lines_in(content))
        return found

    return _timed(count, read) | {"kept_mib": round(index.stat().st_size / MIB, 1)}


WAYS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "plain": _plain,
    "copies": _copies,
    "indexed_gzip": lambda path, folder: _indexed(
        lambda: indexed_gzip.IndexedGzipFile(str(path), spacing=SPACING), folder / "a.gzidx"
    ),
    "rapidgzip": lambda path, folder: _indexed(
        lambda: rapidgzip.open(str(path), parallelization=1), folder / "a.rapidgzip"
    ),
}

if __name__ == "__main__":
    main()

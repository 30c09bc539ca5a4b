"""Labels one text in different shapes with a tiny model, and times each; writes results/shapes.json.

    python -m benchmarks.scale.shapes --before COMMIT

A run should cost the same however its text is stored. With --before, an earlier commit labels the same files in turns,
where that does not take hours.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.commits import PROGRAM, clone_of
from tests.tiny import WORDS, tiny_model

RESULT = Path(__file__).parent / "results" / "shapes.json"
WORDS_A_DOCUMENT = 250  # as in an abstract with its title
FILES, LINES = 20_000, 5  # small files, and lines in each
MIB = 1024 * 1024


def main() -> None:
    """Label every shape once with each commit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to time beside this one")
    parser.add_argument("--mib", type=int, default=1024, help="size of the text in one file (default: 1024)")
    parser.add_argument("--before_mib", type=int, default=128, help="the same for the earlier commit (default: 128)")
    flags = parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "before": flags.before, "rows": []}
    with tempfile.TemporaryDirectory() as folder, clone_of(flags.before) as before:
        model = tiny_model(Path(folder) / "tiny")
        clones = {"now": environment.ROOT} | ({"before": before} if before else {})
        for shape, size, corpus in _shapes(Path(folder), flags):
            for name, clone in clones.items():
                if name == "before" and size > flags.before_mib:
                    continue
                row = {"shape": shape, "mib": size, "commit": name, **label(clone, model, corpus, Path(folder))}
                result["rows"].append(row)
                print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _shapes(folder: Path, flags: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Yield the name of each shape, its size in MiB of text, and the glob of its files."""
    for size in sorted({flags.before_mib // 2, flags.before_mib, flags.mib}):
        plain, packed = folder / "a.jsonl", folder / "b.jsonl.gz"
        with plain.open("wb") as file:
            file.writelines(lines(size * MIB))
        yield "one file", size, str(plain)
        with plain.open("rb") as source, gzip.open(packed, "wb", 6) as target:
            while chunk := source.read(MIB):
                target.write(chunk)
        plain.unlink()
        yield "one .gz", size, str(packed)
        packed.unlink()
    whole = list(lines(sys.maxsize, FILES * LINES))
    size = sum(map(len, whole)) // MIB
    plain.write_bytes(b"".join(whole))
    yield f"one file of {FILES * LINES:,} lines", size, str(plain)
    many = folder / "many"
    many.mkdir()
    for number in range(FILES):
        (many / f"{number:06d}.jsonl").write_bytes(b"".join(whole[number * LINES : (number + 1) * LINES]))
    yield f"{FILES:,} files of {LINES} lines", size, str(many / "*.jsonl")


def lines(most_bytes: int, most: int = sys.maxsize) -> Iterator[bytes]:
    """Yield documents until they have this many bytes or lines."""
    chance, written = random.Random(0), 0
    for number in range(most):
        words = chance.choices(WORDS, k=chance.randint(WORDS_A_DOCUMENT // 2, WORDS_A_DOCUMENT * 3 // 2))
        line = json.dumps({"id": f"d{number}", "text": " ".join(words)}).encode() + b"\n"
        written += len(line)
        if written > most_bytes:
            return
        yield line


def label(clone: Path, model: Path, corpus: str, folder: Path) -> dict[str, float]:
    """Label with the code of a clone. Return seconds, seconds of CPU, and peak memory in MiB."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        flags = ["--model", str(model), "--input", corpus, "--output", f"{output}/run", "--quiet"]
        command = [sys.executable, "-c", PROGRAM, str(clone), "inference.beam_runner", *flags]
        began, cpu = time.monotonic(), os.times()
        memory = environment.peak_memory(command, cwd=clone, stdout=subprocess.DEVNULL)
        used = os.times()
        seconds = time.monotonic() - began
        return {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(_children(used) - _children(cpu), 1),
            "peak_mib": memory,
        }


def _children(times: Sequence[float]) -> float:
    return times[2] + times[3]


if __name__ == "__main__":
    main()

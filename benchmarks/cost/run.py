"""Compares what estimate_cost says a run takes here with what the whole run takes, on five corpora.

    python -m benchmarks.cost.run --data_dir data --model models/trained/demo --second models/trained/other

DATA_DIR holds arxiv/recent.jsonl.xz and goemotions/train.tsv; results/cost.json is written.
"""

import argparse
import gzip
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import environment
from inference.corpus.files import find_files
from inference.corpus.slices import all_lines

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str]


def main() -> None:
    """Make the corpora, estimate and run each, and write both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--second", required=True, help="a second model, for the corpus that two models label")
    parser.add_argument("--papers", type=int, default=2_000, help="of the long corpus; the others are made to match")
    flags = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="cost_") as folder:
        for name, (files, models) in corpora(Path(folder), flags).items():
            found[name] = compare(files, models, Path(folder) / f"run_{name}")
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost.json").write_text(json.dumps({**environment.describe(), "found": found}, indent=1) + "\n")


def corpora(folder: Path, flags: argparse.Namespace) -> dict[str, tuple[list[Path], list[str]]]:
    """Return the files and models of each corpus."""
    long = list(papers(flags.data_dir / "arxiv/recent.jsonl.xz", flags.papers))
    short = list(
        itertools.islice(itertools.cycle(comments(flags.data_dir / "goemotions/train.tsv")), flags.papers * 10)
    )
    short = [
        {**row, "id": f"{row['id']}_{number}", "text": f"{row['text']} {number}"} for number, row in enumerate(short)
    ]
    mixed = [*long[: flags.papers // 2], *short[: flags.papers * 5]]
    random.Random(0).shuffle(mixed)
    return {
        "short": ([write(folder / "short.jsonl", short)], [flags.model]),
        "long": ([write(folder / "long.jsonl", long)], [flags.model]),
        "mixed": ([write(folder / "mixed.jsonl", mixed)], [flags.model]),
        "compressed": (
            [write(folder / f"part{i}.jsonl.gz", mixed[i::3]) for i in range(3)],
            [flags.model],
        ),
        "two models": ([write(folder / "two.jsonl", mixed[: len(mixed) // 2])], [flags.model, flags.second]),
    }


def papers(path: Path, count: int) -> Iterator[Row]:
    """Return title and abstract."""
    for line in itertools.islice(all_lines(find_files([str(path)])[0]), count):
        paper = json.loads(line.data)
        yield {"id": paper["id"], "text": f"{paper['title']}\n{paper['abstract']}"}


def comments(path: Path) -> list[Row]:
    """Return short texts."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [{"id": f"c{number}", "text": row[0]} for number, row in enumerate(rows)]


def write(path: Path, rows: list[Row]) -> Path:
    """Write JSON lines, compressed if the name says so."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def compare(files: list[Path], models: list[str], output: Path) -> dict[str, Any]:
    """Return seconds: estimated before the run, measured from its start to its end, and estimated after it.

    The second estimate shows how far the machine itself drifts meanwhile.
    """
    common = [part for model in models for part in ("--model", model)]
    common += [part for file in files for part in ("--input", str(file))] + ["--text_fields", "text"]
    before = estimate(common)
    began = time.perf_counter()
    command = [sys.executable, "-m", "inference.beam_runner", *common, "--output", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=environment.ROOT)
    measured = time.perf_counter() - began
    after = estimate(common)
    return {
        "documents": before["corpus"]["documents"],
        "estimated": [round(said["seconds_here"]["value"], 1) for said in (before, after)],
        "measured": round(measured, 1),
        "off": [round(said["seconds_here"]["value"] / measured - 1, 3) for said in (before, after)],
    }


def estimate(flags: list[str]) -> dict[str, Any]:
    """Return the output of estimate_cost."""
    command = [sys.executable, "-m", "inference.estimate_cost", *flags, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, cwd=environment.ROOT)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


if __name__ == "__main__":
    main()

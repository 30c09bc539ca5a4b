"""Fuzzes the line parser and every cleaning step, guided by coverage (atheris, which is libFuzzer).

    pip install atheris==3.0.0
    python -m benchmarks.faults.fuzz --runs 1000000

For any bytes at all: every line ends as a document, a failure or a blank, and what was read can be written.
Writes results/fuzz.json; exits 1 and leaves the bytes in a file crash-<SHA-1> where that does not hold.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks import environment

RESULTS = Path(__file__).parent / "results"
SEEDS = (
    b'{"id": "a", "text": "The $x^2$ of a@b.org &amp; http://c.de @user \\u00e9", "kept": [1, {"a": null}]}',
    b'{"id": 12345678901234567890, "text": "a\\tb", "kept": 1e999}\n{"id": null}\n\n[1]\n{"text": "\\ud800"}\n\xff\xfe',
)
STATS = ("number_of_executed_units", "average_exec_per_sec", "peak_rss_mb")


def main() -> None:
    """Fuzz in a process of its own, because libFuzzer ends the process that it runs in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as corpus:
        for number, seed in enumerate(SEEDS):
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [f"-runs={flags.runs}", f"-seed={flags.seed}", "-max_len=2048", "-print_final_stats=1"]
        code = "from benchmarks.faults import fuzz; fuzz.target()"
        command = [sys.executable, "-c", code, *options, corpus]
        done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4_000:])
    found = {name: int(re.findall(rf"stat::{name}:\s+(\d+)", done.stderr)[-1]) for name in STATS}
    found["coverage_edges"] = int(re.findall(r"cov: (\d+)", done.stderr)[-1])
    versions = {"atheris": metadata.version("atheris")}
    result = {**environment.describe(), "seed": flags.seed, **versions, **found}
    (RESULTS / "fuzz.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found))


def target() -> None:
    """Fuzz in this process."""
    import atheris

    with atheris.instrument_imports(include=["inference.corpus.records", "inference.corpus.slices", "models.text"]):
        import orjson

        from inference.corpus import records, slices
        from models.text import CLEANING_STEPS, TextRecipe

    reading = records.DocumentRecipe((TextRecipe(cleaning=tuple(CLEANING_STEPS)),), keep_fields=("kept",))

    def check(content: bytes) -> None:
        read = records.read_documents(slices.lines_in(content), "fuzz.jsonl", reading)
        assert read.lines == len(read.documents) + len(read.failures) + read.blank
        assert read.lines in (content.count(b"\n"), content.count(b"\n") + 1)
        for document in read.documents:
            orjson.dumps([document.id, document.texts, document.kept_fields])
        for failure in read.failures:
            orjson.dumps(failure.row())

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

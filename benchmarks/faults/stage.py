"""Holds what every scenario needs: models, a corpus, runs in processes of their own, and the comparison at the end."""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import environment
from benchmarks.faults.emulator import BUCKET
from inference.corpus import storage
from inference.runs import integrity, receipts, run_folder, summary
from inference.runs.receipts import RECEIPTS, Receipt
from tests.tiny import WORDS, tiny_model

RESULTS = Path(__file__).parent / "results"
WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
WORKER = "apache_beam.runners.worker.sdk_worker_main"
POLL_SECONDS = 0.02
PATIENCE = 1800  # seconds after which a command counts as hung
STRAY = ("belongs to no receipt of this run; delete it.", "is no receipt of this run; delete it.")
OWN = ("run", "seconds", "scoring_seconds")  # keys of a summary that differ between equal runs


@dataclass
class Launched:
    """A command in its own process group, with what it said."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Return whether it has ended."""
        return self.process.poll() is not None

    def wait(self) -> int:
        """Return the exit code.

        Raises:
            TimeoutExpired: it hangs.
        """
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        """Return its messages."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """Return the ids of its worker processes, also after its end."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                command = process.info["cmdline"] or []
                if WORKER in command[:3] and os.getpgid(process.pid) == self.process.pid:
                    found.append(process.pid)
        return found

    def kill(self) -> None:
        """Kill every process of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Stage:
    """A working folder with a corpus and two models of the same name and the same labels."""

    work: Path
    corpus: str  # glob of the input
    slice_mb: float
    flags: tuple[str, ...] = ("--max_failure_rate=0.1",)  # of every run
    models: list[Path] = field(default_factory=list)
    launches: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Make the models."""
        self.models = [tiny_model(self.work / f"model{seed}" / "colours", seed=seed) for seed in (0, 1)]

    def upload(self) -> None:
        """Move the corpus into the emulator of Cloud Storage."""
        for path in sorted(Path(self.corpus).parent.glob(Path(self.corpus).name)):
            storage.write_file(f"gs://{BUCKET}/corpus/{path.name}", path.read_bytes())
        self.corpus = f"gs://{BUCKET}/corpus/*.jsonl"

    def start(self, output: str, *more: str, model: int = 0, faults: dict[str, Any] | None = None) -> Launched:
        """Start a run that labels the corpus in a process of its own, under the faults of `launcher`."""
        command = [sys.executable, "-m", "benchmarks.faults.launcher", json.dumps(faults or {})]
        command += ["--model", str(self.models[model]), "--input", self.corpus, "--output", output]
        command += ["--slice_mb", str(self.slice_mb), "--runtime=torch", "--precision=fp32", "--threads=1"]
        log = self.work / f"log{next(self.launches)}"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, *self.flags, *more],
                cwd=environment.ROOT,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        return Launched(process, log)

    def finish(self, output: str, *more: str, model: int = 0) -> str:
        """Run to the end, which must be good, and return the output."""
        launched = self.start(output, *more, model=model)
        if code := launched.wait():
            raise RuntimeError(f"a run that nobody disturbed ended with {code}: {launched.said()[-2000:]}")
        return output


def write_corpus(path: Path, documents: int, first: int = 0, words: tuple[int, int] = (4, 20)) -> Path:
    """Write documents of random words; one line in 500 is no JSON, so that there are failures."""
    chance = random.Random(first)
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + documents):
            text = " ".join(chance.choices(WORDS, k=chance.randint(*words)))
            file.write("broken\n" if number % 500 == 99 else json.dumps({"id": f"d{number}", "text": text}) + "\n")
    return path


def finished(output: str) -> int:
    """Return the number of receipts of any run in the folder."""
    return sum(name.endswith(".json") for name in storage.listing(f"{output}/{RECEIPTS}"))


def wait_for(output: str, count: int, launched: Launched) -> bool:
    """Wait until the folder has so many receipts. Return False if the command ended before."""
    while finished(output) < count:
        if launched.ended:
            return False
        if time.monotonic() - launched.began > PATIENCE:
            raise TimeoutError(f"{output} has {finished(output)} of {count} receipts: {launched.said()[-2000:]}")
        time.sleep(POLL_SECONDS * (10 if storage.is_remote(output) else 1))
    return not launched.ended


def by_slice(output: str) -> dict[int, Receipt]:
    """Return the receipts of the run in a folder, by the number of the slice."""
    run = run_folder.require(output)["run"]
    found = (receipt for _, receipt in receipts.read_all(output, run) if receipt)
    return {receipt.number: receipt.small() for receipt in found}


def lines(receipt: Receipt | None, output: str) -> list[bytes]:
    """Return the rows of a slice, with ids, labels and scores, and its failures."""
    paths = sorted((p for p in receipt.sha256 if p.endswith("l")), reverse=True) if receipt else []
    return [line for path in paths for line in storage.read_file(f"{output}/{path}").splitlines()]


def compare(output: str, undisturbed: str) -> dict[str, Any]:
    """Compare a run with an undisturbed one row by row, and verify it."""
    ours, theirs = by_slice(output), by_slice(undisturbed)
    wrong = rows = 0
    for key in sorted(ours.keys() | theirs.keys()):
        pairs = list(itertools.zip_longest(lines(ours.get(key), output), lines(theirs.get(key), undisturbed)))
        rows += len(pairs)
        wrong += sum(one != other for one, other in pairs)
    problems = list(integrity.verify(output))
    strays = [problem for problem in problems if problem.endswith(STRAY)]
    same = totals(output) == totals(undisturbed)
    return {
        "rows": rows,
        "rows_that_differ": wrong,
        "problems": sorted(set(problems) - set(strays)),
        "stray_files": len(strays),
        "summary_is_equal": same,
    }


def totals(output: str) -> dict[str, Any]:
    """Return a run's summary without its identity and its times."""
    found = summary.read(output, run_folder.require(output)["run"]) or {}
    return {name: value for name, value in found.items() if name not in OWN}


def is_right(row: dict[str, Any]) -> bool:
    """Return whether a comparison found the run to be that of the undisturbed one."""
    return not row["rows_that_differ"] and not row["problems"] and row["summary_is_equal"]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of every scenario."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--smoke", action="store_true", help="a minute's version, which writes no result file")
    found.add_argument("--seed", type=int, default=0)
    found.set_defaults(described=environment.describe())  # now, because the clone may change while a scenario runs
    return found


def save(name: str, flags: argparse.Namespace, rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write a result file, and exit with 1 if a row is wrong."""
    wrong = [row for row in rows if row.get("wrong")]
    result = {**flags.described, **more, "tries": len(rows), "wrong": len(wrong), "rows": rows}
    if not flags.smoke:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {len(rows)} tries, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)

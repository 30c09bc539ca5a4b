"""Lets another run take the folder of a run that was killed or stopped, and compares what is in it at the end.

    python -m benchmarks.faults.takeovers zombies      # a killed command leaves its workers alive
    python -m benchmarks.faults.takeovers leases       # a command stands still for longer than its lease
    python -m benchmarks.faults.takeovers clocks       # the clocks of two machines differ by hours

Two models have the same name and the same labels. Leases lie in an emulator of Cloud Storage. Writes a result file
each.
"""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import emulator, stage
from benchmarks.faults.emulator import BUCKET, NO_AUTH
from benchmarks.faults.stage import Launched, Stage
from inference.corpus import lease, storage
from inference.runs.lock import LOCK

Row = dict[str, Any]
DOCUMENTS = 14_000
LEASE_SECONDS = 3.0
SLOW = {"lease_seconds": LEASE_SECONDS, "batch_seconds": 0.1}
LOST = ("another run has taken this folder", "belongs to another run by now")
HOURS = 3600.0
CLOCKS = ((5, -5), (-5, 5), (0, 24), (24, 0))  # hours by which the clocks of two machines are ahead


def zombies(own: Stage, chance: random.Random, tries: int) -> list[Row]:
    """Kill a command, leave its workers alive, and at once start another model in the same folder."""
    undisturbed = own.finish(f"{own.work}/undisturbed", model=1)
    rows = []
    for number in range(tries):
        output = f"{own.work}/run{number}"
        first = own.start(output, *stage.WORKERS, model=0)
        hit = stage.wait_for(output, chance.randint(1, 6), first)
        time.sleep(chance.uniform(0, 0.5))
        orphans = len(first.workers())
        os.kill(first.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        second = own.start(output, "--overwrite", *(stage.WORKERS if number % 2 else ()), model=1)
        seconds = None
        while not second.ended or seconds is None:
            if seconds is None and not first.workers():
                seconds = round(time.monotonic() - killed, 1)
            if time.monotonic() - killed > stage.PATIENCE:
                break
            time.sleep(stage.POLL_SECONDS * 5)
        row = {"orphans": orphans, "seconds_of_orphans": seconds, "exit": second.wait()}
        first.kill()
        row |= stage.compare(output, undisturbed)
        rows.append({**row, "wrong": not (hit and orphans and seconds is not None and is_done(row))})
        print(rows[-1], flush=True)
    return rows


def is_done(row: Row) -> bool:
    """Return whether a run ended well with the rows that it should have."""
    return row["exit"] == 0 and stage.is_right(row)


def leases(own: Stage, chance: random.Random, tries: int) -> list[Row]:
    """Stop a command for longer than its lease, let another one take the folder, and let the first one go on."""
    undisturbed = [own.finish(f"gs://{BUCKET}/undisturbed{model}", model=model) for model in (0, 1)]
    rows = []
    for number in range(tries):
        seconds = lease.LEASE_SECONDS if number == tries - 1 > 0 else LEASE_SECONDS  # one try with the real one
        alone, overwrite = number % 4 < 2, number % 2 == 1
        output = f"gs://{BUCKET}/lease{number}"
        faults = {**SLOW, "lease_seconds": seconds}
        first = own.start(output, *(stage.WORKERS if alone else ()), faults=faults)
        hit = stage.wait_for(output, chance.randint(1, 4), first)
        send(first, signal.SIGSTOP, alone)
        time.sleep(seconds + 1)
        second = own.start(output, *(("--overwrite",) if overwrite else ()), model=int(overwrite), faults=faults)
        while owner(output) != second.process.pid and not second.ended:
            time.sleep(stage.POLL_SECONDS)
        if during := chance.random() < 0.7:
            time.sleep(chance.uniform(0, 3))
        else:
            second.wait()
        send(first, signal.SIGCONT, alone)
        went_on = time.monotonic()
        row = {
            "lease_seconds": seconds,
            "stopped": "the command alone" if alone else "the command, which computes by itself",
            "second": "another model" if overwrite else "the same command",
            "went_on": "during the second run" if during else "after the second run",
            "first_exit": first.wait(),
            "first_ended_after": round(time.monotonic() - went_on, 1),
            "said_so": any(sentence in first.said() for sentence in LOST),
            "exit": second.wait(),
            **stage.compare(output, undisturbed[overwrite]),
        }
        rows.append({**row, "wrong": not (hit and row["first_exit"] == 1 and row["said_so"] and is_done(row))})
        print(rows[-1], flush=True)
    return rows


def send(launched: Launched, number: signal.Signals, alone: bool) -> None:
    """Send a signal to the command alone, or to its workers too."""
    if alone:
        os.kill(launched.process.pid, number)
    else:
        os.killpg(launched.process.pid, number)


def owner(output: str) -> int | None:
    """Return the process that holds the lease of a folder."""
    with contextlib.suppress(Exception):  # there may be no lease at this moment
        return int(json.loads(storage.read_file(f"{output}/{LOCK}"))["owner"].rpartition(":")[2])
    return None


def clocks(own: Stage, _chance: random.Random, tries: int) -> list[Row]:
    """Start a second command beside a live one, and again after the first was killed, with other clocks."""
    undisturbed = own.finish(f"gs://{BUCKET}/undisturbed")
    rows = []
    for number in range(tries):
        output, hours = f"gs://{BUCKET}/clock{number}", CLOCKS[number % len(CLOCKS)]
        ahead = [{**SLOW, "batch_seconds": 1.0, "clock": hour * HOURS} for hour in hours]  # a slow first one
        first = own.start(output, faults=ahead[0])
        hit = stage.wait_for(output, 1, first)
        time.sleep(2 * LEASE_SECONDS)
        refused = own.start(output, faults=ahead[1])
        refused_exit = refused.wait()
        held = not first.ended and owner(output) == first.process.pid
        first.kill()
        time.sleep(LEASE_SECONDS + 1)
        second = own.start(output, faults={**ahead[1], "batch_seconds": 0})
        row = {
            "hours_ahead": hours,
            "beside_a_live_one": refused_exit,
            "said_so": "is at work here" in refused.said(),
            "the_live_one_kept_it": held,
            "exit": second.wait(),
            **stage.compare(output, undisturbed),
        }
        rows.append({**row, "wrong": not (hit and held and refused_exit == 2 and row["said_so"] and is_done(row))})
        print(rows[-1], flush=True)
    return rows


SCENARIOS: dict[str, tuple[Callable[[Stage, random.Random, int], list[Row]], int]] = {
    "zombies": (zombies, 10),
    "leases": (leases, 9),
    "clocks": (clocks, 4),
}


def main() -> None:
    """Run one scenario."""
    parser = stage.parser(__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    flags = parser.parse_args()
    scenario, tries = SCENARIOS[flags.scenario]
    with tempfile.TemporaryDirectory(prefix="takeovers_") as folder, contextlib.ExitStack() as stack:
        corpus = str(stage.write_corpus(Path(folder, "corpus.jsonl"), DOCUMENTS))
        own = Stage(Path(folder), corpus, 0.05)
        if flags.scenario != "zombies":
            stack.enter_context(emulator.running())
            own.upload()
            own.flags += (NO_AUTH,)
        rows = scenario(own, random.Random(flags.seed), 1 if flags.smoke else tries)
    stage.save(flags.scenario, flags, rows)


if __name__ == "__main__":
    main()

"""Labels a corpus on a bad device, and on a bad storage, and compares what a resume makes of it.

    python -m benchmarks.faults.outages devices      # the network raises, or gives NaN or wrong numbers
    python -m benchmarks.faults.outages storages     # the storage is late, loses answers, or is unavailable

Writes a result file each.
"""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import emulator, stage
from benchmarks.faults.emulator import BUCKET, NO_AUTH, Cloud
from benchmarks.faults.stage import Stage

Row = dict[str, Any]
DOCUMENTS, SLICE_MB = 14_000, 0.1
BATCHES = 100  # batches of the whole corpus, about
PASSING = "wrong, for 2 batches"  # the device is good again before it is asked
DEVICES = ("raises", "nan", "wrong")
LASTING = 20  # tries with a device that stays bad; the further ones are of PASSING
ATTEMPTS = 5  # commands that a whole run may take


def devices(folder: Path, chance: random.Random, tries: int) -> list[Row]:
    """Break the device at a random batch, look at what is sealed, and resume on a good one."""
    own = Stage(folder, str(stage.write_corpus(folder / "corpus.jsonl", DOCUMENTS)), SLICE_MB)
    undisturbed = own.finish(f"{folder}/undisturbed")
    rows = []
    for number in range(tries):
        output, kind, first = (
            f"{folder}/run{number}",
            DEVICES[number % len(DEVICES)] if number < LASTING else PASSING,
            chance.randrange(2, BATCHES),
        )
        device = {"kind": kind.split(",")[0], "first": first}
        broken = own.start(output, faults={"device": device | ({"last": first + 1} if kind == PASSING else {})})
        row = {"device": kind, "batch": first, "exit": broken.wait(), **sealed(output, undisturbed)}
        detected = row["exit"] == 1 and "the device or the model failed" in broken.said()
        row = {"detected": detected, **row, "exit_of_resume": own.start(output).wait()}
        row |= stage.compare(output, undisturbed)
        good = detected and not row["sealed_as_model_failed"] and not row["sealed_rows_that_differ"]
        rows.append({**row, "wrong": not (good and row["exit_of_resume"] == 0 and stage.is_right(row))})
        print(rows[-1], flush=True)
    return rows


def sealed(output: str, undisturbed: str) -> Row:
    """Return what a run that stopped has in its finished slices."""
    ours, theirs = stage.by_slice(output), stage.by_slice(undisturbed)
    pairs = [
        pair
        for key, receipt in ours.items()
        for pair in zip(stage.lines(receipt, output), stage.lines(theirs[key], undisturbed), strict=True)
    ]
    return {
        "sealed_slices": len(ours),
        "sealed_as_model_failed": sum(receipt.failures.get("model_failed", 0) for receipt in ours.values()),
        "sealed_rows_that_differ": sum(one != other for one, other in pairs),
    }


def storages(folder: Path, _chance: random.Random, tries: int) -> list[Row]:
    """Label with a bad storage, with as many resumes as that takes."""
    own = Stage(folder, str(stage.write_corpus(folder / "corpus.jsonl", DOCUMENTS)), SLICE_MB)
    with emulator.running() as cloud:
        own.upload()
        own.flags += (NO_AUTH,)
        undisturbed = own.finish(f"gs://{BUCKET}/undisturbed")
        names = [name for name in emulator.FAULTS if name != "none"]
        return [through(own, cloud, names[number % len(names)], number, undisturbed) for number in range(tries)]


def through(own: Stage, cloud: Cloud, fault: str, number: int, undisturbed: str) -> Row:
    """Label the corpus under one fault, and compare after the storage is good again."""
    output, workers, began = f"gs://{BUCKET}/run{number}", number % 2 == 1, time.monotonic()
    exits: list[int] = []
    cloud.fault(fault)
    while len(exits) < ATTEMPTS and exits[-1:] != [0]:
        exits.append(own.start(output, *(stage.WORKERS if workers else ()), faults={"lease_seconds": 3}).wait())
        if exits[-1]:
            time.sleep(4)  # a lease that could not be released runs out
    hit = cloud.fault("none")
    row = {"storage": fault, "workers": workers, "requests_hit": hit, "exits": exits}
    row |= {"seconds": round(time.monotonic() - began, 1), **stage.compare(output, undisturbed)}
    print(row, flush=True)
    return {**row, "wrong": exits[-1] != 0 or not stage.is_right(row)}


SCENARIOS: dict[str, tuple[Callable[[Path, random.Random, int], list[Row]], int]] = {
    "devices": (devices, 25),
    "storages": (storages, 6),
}


def main() -> None:
    """Run one scenario."""
    parser = stage.parser(__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    flags = parser.parse_args()
    scenario, tries = SCENARIOS[flags.scenario]
    with tempfile.TemporaryDirectory(prefix="outages_") as folder:
        rows = scenario(Path(folder), random.Random(flags.seed), 1 if flags.smoke else tries)
    stage.save(flags.scenario, flags, rows)


if __name__ == "__main__":
    main()

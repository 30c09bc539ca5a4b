"""Labels a million documents in an emulator of Cloud Storage while everything happens to the commands at once.

    python -m benchmarks.faults.drill

Two worker processes label. They are killed, the command is killed and started again, a second command starts beside it,
and a command stands still until it has lost its lease. In the end every row is compared with an undisturbed run of the
same million. Writes results/drill.json.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults import emulator, stage
from benchmarks.faults.emulator import BUCKET, NO_AUTH
from benchmarks.faults.stage import Launched, Stage
from benchmarks.faults.takeovers import LOST, owner

LEASE_SECONDS = 10.0
FILES = 50
GRACE = 60  # seconds in which a command may notice that its worker is dead


@dataclass
class Drill:
    """A run that is disturbed, and the command that is at work."""

    own: Stage
    output: str
    slices: int
    launched: Launched
    log: list[dict[str, Any]] = field(default_factory=list)

    def note(self, event: str, right: bool, **more: Any) -> None:
        """Write an event down."""
        found = {"event": event, "after_slices": stage.finished(self.output), **more, "wrong": not right}
        self.log.append(found)
        print(found, flush=True)

    def begin(self) -> None:
        """Start the command again, as often as it is refused because the lease of a dead one still counts."""
        refused = 0
        while True:
            self.launched = start(self.own, self.output)
            while owner(self.output) != self.launched.process.pid and not self.launched.ended:
                time.sleep(0.1)
            if not self.launched.ended:
                break
            if self.launched.wait() != 2:
                raise RuntimeError(self.launched.said()[-2000:])
            refused += 1
        self.note("the command is started again", True, refused_before=refused)

    def kill_a_worker(self) -> None:
        """Kill one of the two workers, and start again once the command has ended."""
        os.kill(self.launched.workers()[0], signal.SIGKILL)
        deadline = time.monotonic() + GRACE
        while not self.launched.ended and time.monotonic() < deadline:
            time.sleep(0.1)
        exit_code = self.launched.process.poll()
        self.note("a worker is killed", exit_code != 0, exit_of_command=exit_code)
        self.launched.kill()
        self.begin()

    def kill_the_command(self) -> None:
        """Kill the command, leave its workers alive, and start again at once."""
        os.kill(self.launched.process.pid, signal.SIGKILL)
        self.note("the command is killed, its workers are not", True)
        self.begin()

    def start_a_second(self) -> None:
        """Start the same command beside the one that is at work."""
        second = start(self.own, self.output)
        right = second.wait() == 2 and "is at work here" in second.said() and not self.launched.ended
        self.note("a second command starts beside it", right, exit_of_second=second.wait())

    def stop_the_command(self) -> None:
        """Stop the command until it has lost its lease to another, and let it go on."""
        first = self.launched
        os.kill(first.process.pid, signal.SIGSTOP)
        self.note("the command stands still", True)
        time.sleep(LEASE_SECONDS + 1)
        self.begin()
        os.kill(first.process.pid, signal.SIGCONT)
        began = time.monotonic()
        code = first.wait()
        right = code == 1 and any(sentence in first.said() for sentence in LOST)
        self.note("it goes on and finds its lease lost", right, exit=code, seconds=round(time.monotonic() - began, 1))


EVENTS: tuple[tuple[float, Callable[[Drill], None]], ...] = (  # by the share of finished slices
    (0.05, Drill.kill_a_worker),
    (0.2, Drill.kill_the_command),
    (0.3, Drill.start_a_second),
    (0.4, Drill.kill_a_worker),
    (0.55, Drill.stop_the_command),
    (0.7, Drill.kill_the_command),
    (0.85, Drill.kill_a_worker),
)


def start(own: Stage, output: str) -> Launched:
    """Start the command with two workers and a short lease."""
    return own.start(output, *stage.WORKERS, faults={"lease_seconds": LEASE_SECONDS})


def main() -> None:
    """Run the drill."""
    parser = stage.parser(__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    flags = parser.parse_args()
    documents = 20_000 if flags.smoke else flags.documents
    with tempfile.TemporaryDirectory(prefix="drill_") as folder, emulator.running():
        (Path(folder) / "corpus").mkdir()
        each = documents // FILES
        for number in range(FILES):
            stage.write_corpus(Path(folder, "corpus", f"{number:02}.jsonl"), each, number * each, words=(3, 10))
        size = sum(path.stat().st_size for path in Path(folder, "corpus").iterdir())
        own = Stage(Path(folder), f"{folder}/corpus/*.jsonl", round(size / 2**20 / 550, 5))
        own.upload()
        own.flags += (NO_AUTH,)
        began = time.monotonic()
        undisturbed = own.finish(f"gs://{BUCKET}/undisturbed", *stage.WORKERS)
        seconds = [round(time.monotonic() - began)]
        slices = stage.finished(undisturbed)
        print(f"undisturbed: {slices} slices in {seconds[0]} s", flush=True)
        began = time.monotonic()
        drill = run(own, slices, random.Random(flags.seed))
        seconds.append(round(time.monotonic() - began))
        row = {"exit": drill.launched.process.poll(), **stage.compare(drill.output, undisturbed)}
    print(row, flush=True)
    rows = [*drill.log, {**row, "wrong": row["exit"] != 0 or not stage.is_right(row)}]
    stage.save("drill", flags, rows, documents=documents, slices=slices, seconds=seconds)


def run(own: Stage, slices: int, chance: random.Random) -> Drill:
    """Label under all events, each at a random moment after its share of the slices."""
    output = f"gs://{BUCKET}/drill"
    drill = Drill(own, output, slices, start(own, output))
    for share, event in EVENTS:
        if not stage.wait_for(output, int(share * slices) + chance.randint(0, slices // 50), drill.launched):
            raise RuntimeError(f"the command ended before its time: {drill.launched.said()[-2000:]}")
        event(drill)
    drill.launched.wait()
    return drill


if __name__ == "__main__":
    main()

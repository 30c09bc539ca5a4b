"""Label a corpus as one of many tasks.

python -m inference.worker --model models/trained/demo --input data/demo/corpus.jsonl --output runs/demo
"""

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from inference.beam_runner import make_parser
from models import imports, secrets
from models.arguments import refuse
from models.errors import UserError, exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from inference.checks import CheckedRun
    from inference.runs.receipts import Receipt

PROG = "python -m inference.worker"
DESCRIPTION = f"""\
Label a corpus as one of many tasks that share the folder of a run, on one machine or on many.

  {PROG} --model models/trained/ai --input 'corpus/*.jsonl.gz' --output runs/ai

Type the same command on each machine, or as each task of a job array. Tasks may start at any time. If one dies, the
others label its slices. The task that finds every slice labelled writes the summary.
"""
EPILOG = """\
The flags are those of inference.beam_runner, without those for engines and Dataflow. Of Beam's own flags, tasks use
those of a storage, and ignore the rest.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but too much failed: more than --max_failure_rate, or a damaged file.
"""
REFUSED = (
    *("overwrite", "retry_failures", "plan", "max_cost", "profile", "prices", "accelerator", "no_wait"),
    "resubmit",
)
ENDING_SECONDS = 10.0  # time in which a task that was told to stop ignores that it is told again
STOPPED = "Finished slices are kept, and other tasks go on: the same command joins them again."
LINE_SECONDS = 10.0  # between two lines about this task's progress


def main(argv: Sequence[str] | None = None) -> int:
    """Label until the run is finished. Return 0 when done, 1 after a failure, 2 after wrong use, 3 as beam_runner."""
    return exit_code(lambda: _main(list(sys.argv[1:] if argv is None else argv)), STOPPED)


def _main(argv: list[str]) -> int:
    for signum in (signal.SIGTERM, signal.SIGINT):  # a cluster's scheduler stops a task by the first
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _interrupt)
    parser = make_parser(PROG, DESCRIPTION, EPILOG)
    flags, beam_flags = parser.parse_with_beam(argv)
    given = [f"--{name}" for name in REFUSED if getattr(flags, name) != parser.get_default(name)]
    given += [name for flag in beam_flags if re.match("--(runner$|direct_)", name := flag.partition("=")[0])]
    refuse([f"{', '.join(given)}: tasks have no use for it; drop it, or use inference.beam_runner."] if given else [])
    with imports.quick():  # Beam takes more than a second to load, which a wrong flag should not have to wait for
        from inference import checks

    return work(checks.check(flags, beam_flags, secrets.command(PROG, argv)))


def _interrupt(*_: object) -> None:
    """Stop this task. Ignore what a scheduler or an impatient person sends next, while the task is ending."""
    until = time.monotonic() + ENDING_SECONDS

    def again(*_: object) -> None:
        if time.monotonic() > until:  # it does not end by itself
            os._exit(1)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, again)
    raise KeyboardInterrupt


def work(checked: "CheckedRun") -> int:
    """Label slices until the run is finished, and return the exit code.

    Raises:
        UserError: another command is at work in the folder, or the folder cannot be written.
    """
    from inference import execute, logs, submission
    from inference.runs import run_folder
    from models.console import PlainConsole

    logs.set_up(checked.verbosity)
    console = PlainConsole(stderr=checked.json, quiet=checked.verbosity == "quiet")
    progress = _Progress(console, verbose=checked.verbosity == "verbose")
    _, is_active = execute.job_of(checked)
    with run_folder.join(checked.options, checked.description, is_active) as options:
        checked = replace(checked, options=options)
        try:
            wrote = _label(checked, progress)
        except Exception as error:  # each storage raises its own errors
            message = str(error) if isinstance(error, UserError) else f"{error}\n{type(error).__name__}."
            return submission.failed(message, checked, can_resume=not isinstance(error, run_folder.RunLost))
        if not wrote:
            console.print("another task has written the summary and draws the report", soft_wrap=True)
        return execute.conclude(checked, progress.documents, progress.seconds, console, draw=wrote)


def _label(checked: "CheckedRun", progress: "_Progress") -> bool:
    """Label slices until the run is finished. Return whether this task has written the summary."""
    from inference.runs import summary, tasks

    if summary.read(checked.options.output, checked.options.run) is not None:
        return False
    with tasks.Task(checked.options) as task:
        all_slices = task.slices(checked.files)
        while True:
            tasks.score(task, all_slices, progress.add)
            try:
                return task.summarise(all_slices)
            except summary.DamagedReceipts as error:
                progress.show(f"{error} Their slices are labelled again.")


class _Progress:
    """Counts what this task has done, and prints a line now and then, or for each slice if it is verbose."""

    def __init__(self, console: "Console", *, verbose: bool) -> None:
        self.documents = self._slices = 0
        self._console = console
        self._wait = 0.0 if verbose else LINE_SECONDS
        self._began = self._printed = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds since this task began."""
        return time.monotonic() - self._began

    def add(self, receipt: "Receipt") -> None:
        """Count a slice."""
        self._slices += 1
        self.documents += receipt.predicted + receipt.failed
        if time.monotonic() - self._printed >= self._wait:
            self._printed = time.monotonic()
            self.show(
                f"this task: {self._slices:,} slices, {self.documents:,} documents, "
                f"{self.documents / self.seconds:.1f} docs/s"
            )

    def show(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

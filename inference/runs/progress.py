"""Shows the progress of a run on any runner, by listing the receipts of finished slices."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from inference.corpus.slices import Slice
from inference.runs import receipts, slice_list
from inference.runs.options import RunOptions
from inference.runs.receipts import path_of
from models.names import for_terminal

Verbosity = Literal["quiet", "normal", "verbose"]

POLL_SECONDS = 2.0
LINE_SECONDS = 10.0
REST = 10.0  # a look at the storage waits for so many times as long as the one before has taken
SAMPLE = 100  # receipts of earlier slices that are read for their runtimes


class ProgressWatcher:
    """A context manager that shows progress while its body runs: a bar on a terminal, or else a line every 10 s.

    It lists the receipts and reads none of them, so that it keeps up with fast runs and large ones. If it is verbose,
    it also prints a line for each slice that is finished meanwhile. If it is quiet, it only counts.
    """

    def __init__(self, options: RunOptions, verbosity: Verbosity = "normal") -> None:
        self._options = options
        self._verbosity = verbosity
        self._slices: dict[str, Slice] = {}  # all slices by name, once they are known
        self._finished: set[str] = set()
        self._earlier: set[str] = set()  # slices finished before this attempt
        self._lines = self._bytes = self._total = 0
        self._earlier_bytes = self.earlier_lines = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._update()
        self._earlier, self._earlier_bytes, self.earlier_lines = self._finished, self._bytes, self._lines
        if self._earlier:
            self._print(f"resuming: {len(self._earlier):,} slices with {self._lines:,} lines are already done")
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Return the seconds since this attempt began."""
        return time.monotonic() - self._began

    def earlier_runtimes(self) -> set[str]:
        """Return the runtimes that scored some of the slices which were finished before this attempt."""
        some = [path_of(self._options.output, self._options.run, name) for name in sorted(self._earlier)[:SAMPLE]]
        return {receipt.runtime for _, receipt in receipts.read_each(some, self._options.run) if receipt}

    def line(self) -> str:
        """Return a line with the share done, the lines read, and the throughput and time left of this attempt."""
        gained = self._bytes - self._earlier_bytes
        done = f"{self._share:6.1%}  {self._lines:,} lines  "
        if not gained:
            return f"{done}no slice finished yet in {duration(self.seconds)}: workers start, count lines, load models"
        rate = (self._lines - self.earlier_lines) / max(self.seconds, 1e-9)
        return f"{done}{rate:.1f} lines/s  {duration(self.seconds * (self._total - self._bytes) / gained)} left"

    def state(self) -> str:
        """Return a sentence about what is finished and what is left of the run."""
        return f"{self._share:.1%} of the run is finished, {self._lines:,} lines, and {1 - self._share:.1%} is left."

    @property
    def _share(self) -> float:
        return self._bytes / self._total if self._total else 0.0

    def _update(self) -> list[str]:
        """Count the slices that are finished now, and return the names of the new ones."""
        if not self._slices:
            known = slice_list.of_run(self._options.output, self._options.run) or []
            self._slices = {piece.name: piece for piece in known}
            self._total = sum(piece.text_bytes for piece in known)
        if not self._slices:
            return []
        finished = receipts.names(self._options.output, self._options.run) & self._slices.keys()
        new = sorted(finished - self._finished)
        self._finished = finished
        self._lines = sum(self._slices[name].lines for name in finished)
        self._bytes = sum(self._slices[name].text_bytes for name in finished)
        return new

    def _look(self) -> list[str]:
        """Count what `_update` counts; nothing if the storage is out of reach for a while."""
        try:
            return self._update()
        except Exception:  # each storage raises its own exceptions; the next look counts what this one missed
            return []

    def _print(self, line: str) -> None:
        if self._verbosity != "quiet":
            print(for_terminal(line), file=sys.stderr, flush=True)

    def _print_slices(self, names: Sequence[str]) -> None:
        if self._verbosity != "verbose":
            return
        paths = [path_of(self._options.output, self._options.run, name) for name in names]
        for _, receipt in receipts.read_each(paths, self._options.run):
            if receipt:
                self._print(
                    f"slice {receipt.slice}: {receipt.lines:,} lines = {receipt.predicted:,} predicted + "
                    f"{receipt.failed:,} failed + {receipt.blank:,} blank, {receipt.seconds:.1f} s"
                )

    def _watch(self) -> None:
        if sys.stderr.isatty() and self._verbosity != "quiet":
            self._watch_terminal()
        else:
            self._poll(LINE_SECONDS, lambda: self._print(self.line()))
        if self._verbosity == "verbose":
            self._print_slices(self._look())

    def _watch_terminal(self) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("starting", total=1.0)
            # rich prints the lines of slices above the bar
            self._poll(POLL_SECONDS, lambda: bar.update(task, completed=self._share, description=self.line()))

    def _poll(self, seconds: float, show: Callable[[], None]) -> None:
        """Look again and again; a look that takes long makes the next one wait, so that it costs little."""
        took = 0.0
        while not self._stop.wait(max(seconds, REST * took)):
            began = time.monotonic()
            with contextlib.suppress(Exception):  # each storage raises its own exceptions
                self._print_slices(self._look())
            took = time.monotonic() - began
            show()


def duration(seconds: float) -> str:
    """Return a number of seconds as text, such as 3 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

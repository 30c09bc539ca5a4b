"""Shows the progress of a run on any runner, by counting the receipts of finished slices."""

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from inference.corpus.files import InputFile
from inference.runs import receipts
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from models.names import for_terminal

Verbosity = Literal["quiet", "normal", "verbose"]

POLL_SECONDS = 2.0
LINE_SECONDS = 10.0


class ProgressWatcher:
    """A context manager that shows progress while its body runs: a bar on a terminal, or else a line every 10 s.

    If it is verbose, it also prints a line for each finished slice. If it is quiet, it only counts.
    """

    def __init__(self, options: RunOptions, files: Sequence[InputFile], verbosity: Verbosity = "normal") -> None:
        self._options = options
        self._verbosity = verbosity
        limit = options.limit
        self._total = limit if limit is not None else sum(file.size for file in files)
        self._unit = "lines" if limit is not None else "source_bytes"
        self._seen: set[str] = set()
        self._runtimes: set[str] = set()
        self.earlier_runtimes: frozenset[str] = frozenset()  # runtimes of the slices finished before this attempt
        self._done = self._documents = 0
        self._earlier: tuple[int, int] = (0, 0)  # units done and documents finished before this attempt
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._update()
        self._earlier = (self._done, self._documents)
        if self._seen:
            self._print(f"resuming: {len(self._seen):,} slices with {self._documents:,} documents are already done")
        self.earlier_runtimes = frozenset(self._runtimes)
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

    @property
    def documents(self) -> int:
        """Return the number of documents that this attempt has finished."""
        return self._documents - self._earlier[1]

    def line(self) -> str:
        """Return a line with the share done, the documents, and the throughput and time left of this attempt."""
        share = self._done / self._total if self._total else 1.0
        gained = self._done - self._earlier[0]
        done = f"{share:6.1%}  {self._documents:,} documents  "
        if not gained:
            return f"{done}no slice finished yet in {duration(self.seconds)}: workers start, count lines, load models"
        rate = self.documents / max(self.seconds, 1e-9)
        return f"{done}{rate:.1f} docs/s  {duration(self.seconds * (self._total - self._done) / gained)} left"

    def state(self) -> str:
        """Return a sentence about what is finished and what is left of the run."""
        share = self._done / self._total if self._total else 1.0
        return f"{share:.1%} of the run is finished, {self._documents:,} documents, and {1 - share:.1%} is left."

    def _update(self) -> list[Receipt]:
        """Count the receipts that are new, and return them."""
        new = []
        unseen = sorted(set(receipts.paths(self._options.output, self._options.run)) - self._seen)
        for path, receipt in receipts.read_each(unseen, self._options.run):
            if receipt:
                self._seen.add(path)
                self._done += getattr(receipt, self._unit)
                self._documents += receipt.predicted + receipt.failed
                self._runtimes.add(receipt.runtime)
                new.append(receipt)
        return new

    def _look(self) -> list[Receipt]:
        """Count the receipts that are new, and return them; none if the storage is out of reach for a while."""
        try:
            return self._update()
        except Exception:  # each storage raises its own exceptions; the next look counts what this one missed
            return []

    def _print(self, line: str) -> None:
        if self._verbosity != "quiet":
            print(for_terminal(line), file=sys.stderr, flush=True)

    def _print_slices(self, receipts: Sequence[Receipt]) -> None:
        if self._verbosity == "verbose":
            for receipt in receipts:
                self._print(
                    f"slice {receipt.slice}: {receipt.lines:,} lines = {receipt.predicted:,} predicted + "
                    f"{receipt.failed:,} failed + {receipt.blank:,} blank, {receipt.seconds:.1f} s"
                )

    def _watch(self) -> None:
        if sys.stderr.isatty() and self._verbosity != "quiet":
            self._watch_terminal()
        else:
            while not self._stop.wait(LINE_SECONDS):
                self._print_slices(self._look())
                self._print(self.line())
        self._print_slices(self._look())

    def _watch_terminal(self) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("starting", total=self._total or 1)
            while not self._stop.wait(POLL_SECONDS):
                self._print_slices(self._look())  # rich prints these lines above the bar
                bar.update(task, completed=self._done, description=self.line())


def duration(seconds: float) -> str:
    """Return a number of seconds as text, such as 3 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

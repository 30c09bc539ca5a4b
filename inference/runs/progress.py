"""Shows how far a run is, on any runner: finished slices are counted by their receipts."""

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
from inference.runs.receipts import Receipt

Loudness = Literal["quiet", "normal", "verbose"]

POLL_SECONDS = 2.0
LINE_SECONDS = 10.0


class ProgressWatcher:
    """A context manager that reports while its body runs: a bar on a terminal, a line every 10 s otherwise.

    Where it is verbose, there is a line for each finished slice besides; where it is quiet, it only counts.
    """

    def __init__(
        self, output: str, files: Sequence[InputFile], limit: int | None, loudness: Loudness = "normal"
    ) -> None:
        self._output = output
        self._loudness = loudness
        self._total = limit if limit is not None else sum(file.size for file in files)
        self._unit = "lines" if limit is not None else "source_bytes"
        self._seen: set[str] = set()
        self._done = self._documents = 0
        self._found: tuple[int, int] = (0, 0)  # done and documents of an earlier attempt
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._update()
        self._found = (self._done, self._documents)
        if self._seen:
            self._say(f"going on: {len(self._seen):,} slices with {self._documents:,} documents are done already")
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
        """Since this attempt began."""
        return time.monotonic() - self._began

    @property
    def documents(self) -> int:
        """Documents that this attempt has finished."""
        return self._documents - self._found[1]

    def line(self) -> str:
        """Share done, documents, documents per second and time left; the rates are this attempt's."""
        share = self._done / self._total if self._total else 1.0
        gained = self._done - self._found[0]
        left = "time left not yet known"
        if gained:
            left = f"{duration(self.seconds * (self._total - self._done) / gained)} left"
        rate = self.documents / max(self.seconds, 1e-9)
        return f"{share:6.1%}  {self._documents:,} documents  {rate:.1f} docs/s  {left}"

    def _update(self) -> list[Receipt]:
        """Counts the receipts that have come; returns them."""
        new = []
        for path in sorted(receipts.paths(self._output)):
            if path not in self._seen and (receipt := receipts.read(path)):
                self._seen.add(path)
                self._done += getattr(receipt, self._unit)
                self._documents += receipt.predicted + receipt.failed
                new.append(receipt)
        return new

    def _say(self, line: str) -> None:
        if self._loudness != "quiet":
            print(line, file=sys.stderr, flush=True)

    def _say_slices(self, receipts: Sequence[Receipt]) -> None:
        if self._loudness == "verbose":
            for receipt in receipts:
                self._say(
                    f"slice {receipt.slice}: {receipt.lines:,} lines = {receipt.predicted:,} predicted + "
                    f"{receipt.failed:,} failed + {receipt.blank:,} blank, {receipt.seconds:.1f} s"
                )

    def _watch(self) -> None:
        if sys.stderr.isatty() and self._loudness != "quiet":
            self._watch_terminal()
        else:
            while not self._stop.wait(LINE_SECONDS):
                self._say_slices(self._update())
                self._say(self.line())
        self._say_slices(self._update())

    def _watch_terminal(self) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("starting", total=self._total or 1)
            while not self._stop.wait(POLL_SECONDS):
                self._say_slices(self._update())  # above the bar: it takes over what is printed meanwhile
                bar.update(task, completed=self._done, description=self.line())


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

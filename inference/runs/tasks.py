"""Shares the slices of a run between tasks that have nothing in common but the folder of the run.

A task is a process on any machine. It shows that it lives by a file that it writes again and again, and it claims a
slice by creating a file that nobody else can create. The claims of a task that has died are free.

A claim only saves work. What counts is the receipt of a slice, which is created once, so two tasks that score the same
slice change nothing.
"""

import contextlib
import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

from inference.corpus import counting, lease, storage
from inference.corpus.files import InputFile
from inference.corpus.slices import Slice
from inference.runs import handler, own_files, pipeline, receipts, run_folder, slice_list, summary
from inference.runs.handler import ScoredSlice, SliceDocuments
from inference.runs.lock import TASKS
from inference.runs.options import RunOptions
from inference.runs.own_files import CLAIMS
from inference.runs.receipts import Receipt
from inference.runs.summary import DamagedReceipts
from inference.scoring.scorer import Scorer
from models.errors import UserError

POLL_SECONDS = 2.0  # between two looks at what the other tasks have done
FIRST_PAUSE = 0.25  # before the first look for slices that are left; each later pause is twice as long
MISSES = 10  # claims that others were faster with, one after another, after which the claims are listed again
ALIKE_BYTES = 1024 * 1024  # slices whose sizes differ by less count as equally large
STUCK_SECONDS = 1800.0  # a claim that has led to nothing for so long is free, although its task shows itself
LISTING, SUMMARY = "slices", "summary"  # claims on what is done once


class Task:
    """A context manager. While its body runs, the other tasks of the run see that this one lives."""

    def __init__(self, options: RunOptions) -> None:
        """Prepare a task of a run whose folder is open."""
        self.name = uuid.uuid4().hex
        self.options = options
        self._folder = storage.join(options.output, CLAIMS)
        self._owners: dict[str, str] = {}  # task of each claim of others that was read
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._renew, name="task", daemon=True)

    def __enter__(self) -> Self:
        self._show()
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._beat.join()
        with contextlib.suppress(Exception):  # each storage raises its own errors; the task counts as dead in time
            storage.delete(storage.join(self.options.output, TASKS), [self.name])

    def stop(self) -> None:
        """Claim no further slice."""
        self._stop.set()

    def slices(self, files: Sequence[InputFile]) -> list[Slice]:
        """Return all slices of the run, or an empty list if the run is finished.

        One task cuts the files and counts their lines, and the others wait for it.
        """

        def known() -> list[Slice]:
            return slice_list.read(self.options.output, self.options.run) or []

        self._once(LISTING, lambda: known() or self._is_finished(), lambda: _write_slices(self.options, files))
        return known()

    def summarise(self, all_slices: Sequence[Slice]) -> bool:
        """Write the summary once every slice has its receipt. Return whether this task has written it.

        Raises:
            DamagedReceipts: a receipt is damaged; then it is deleted, and its slice is free.
        """
        return self._once(SUMMARY, self._is_finished, lambda: _summarise(self.options, all_slices))

    def claimed(self, all_slices: Sequence[Slice]) -> Iterator[Slice]:
        """Yield slices that this task has claimed, until every slice of the run has a receipt.

        The large ones come first. Otherwise the order differs from task to task, so that two of them seldom want the
        same slice.
        """
        mixed, pause = random.Random(self.name).sample(all_slices, len(all_slices)), FIRST_PAUSE
        left = sorted(mixed, key=lambda piece: -(piece.text_bytes // ALIKE_BYTES))
        while not self._stop.is_set():
            done = set(receipts.paths(self.options.output, self.options.run))
            left = [piece for piece in left if self._receipt(piece) not in done]
            if not left:
                return
            for piece in self._claims_of(left):
                pause = FIRST_PAUSE
                yield piece
            self._stop.wait(pause)
            pause = min(pause * 2, lease.LEASE_SECONDS / lease.RENEWALS)

    def _receipt(self, piece: Slice) -> str:
        return receipts.path_of(self.options.output, self.options.run, piece.name)

    def _claims_of(self, left: Sequence[Slice]) -> Iterator[Slice]:
        """Yield the slices that this task can claim now, until others are often faster."""
        claims, shown, missed = self._claims(), self._shown(), 0
        for piece in left:
            if self._stop.is_set() or missed == MISSES:
                return
            if self._claim(piece.name, claims.get(piece.name), shown):
                missed = 0
                yield piece
            else:
                missed += piece.name not in claims

    def _claims(self, what: str = "") -> dict[str, tuple[int, float]]:
        """Return the number of the latest claim on each slice, or on one thing, and when it was made."""
        latest: dict[str, tuple[int, float]] = {}
        for name, written in storage.times(self._folder, what and self._prefix(what)).items():
            claimed, _, number = name.rpartition(".")
            claimed, _, run = claimed.rpartition(".")
            if run == receipts.run_part(self.options.run):
                latest[claimed] = max(latest.get(claimed, (0, 0.0)), (int(number), written))
        return latest

    def _shown(self) -> dict[str, float]:
        """Return when each task has shown itself, this one included, by the clock of the storage."""
        return storage.times(storage.join(self.options.output, TASKS))

    def _claim(self, what: str, latest: tuple[int, float] | None, shown: dict[str, float]) -> bool:
        """Claim something unless a task that lives has it. Return whether it is this task's."""
        number, written = latest or (0, 0.0)
        if number and self._is_held(f"{self._prefix(what)}{number:03d}", written, shown):
            return False
        path = storage.join(self._folder, f"{self._prefix(what)}{number + 1:03d}")
        return storage.create_file(path, self.name.encode())

    def _prefix(self, what: str) -> str:
        return f"{what}.{receipts.run_part(self.options.run)}."

    def _is_held(self, claim: str, written: float, shown: dict[str, float]) -> bool:
        """Return whether the task that made a claim is alive and not stuck. The file of this one tells the time."""
        now, path = shown.get(self.name, 0.0), storage.join(self._folder, claim)
        if claim not in self._owners:
            try:
                self._owners[claim] = storage.read_settled(path).decode(errors="replace")
            except Exception:  # each storage raises its own errors
                if storage.exists(path):
                    raise
                return True  # the run was finished just now, and claims are gone
        last_seen = shown.get(self._owners[claim])
        is_alive = last_seen is not None and now - last_seen < lease.LEASE_SECONDS
        return is_alive and now - written < STUCK_SECONDS

    def _once(self, what: str, is_done: Callable[[], object], work: Callable[[], None]) -> bool:
        """Let one task of all do the work. Return whether it was this one, after the work is done."""
        while not is_done():
            if self._stop.is_set():
                raise UserError(f"{self.options.output}: this task was stopped before the {what} was complete.")
            if self._claim(what, self._claims(what).get(what), self._shown()):
                if is_done():  # another task was faster, and its claim is gone already
                    return False
                work()
                return True
            self._stop.wait(POLL_SECONDS)
        return False

    def _is_finished(self) -> bool:
        return summary.read(self.options.output, self.options.run) is not None

    def _show(self) -> None:
        who = f"{socket.gethostname()}:{os.getpid()}"
        storage.write_file(storage.join(self.options.output, TASKS, self.name), who.encode())

    def _renew(self) -> None:
        while not self._stop.wait(lease.LEASE_SECONDS / lease.RENEWALS):
            with contextlib.suppress(Exception):  # storage or network may fail; the next write may succeed
                self._show()


def score(task: Task, all_slices: Sequence[Slice], report: Callable[[Receipt], None]) -> None:
    """Label slices of a run, as many as this task can claim, until every slice of the run has a receipt.

    While a slice is scored, the next one is read and the last one is written.

    Args:
        task: The task, which is alive.
        all_slices: All slices of the run.
        report: Called with the receipt of each slice that this task has labelled.

    Raises:
        RunLost: the folder belongs to another run, or to none.
        ScoringError: the device, the memory or the model failed.
        UserError: a file cannot be read or written.
    """
    options = task.options
    recipe = pipeline.document_recipe(options)

    def read() -> Iterator[SliceDocuments]:
        for piece in task.claimed(all_slices):
            found = pipeline.read_slice(piece, options, recipe)
            if found:
                yield found

    def write(scored: ScoredSlice) -> None:
        try:
            report(pipeline.write_slice(scored, options))
        except BaseException:
            task.stop()  # otherwise this task would wait for its own slice
            raise

    scorer, unread = Scorer(options.scoring), read()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            following, writing = reader.submit(next, unread, None), writer.submit(lambda: None)
            while element := following.result():
                following = reader.submit(next, unread, None)
                scored = handler.score_slice(element, scorer)
                writing.result()
                writing = writer.submit(write, scored)
            writing.result()
        except BaseException:
            task.stop()  # so that the reader ends
            raise


def _write_slices(options: RunOptions, files: Sequence[InputFile]) -> None:
    counted = counting.count_all(files, options.slice_bytes, pipeline.copies_of(options))
    require_own = partial(run_folder.require_own, options)  # the run may have been replaced while lines were counted
    slice_list.write(counted, options.output, options.run, require_own)


def _summarise(options: RunOptions, all_slices: Sequence[Slice]) -> None:
    """Write the summary, and then delete the claims, which nobody needs any more.

    Raises:
        DamagedReceipts: a receipt is damaged; then it is deleted, and its slice is free.
    """
    try:
        content = summary.account(all_slices, options)
    except DamagedReceipts:
        own_files.delete_claims(options.output)
        raise
    summary.write(content, options, partial(run_folder.require_own, options))
    own_files.delete_copies(options.output)
    own_files.delete_shared(options.output)

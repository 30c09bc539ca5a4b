"""Builds the graph of a run.

    files -> Slices (Units, Count, Join) -> Unfinished -> ReadSlice -> RunInference -> WriteSlice -> summary

The graph starts from the file list in `run.json`, so it does not grow with the corpus. Each slice is one element. A
resume starts from the list of slices that the first launch has written, and passes only those without a receipt on.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import apache_beam as beam
from apache_beam.metrics import Metrics

from inference.corpus import counting, slices, storage
from inference.corpus.files import InputFile, SourceError
from inference.corpus.records import DocumentRecipe, Documents
from inference.corpus.slices import Slice
from inference.runs import launches, own_files, receipts, run_folder, sink, slice_list, summary, worker_check
from inference.runs.handler import (
    NAMESPACE,
    TRUSTED_ATTEMPTS,
    FinishedSlice,
    ScoredSlice,
    SliceDocuments,
    SliceHandler,
)
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.runs.run_inference import RunInference
from inference.runs.worker_check import CheckWorker, Launcher
from inference.scoring import model_files
from inference.scoring.options import text_recipes
from models import trained_model


def build(pipeline: beam.Pipeline, options: RunOptions, *, check_workers: bool = False) -> None:
    """Add the steps of a run to a pipeline. They label the slices without a receipt and write the summary.

    If `check_workers` is true, each worker first checks that it has what the run needs.
    """
    launcher = Launcher.here() if check_workers else None
    run = pipeline | "Run" >> beam.Create([options.output])
    if check_workers:
        check = beam.ParDo(CheckWorker(options))  # before anything else fails for what a worker lacks
        run = run | "CheckWorker" >> check
    known = run | "Counted" >> beam.Filter(is_counted, options)
    counted = (
        run
        | "Files" >> beam.FlatMap(uncounted_files, options)
        | "Slices" >> Slices(options.slice_bytes, copies_of(options))
        | "KeepSlices" >> beam.Map(keep_slices, options)
    )
    written = (
        (known, counted)
        | "Either" >> beam.Flatten()
        | "Unfinished" >> beam.FlatMap(unfinished, options)
        | "SpreadSlices" >> beam.Reshuffle()
        | "ReadSlice" >> beam.ParDo(ReadSlice(options, launcher))
        | "RunInference" >> RunInference(SliceHandler(options.scoring, options.launch)).with_output_types(ScoredSlice)
        | "WriteSlice" >> beam.Map(write_slice, options)
        | "CountWritten" >> beam.combiners.Count.Globally()
    )
    _ = run | "WriteSummary" >> beam.Map(write_summary, options, beam.pvalue.AsSingleton(written))


def is_counted(output: str, options: RunOptions) -> bool:
    """Return whether the lines of a run are counted."""
    return slice_list.of_run(output, options.run) is not None


def uncounted_files(output: str, options: RunOptions) -> Iterator[list[InputFile]]:
    """Yield the files of a run if their lines are not counted yet."""
    if not is_counted(output, options):
        yield run_folder.read_files(output)


def keep_slices(counted: list[Slice], options: RunOptions) -> str:
    """Write the list of the slices, and return the folder of the run."""
    slice_list.write(counted, options.output, options.run, partial(run_folder.require_own, options))
    return options.output


def copies_of(options: RunOptions) -> str:
    """Return the folder with copies of the text of compressed files."""
    return str(storage.join(options.output, slice_list.COPIES))


def unfinished(output: str, options: RunOptions) -> list[Slice]:
    """Return the slices without a receipt and those with failures to retry; the largest come first.

    One listing shows which receipts there are, however many these are. They are read when the summary is made.
    """
    all_slices = slice_list.of_run(output, options.run) or []
    finished = receipts.names(options.output, options.run)
    retried = _retried(all_slices, finished, options) if options.retry_failures else ()
    left = [piece for piece in all_slices if piece.name not in finished or piece.name in retried]
    Metrics.counter(NAMESPACE, "slices_found_done").inc(len(all_slices) - len(left))
    return sorted(left, key=lambda piece: -piece.text_bytes)


def _retried(all_slices: Sequence[Slice], finished: set[str], options: RunOptions) -> set[str]:
    """Return the names of the finished slices with failures to retry. A damaged receipt counts as one of them."""
    paths = [receipts.path_of(options.output, options.run, s.name) for s in all_slices if s.name in finished]
    read = dict(receipts.read_each(paths, options.run))
    return {
        piece.name
        for piece in all_slices
        if (path := receipts.path_of(options.output, options.run, piece.name)) in read
        and ((receipt := read[path]) is None or retried_reasons(receipt, options.retry_failures))
    }


def write_slice(scored: ScoredSlice, options: RunOptions) -> Receipt:
    """Write a slice with its receipt, or add a retry to it, if the folder still belongs to this run.

    Raises:
        RunLost: it belongs to another run, or to none.
    """
    with launches.guard(options.launch):
        require_own = partial(run_folder.require_own, options)
        if scored.finished:
            receipt = sink.extend_slice(scored, scored.finished, options, require_own)
        else:
            receipt = sink.write_slice(scored, options, require_own)
        if copies := [part.copy for part in scored.slice.parts if part.has_copy]:
            storage.delete(copies_of(options), copies)
    _count(scored, receipt)
    return receipt


def _count(scored: ScoredSlice, receipt: Receipt) -> None:
    """Show a slice that was written in the engine's own counters and logs. The engine counts repeated work again."""
    reasons = Counter(failure.reason for failure in scored.failures)
    counts = {
        "documents": len(scored.predictions) + len(scored.failures),
        "predicted": len(scored.predictions),
        **{f"failed_{reason}": number for reason, number in reasons.items()},
        "tokens": sum(scored.counts.tokens.values()),
        "padded_tokens": sum(scored.counts.padded_tokens.values()),
        "truncated": sum(scored.counts.truncated.values()),
        "slices": 1,
    }
    for name, number in counts.items():
        Metrics.counter(NAMESPACE, name).inc(number)
    logging.getLogger(__name__).info(
        "slice %s: %d documents, %d failed, %.1f s", receipt.slice, receipt.predicted, receipt.failed, receipt.seconds
    )


def write_summary(output: str, options: RunOptions, written: int) -> None:  # noqa: ARG001  (waits for all slices)
    """Write the summary once all slices are written, if the folder still belongs to this run.

    Raises:
        ArithmeticError: a slice has no receipt, or a line is neither predicted, failed nor blank.
        RunLost: the folder belongs to another run, or to none.
        DamagedReceipts: a receipt is damaged; then it is deleted, and the same command does its slice again.
    """
    run_folder.require_own(options)
    content = summary.account(slice_list.of_run(output, options.run) or (), options)
    summary.write(content, options, partial(run_folder.require_own, options))
    own_files.delete_copies(output)


class Slices(beam.PTransform):
    """Turns a list of files into the list of their slices; all workers count lines. No list gives no list."""

    def __init__(self, slice_bytes: int, copies: str = "") -> None:
        super().__init__()
        self._slice_bytes = slice_bytes
        self._copies = copies

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        """Divide the files into units, count the lines of each unit, and join the counted parts."""
        counted = (
            files
            | "Units" >> beam.FlatMap(counting.units, self._slice_bytes)
            | "SpreadUnits" >> beam.Reshuffle()
            | "Count" >> beam.FlatMap(counting.count, self._slice_bytes, self._copies)
            | "Together" >> beam.combiners.ToList()
        )
        return files | "Join" >> beam.Map(_join, beam.pvalue.AsSingleton(counted), self._slice_bytes)


def _join(files: list[InputFile], parts: list[slices.Part], slice_bytes: int) -> list[Slice]:
    return counting.join(parts, files, slice_bytes)


class ReadSlice(beam.DoFn):
    """Reads slices that are not finished, or whose failures are retried."""

    def __init__(self, options: RunOptions, launcher: Launcher | None = None) -> None:
        super().__init__()
        self._options = options
        self._launcher = launcher  # the machine that a worker elsewhere is compared with

    def setup(self) -> None:
        """Read from the models how a record becomes text.

        Raises:
            UnfitWorker: this worker lacks something that the run needs.
        """
        if self._launcher:
            worker_check.require(self._options, self._launcher)
        self._recipe = document_recipe(self._options)

    def process(self, piece: Slice) -> Iterator[list[SliceDocuments]]:
        """Yield a batch of one slice with its documents; nothing if the slice is finished by now.

        Raises:
            RunLost: the folder belongs to another run, or to none.
            SourceError: the file is missing, or has changed since its lines were counted.
            BaseException: the error with which another thread of this process ended the launch.
        """
        launches.require(self._options.launch)
        with launches.guard(self._options.launch):
            found = read_slice(piece, self._options, self._recipe)
        if found:
            yield [found]


def read_slice(piece: Slice, options: RunOptions, recipe: DocumentRecipe) -> SliceDocuments | None:
    """Return the documents of a slice, or those of a finished one that are retried; None if there are none.

    Raises:
        RunLost: the folder belongs to another run, or to none.
        SourceError: the file is missing, or has changed since its lines were counted.
    """
    run_folder.require_own(options)
    path = receipts.path_of(options.output, options.run, piece.name)
    stored = storage.read_if_there(path)
    receipt = receipts.parse(stored, options.run) if stored is not None else None
    if receipt is not None and receipt.checksum != piece.checksum:
        raise SourceError(f"{path}: expected the checksum in {slice_list.SLICES}, found another; delete it.")
    if receipt is not None and not retried_reasons(receipt, options.retry_failures):
        return None
    started = time.time()
    content = slices.read_slice(piece, recipe, copies_of(options))
    earlier = sink.begin_attempt(options, piece.name)
    if receipt is not None:
        return _retry(receipt, SliceDocuments(piece, content, started, earlier), options)
    attempts = max(earlier, int(stored is not None))  # a damaged receipt is an attempt, too
    return SliceDocuments(piece, content, started, attempts)


def _retry(receipt: Receipt, whole: SliceDocuments, options: RunOptions) -> SliceDocuments:
    """Return the documents of a finished slice that failed for a reason that is retried."""
    reasons = retried_reasons(receipt, options.retry_failures)
    content = whole.content
    place_of = {(document.file, document.line): document.place for document in content.documents}
    place_of |= {(failure.file, failure.line): failure.place for failure in content.failures}
    failed = [(place_of[row["file"], row["line"]], row) for row in sink.read_failures(receipt, options.output)]
    retried = {place for place, row in failed if row["reason"] in reasons}
    finished = FinishedSlice(
        receipt,
        places=sorted({document.place for document in content.documents} - {place for place, _ in failed}),
        failures=[(place, row) for place, row in failed if place not in retried],
    )
    documents = [document for document in content.documents if document.place in retried]
    failures = [failure for failure in content.failures if failure.place in retried]
    size = sum(document.size for document in documents)  # failures of records stay as they are
    left = Documents(lines=len(retried), bytes=size, documents=documents, failures=failures)
    attempts = TRUSTED_ATTEMPTS if "process_ended" in reasons else whole.attempts
    return replace(whole, content=left, attempts=attempts, finished=finished)


def retried_reasons(receipt: Receipt, retry_failures: str) -> set[str]:
    """Return the reasons for which lines of a slice failed and are retried."""
    return {reason for reason in receipt.failures if retry_failures in (reason, "all")}


def document_recipe(options: RunOptions) -> DocumentRecipe:
    """Return the recipe by which a run turns a record into a Document.

    Raises:
        ModelError: a model is missing, or is not the one that the run began with.
    """
    folders = model_files.all_local(options.scoring.models)
    manifests = [trained_model.read_manifest(folder) for folder in folders]
    model_files.refuse_changed(options.scoring, folders)
    return DocumentRecipe(text_recipes(options.scoring, manifests), options.id_field, options.keep_fields)

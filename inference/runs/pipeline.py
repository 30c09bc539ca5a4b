"""Builds the graph of a run.

    files -> Slices (Cut, CountLines, Number) -> ReadSlice -> RunInference -> WriteSlice -> receipts -> summary
                                                 (passes the receipt of a finished slice on)

The graph starts from the file list in `run.json`, so it does not grow with the corpus. Each slice is one element.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference

from inference.corpus import slices, storage
from inference.corpus.files import SourceError
from inference.corpus.records import DocumentRecipe, Documents, read_documents
from inference.corpus.slices import Slice
from inference.runs import launches, receipts, run_folder, sink, summary, worker_check
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
from inference.runs.worker_check import CheckWorker, Launcher
from inference.scoring import model_files, tally
from inference.scoring.options import text_recipes
from models import trained_model


def build(pipeline: beam.Pipeline, options: RunOptions, *, check_workers: bool = False) -> None:
    """Add the steps of a run to a pipeline. They label the slices without a receipt and write the summary.

    If `check_workers` is true, each worker first checks that it has what the run needs.
    """
    output = options.output
    launcher = Launcher.here() if check_workers else None
    run = pipeline | "Run" >> beam.Create([output])
    if check_workers:
        run = run | "CheckWorker" >> beam.ParDo(
            CheckWorker(options)
        )  # before anything else fails for what a worker lacks
    all_slices = run | "Files" >> beam.FlatMap(run_folder.read_files) | "Slices" >> Slices(options.slice_bytes)
    read = all_slices | "ReadSlice" >> beam.ParDo(ReadSlice(options, launcher)).with_outputs(
        ReadSlice.FINISHED, main="documents"
    )
    written = (
        read.documents
        | "RunInference" >> RunInference(SliceHandler(options.scoring, options.launch))
        | "WriteSlice" >> beam.Map(write_slice, options).with_output_types(Receipt)
    )
    every_receipt = (written, read[ReadSlice.FINISHED]) | "Receipts" >> beam.Flatten()
    totals = every_receipt | "Totals" >> beam.Map(Receipt.totals) | "AddTotals" >> beam.CombineGlobally(tally.add)
    duplicates = (
        every_receipt
        | "IdHashes" >> beam.FlatMap(summary.id_hashes, output)
        | "ById" >> beam.GroupByKey()
        | "CountDuplicates" >> beam.MapTuple(lambda _, hashes: summary.count_duplicates(hashes))
        | "AddDuplicates" >> beam.CombineGlobally(sum)
    )
    (
        totals
        | "Summarise"
        >> beam.Map(
            summary.summarise,
            slices=beam.pvalue.AsSingleton(all_slices | "CountSlices" >> beam.combiners.Count.Globally()),
            duplicates=beam.pvalue.AsSingleton(duplicates),
        )
        | "WriteSummary" >> beam.Map(write_summary, options)
    )


def write_slice(scored: ScoredSlice, options: RunOptions) -> Receipt:
    """Write a slice with its receipt, or add a retry to it, if the folder still belongs to this run.

    Raises:
        RunLost: it belongs to another run, or to none.
    """
    with launches.guard(options.launch):
        run_folder.require_own(options)
        if scored.finished:
            receipt = sink.extend_slice(scored, scored.finished, options)
        else:
            receipt = sink.write_slice(scored, options)
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


def write_summary(content: dict[str, Any], options: RunOptions) -> None:
    """Write the summary, if the folder still belongs to this run.

    Raises:
        RunLost: it belongs to another run, or to none.
    """
    run_folder.require_own(options)
    summary.write(content, options)


class Slices(beam.PTransform):
    """Turns input files into slices, in no particular order and on all workers."""

    def __init__(self, slice_bytes: int) -> None:
        super().__init__()
        self._slice_bytes = slice_bytes

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        """Cut the files into byte ranges, count the lines of each range, and number the lines."""
        return (
            files
            | "Cut" >> beam.FlatMap(slices.cut, self._slice_bytes)
            | "SpreadFiles" >> beam.Reshuffle()
            | "CountLines" >> beam.FlatMap(slices.count_lines)
            | "ByFile" >> beam.GroupBy(lambda byte_range: byte_range.file.path)
            | "Number" >> beam.FlatMapTuple(lambda _, byte_ranges: slices.number(byte_ranges))
            | "SpreadSlices" >> beam.Reshuffle()
        )


class ReadSlice(beam.DoFn):
    """Reads the slices without a receipt. The receipts of the other slices go to the output FINISHED."""

    FINISHED = "finished"

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

    def process(self, piece: Slice) -> Iterator[Any]:
        """Yield one element for each slice: its receipt, or a batch of one slice with its documents.

        Raises:
            RunLost: the folder belongs to another run, or to none.
            SourceError: the file is missing, or has changed since an earlier attempt.
            BaseException: the error with which another thread of this process ended the launch.
        """
        launches.require(self._options.launch)
        with launches.guard(self._options.launch):
            found = read_slice(piece, self._options, self._recipe)
        if isinstance(found, Receipt):
            Metrics.counter(NAMESPACE, "slices_found_done").inc()
        yield beam.pvalue.TaggedOutput(self.FINISHED, found) if isinstance(found, Receipt) else [found]


def read_slice(piece: Slice, options: RunOptions, recipe: DocumentRecipe) -> Receipt | SliceDocuments:
    """Return the receipt of a slice, or its documents if it has none or if some of them are retried.

    Raises:
        RunLost: the folder belongs to another run, or to none.
        SourceError: the file is missing, or has changed since an earlier attempt.
    """
    run_folder.require_own(options)
    path = receipts.path_of(options.output, options.run, piece.name)
    has_receipt = storage.exists(path)
    receipt = receipts.read(path, options.run) if has_receipt else None
    if receipt is not None:
        if receipt.checksum != piece.checksum:
            raise SourceError(
                f"{piece.file.path} has changed since its lines from {piece.first_line:,} on were labelled: put "
                "it back as it was, or name another --output."
            )
        if not retried_reasons(receipt, options.retry_failures):
            return receipt
    started = time.time()
    content = read_documents(slices.read_lines(piece), piece.file.path, recipe)
    earlier = sink.begin_attempt(options, piece.name)
    if receipt is not None:
        return _retry(receipt, SliceDocuments(piece, content, started, earlier), options)
    return SliceDocuments(
        piece, content, started, max(earlier, int(has_receipt))
    )  # a damaged receipt is an attempt, too


def _retry(receipt: Receipt, whole: SliceDocuments, options: RunOptions) -> SliceDocuments:
    """Return the documents of a finished slice that failed for a reason that is retried."""
    reasons = retried_reasons(receipt, options.retry_failures)
    rows = sink.read_failures(receipt, options.output)
    failed, retried = ({r["line"] for r in rows}, {r["line"] for r in rows if r["reason"] in reasons})
    finished = FinishedSlice(receipt, [d.line for d in whole.content.documents if d.line not in failed])
    documents = [document for document in whole.content.documents if document.line in retried]
    failures = [failure for failure in whole.content.failures if failure.line in retried]
    size = sum(document.size for document in documents)  # failures of records stay as they are
    content = Documents(lines=len(retried), bytes=size, documents=documents, failures=failures)
    attempts = TRUSTED_ATTEMPTS if "process_ended" in reasons else whole.attempts
    return replace(whole, content=content, attempts=attempts, finished=finished)


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

"""Adapts the scorer to RunInference with a thin ModelHandler. One Beam element is one slice."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from apache_beam.coders import PickleCoder, registry
from apache_beam.coders.coder_impl import CallbackCoderImpl, CoderImpl

from inference.corpus.records import Documents, Failure
from inference.corpus.slices import Slice
from inference.runs import launches
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.runs.run_inference import ModelHandler
from inference.scoring import isolation
from inference.scoring.faults import DeviceError
from inference.scoring.options import ScoringOptions
from inference.scoring.predictions import Predictions
from inference.scoring.scorer import Scorer
from inference.scoring.tally import Counts

WORKER = "apache_beam.runners.worker.sdk_worker_main"  # module that runs in a process of Beam's own
NAMESPACE = "labelbeam"  # namespace of the counters that an engine shows
TRUSTED_ATTEMPTS = 2  # unfinished attempts at a slice after which it is scored in a separate process

_loading: dict[str, Future[Scorer]] = {}  # models that load before Beam asks for them, by launch
_device_lost = threading.Event()  # set when no later call in this process can use the GPU


@dataclass
class FinishedSlice:
    """A finished slice some of whose failures are retried. Its other lines stay as they are."""

    receipt: Receipt
    places: list[int]  # place of the line of each row of its predictions
    failures: list[tuple[int, dict[str, Any]]]  # failures that are not retried: place of the line, and row


@dataclass
class SliceDocuments:
    """A slice and the content that was read from it."""

    slice: Slice
    content: Documents  # documents, failures and counts of the slice's lines
    started: float  # start of the attempt, in seconds since the epoch
    attempts: int = 0  # earlier attempts that did not finish
    finished: FinishedSlice | None = None  # the finished slice whose failures are retried


@dataclass
class ScoredSlice:
    """The result of scoring a slice, in which `lines == len(predictions) + len(failures) + blank`."""

    slice: Slice
    lines: int  # number of lines
    blank: int  # number of blank lines
    predictions: Predictions  # predictions in the order of the lines
    failures: list[Failure]  # failures in the order of the lines
    counts: Counts  # counters of the scorer
    runtime: str  # runtime and precision that scored it
    weights: dict[str, str]  # SHA-256 of the manifest of the weights that computed, by model
    started: float  # start of the attempt, in seconds since the epoch
    scoring_seconds: float  # time to score the slice
    bytes: int = 0  # bytes of all lines
    failed_bytes: int = 0  # bytes of the lines that failed
    attempts: int = 0  # earlier attempts that may have left files
    finished: FinishedSlice | None = None  # the finished slice that the result is added to


class SliceCoder(PickleCoder):
    """Pickles a slice. Beam asks for the size of every few elements, and would pickle them only for that."""

    def _create_impl(self) -> CoderImpl:
        pickled = super()._create_impl()
        return CallbackCoderImpl(pickled.encode, pickled.decode, self.estimate_size)

    def estimate_size(self, value: SliceDocuments | ScoredSlice) -> int:
        """Return about how many bytes a slice has."""
        return value.bytes if isinstance(value, ScoredSlice) else value.content.bytes


for kind in (SliceDocuments, ScoredSlice):
    registry.register_coder(kind, SliceCoder)


class SliceHandler(ModelHandler[SliceDocuments, ScoredSlice, Scorer]):
    """Lets RunInference load the models once in each process and share them between threads.

    A slice already holds thousands of documents, which the scorer cuts into batches. So Beam does not batch the slices,
    and each element is a batch of one slice.
    """

    def __init__(self, options: ScoringOptions, launch: str = "") -> None:
        super().__init__()
        self._options = options
        self._launch = launch

    def load_model(self) -> Scorer:
        """Load every model of the run, or wait until `loading` has."""
        started = _loading.pop(self._launch, None)
        return started.result() if started else Scorer(self._options)

    def run_inference(
        self,
        batch: Sequence[SliceDocuments],
        model: Scorer,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002  (Beam's signature)
    ) -> Iterable[ScoredSlice]:
        """Score each slice of a batch.

        Raises:
            ScoringError: the device, the memory or the model failed. Beam may give the slice to this process again.
            DeviceError: the GPU is lost to this process. The exception takes its sentence to the user. A worker process
                ends when it is given the next slice, so that its runner starts another one.
        """
        if _device_lost.is_set():
            _end_worker()
        try:
            with launches.guard(self._launch):
                return [score_slice(element, model) for element in batch]
        except DeviceError:
            _device_lost.set()
            raise

    def should_skip_batching(self) -> bool:
        """Return True, because Beam's batching would hold a slice back until the next one has been read."""
        return True

    def get_num_bytes(self, batch: Sequence[SliceDocuments]) -> int:
        """Return the number of characters in the texts. The default would pickle whole slices to find a size."""
        return sum(len(text) for element in batch for document in element.content.documents for text in document.texts)

    def get_metrics_namespace(self) -> str:
        """Return the namespace of RunInference's own metrics, which are beside ours."""
        return NAMESPACE


@contextlib.contextmanager
def loading(options: RunOptions) -> Iterator[None]:
    """Load the models of a launch in this process while the body builds its pipeline and counts lines."""
    with ThreadPoolExecutor(1, "load") as thread:
        _loading[options.launch] = thread.submit(Scorer, options.scoring)
        try:
            yield
        finally:
            _loading.pop(options.launch, None)


def score_slice(element: SliceDocuments, scorer: Scorer) -> ScoredSlice:
    """Score the documents of a slice, and sort all its failures by place.

    Raises:
        ScoringError: the device, the memory or the model failed, and nothing of the slice may be written.
    """
    began = time.monotonic()
    documents = element.content.documents
    others = element.finished.receipt.predicted if element.finished else 0
    if element.attempts < TRUSTED_ATTEMPTS:
        predictions, failures, counts = scorer.score(documents, others)
        if documents:
            scorer.check_probes()  # a device can go bad without an exception
    else:
        predictions, failures, counts = isolation.score(documents, scorer.options, others)
    content, failed = element.content, {failure.place for failure in failures}
    return ScoredSlice(
        slice=element.slice,
        lines=content.lines,
        blank=content.blank,
        predictions=predictions,
        failures=sorted([*content.failures, *failures], key=lambda failure: failure.place),
        counts=counts,
        runtime=str(scorer.runtime),
        weights=scorer.weights,
        started=element.started,
        scoring_seconds=time.monotonic() - began,
        bytes=content.bytes,
        failed_bytes=content.failed_bytes + sum(d.size for d in documents if d.place in failed),
        attempts=element.attempts,
        finished=element.finished,
    )


def _end_worker() -> None:
    """End this process if it is a worker. Otherwise it is the user's own, in which the next error ends the run."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name == WORKER:
        logging.getLogger(__name__).critical("the GPU is lost to this process, which ends so that another one starts")
        os._exit(1)

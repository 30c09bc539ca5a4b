"""The thin ModelHandler around the scorer: one Beam element is one slice."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from inference.corpus.records import Documents, Failure, Prediction
from inference.corpus.slices import Slice
from inference.scoring import isolation
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from inference.scoring.tally import Counts

TRUSTED_ATTEMPTS = 2  # at a slice; after so many that never ended it is scored in a process apart


@dataclass
class SliceDocuments:
    """A slice that was read."""

    slice: Slice
    read: Documents
    started: float  # seconds since the epoch
    attempts: int = 0  # that came before and did not end


@dataclass
class ScoredSlice:
    """A slice that was scored: `lines == len(predictions) + len(failures) + blank`."""

    slice: Slice
    lines: int
    blank: int
    predictions: list[Prediction]
    failures: list[Failure]
    counts: Counts
    runtime: str
    started: float
    scoring_seconds: float


class SliceHandler(ModelHandler[SliceDocuments, ScoredSlice, Scorer]):
    """Lets RunInference load the models once a process and share them between its threads.

    Batching is not Beam's: a slice is already thousands of documents, cut into batches by the scorer. So an element
    is a ready batch, of one slice.
    """

    def __init__(self, options: ScoringOptions) -> None:
        super().__init__()
        self._options = options

    def load_model(self) -> Scorer:
        """Loads every model of the run."""
        return Scorer(self._options)

    def run_inference(
        self,
        batch: Sequence[SliceDocuments],
        model: Scorer,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002  (Beam's signature)
    ) -> Iterable[ScoredSlice]:
        """Scores each slice of the batch."""
        return [score_slice(element, model) for element in batch]

    def should_skip_batching(self) -> bool:
        """A slice is scored as it comes: Beam's batching would hold it back until the next one was read."""
        return True

    def get_num_bytes(self, batch: Sequence[SliceDocuments]) -> int:
        """Bytes of the texts: the default would pickle the whole slice to find out."""
        return sum(len(text) for element in batch for document in element.read.documents for text in document.texts)

    def get_metrics_namespace(self) -> str:
        """Where RunInference's own metrics appear."""
        return "labelbeam"


def score_slice(element: SliceDocuments, scorer: Scorer) -> ScoredSlice:
    """Scores the documents of one slice and puts all its failures in the order of the lines."""
    began = time.monotonic()
    documents = element.read.documents
    if element.attempts < TRUSTED_ATTEMPTS:
        predictions, failures, counts = scorer.score(documents)
    else:
        predictions, failures, counts = isolation.score(documents, scorer.options)
    return ScoredSlice(
        slice=element.slice,
        lines=element.read.lines,
        blank=element.read.blank,
        predictions=predictions,
        failures=sorted([*element.read.failures, *failures], key=lambda failure: failure.line),
        counts=counts,
        runtime=str(scorer.runtime),
        started=element.started,
        scoring_seconds=time.monotonic() - began,
    )

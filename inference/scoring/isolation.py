"""Scores documents in a separate process, so that a document that ends the process becomes a failure.

This is for slices that were begun before and never finished. A document in such a slice may crash a native library or
exhaust memory. The rule of inference.scoring.faults holds here too: a document is at fault if it ends its process when
it is alone, the models can be loaded and started afterwards, and it then ends its process again.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import Self

from inference.corpus.records import Document, Failure
from inference.scoring import faults, predictions, tally
from inference.scoring.faults import DeviceError, ScoringError
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scored, Scorer
from inference.scoring.tally import Counts

ENDED = "scoring this document ended the process"

_scorer: Scorer | None = None  # loaded once in the separate process


def score(documents: Sequence[Document], options: ScoringOptions, others: int = 0) -> Scored:
    """Score documents in another process and return the result of Scorer.score, which explains `others`.

    The first attempt scores all documents together, which gives the same bytes as in this process. If that attempt
    ends the process, score them one by one; a document that ends its process becomes a Failure.

    Raises:
        ScoringError: the models end their process without any document, or most documents end it.
    """
    with _Process(options) as process:
        try:
            return process.score(documents, others)
        except BrokenProcessPool:
            return _one_by_one(documents, process, others)


def _one_by_one(documents: Sequence[Document], process: "_Process", others: int = 0) -> Scored:
    process.check()
    parts: list[Scored] = []
    failures: list[Failure] = []
    for document in documents:
        try:
            parts.append(process.score_twice(document))
        except BrokenProcessPool:
            failures.append(document.failure("process_ended", ENDED))
            faults.refuse_most_failed(len(failures), len(documents) + others, ENDED)
    parts = parts or [process.score([])]
    return (
        predictions.merged([part for part, _, _ in parts]),
        sorted([*failures, *(failure for _, part, _ in parts for failure in part)], key=lambda failure: failure.place),
        Counts(**tally.add(asdict(counts) for _, _, counts in parts)),
    )


class _Process:
    """A separate process that holds the models; a new one replaces it if it ends."""

    def __init__(self, options: ScoringOptions) -> None:
        self._options = options
        self._pool = _pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def score(self, documents: Sequence[Document], others: int = 0) -> Scored:
        try:
            return self._pool.submit(_score, documents, self._options, others).result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = _pool()
            raise

    def check(self) -> None:
        """Load the models and score their probe texts.

        Raises:
            ScoringError: that ends the process.
        """
        try:
            self.score([])
        except BrokenProcessPool:
            raise ScoringError(
                "the device or the model failed, not the documents: expected that the models can be loaded and score "
                f"the probe texts, found that this ends the process; {faults.NOT_THE_DOCUMENTS}. Look at the memory "
                "of the machine and run it again; if it stays, try --runtime torch or another machine."
            ) from None

    def score_twice(self, document: Document) -> Scored:
        """Score a document alone. If that ends the process, check the models and repeat it.

        Raises:
            BrokenProcessPool: the document ends the process again.
        """
        try:
            return self.score([document])
        except BrokenProcessPool:
            self.check()
            return self.score([document])


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    )  # a fork would copy locks that other threads hold


def _score(documents: Sequence[Document], options: ScoringOptions, others: int = 0) -> Scored:
    global _scorer
    try:
        _scorer = _scorer or Scorer(options)
        scored = _scorer.score(documents, others)
        _scorer.check_probes()
    except DeviceError:
        os._exit(1)  # the GPU is lost to this process, whose end makes place for another
    return scored

"""Scores documents in a separate process, so that a document that ends the process becomes a failure.

This is for slices that were begun before and never finished. A document in such a slice may crash a native library or
exhaust memory.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import Self

from inference.corpus.records import Document, Failure, Prediction, capped
from inference.scoring import tally
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from inference.scoring.tally import Counts

Scored = tuple[list[Prediction], list[Failure], Counts]

_scorer: Scorer | None = None  # loaded once in the separate process


def score(documents: Sequence[Document], options: ScoringOptions) -> Scored:
    """Score documents in another process and return the result of Scorer.score.

    The first attempt scores all documents together, which gives the same bytes as in this process. If that attempt
    ends the process, score them one by one; a document that ends its process becomes a Failure.
    """
    with _Process(options) as process:
        try:
            return process.score(documents)
        except BrokenProcessPool:
            return _merged([_score_alone(document, process) for document in documents])


def _score_alone(document: Document, process: "_Process") -> Scored:
    try:
        return process.score([document])
    except BrokenProcessPool:
        detail = "scoring this document ended the process"
        return [], [Failure(document.line, document.id, "process_ended", detail, capped(document.raw))], Counts()


class _Process:
    """A separate process that holds the models; a new one replaces it if it ends."""

    def __init__(self, options: ScoringOptions) -> None:
        self._options = options
        self._pool = _pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def score(self, documents: Sequence[Document]) -> Scored:
        try:
            return self._pool.submit(_score, documents, self._options).result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = _pool()
            raise


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    )  # a fork would copy locks that other threads hold


def _score(documents: Sequence[Document], options: ScoringOptions) -> Scored:
    global _scorer
    _scorer = _scorer or Scorer(options)
    return _scorer.score(documents)


def _merged(parts: Sequence[Scored]) -> Scored:
    return (
        [prediction for predictions, _, _ in parts for prediction in predictions],
        [failure for _, failures, _ in parts for failure in failures],
        Counts(**tally.add(asdict(counts) for _, _, counts in parts)),
    )

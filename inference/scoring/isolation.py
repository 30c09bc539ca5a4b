"""Scores documents in a process of its own, so that a document that ends the process becomes a failure and no more.

For slices that were begun before and never finished: something in them may crash a native library or exhaust memory.
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

_scorer: Scorer | None = None  # of the process apart


def score(documents: Sequence[Document], options: ScoringOptions) -> Scored:
    """What Scorer.score returns, from another process.

    All documents are tried together first, which gives the same bytes as ever. Where that ends the process they are
    scored one by one, and each that ends its process is a Failure.
    """
    with _Process(options) as process:
        try:
            return process.score(documents)
        except BrokenProcessPool:
            return _joined([_alone(document, process) for document in documents])


def _alone(document: Document, process: "_Process") -> Scored:
    try:
        return process.score([document])
    except BrokenProcessPool:
        detail = "scoring it ended the process"
        return [], [Failure(document.line, document.id, "process_ended", detail, capped(document.raw))], Counts()


class _Process:
    """A process with the models; one that ended is replaced when it is next asked."""

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
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))  # a fork would copy the locks of threads


def _score(documents: Sequence[Document], options: ScoringOptions) -> Scored:
    global _scorer
    _scorer = _scorer or Scorer(options)
    return _scorer.score(documents)


def _joined(parts: Sequence[Scored]) -> Scored:
    return (
        [prediction for predictions, _, _ in parts for prediction in predictions],
        [failure for _, failures, _ in parts for failure in failures],
        Counts(**tally.add(asdict(counts) for _, _, counts in parts)),
    )

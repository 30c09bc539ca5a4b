"""Holds the predictions of many documents in arrays, and makes the rows of some documents at a time.

A slice of 14,000 documents and 1,200 labels has 17 million scores, which take 7 GiB as Python objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.corpus.records import Labelling, Prediction
from inference.scoring.tally import Decided
from models.decision import decide, probabilities
from models.trained_model import Manifest

PLACES = 6  # decimal places of a probability
SCORES_AT_ONCE = 1_000_000  # scores of all models in a block of documents
MOST_DOCUMENTS = 10_000  # documents in a block of few labels


@dataclass(frozen=True, eq=False)
class Lists:
    """A list of label indices for each document, end to end as Arrow holds them."""

    indices: NDArray[np.int64]  # indices of all documents
    offsets: NDArray[np.int64]  # start of each document's list in `indices`, and the end of the last one


@dataclass(frozen=True, eq=False)
class Labellings:
    """The labels and scores that one model gives to a block of documents."""

    names: tuple[str, ...]  # names of all labels of the model
    labels: Lists  # labels of each document
    scored: Lists  # labels whose scores are written
    scores: NDArray[np.float64]  # probabilities that belong to `scored.indices`

    def __iter__(self) -> Iterator[Labelling]:
        """Yield the labelling of each document."""
        names = np.array(self.names, object)
        for document in range(len(self.labels.offsets) - 1):
            applied = slice(*self.labels.offsets[document : document + 2])
            scored = slice(*self.scored.offsets[document : document + 2])
            pairs = zip(names[self.scored.indices[scored]], self.scores[scored].tolist(), strict=True)
            yield Labelling(tuple(names[self.labels.indices[applied]]), tuple(pairs))


@dataclass(frozen=True, eq=False)
class ModelScores:
    """The probabilities that one model gives to documents. Documents with equal texts share a row."""

    manifest: Manifest
    selection: str  # which scores are written: predicted, all, or top:K
    probs: NDArray[np.float32]  # (distinct texts, labels); `decided` gives the exact values
    rows: NDArray[np.int64]  # row of each document in `probs`

    @classmethod
    def from_logits(cls, manifest: Manifest, selection: str, logits: NDArray[np.float32]) -> "ModelScores":
        """Turn logits (texts, labels) into probabilities, in the same memory. Each text is one document."""
        labels = manifest.labels
        for part in _parts(len(logits), _at_once(len(labels.names))):
            logits[part] = np.round(probabilities(logits[part], labels.task, manifest.decision), PLACES)
        return cls(manifest, selection, logits, np.arange(len(logits)))

    def of(self, rows: NDArray[np.int64]) -> "ModelScores":
        """Return the probabilities of documents that have these rows."""
        return ModelScores(self.manifest, self.selection, self.probs, rows)

    def decided(self, part: slice) -> Decided:
        """Return probabilities rounded to 6 places, and the labels that follow, both (documents, labels).

        An error of half a float32's last place is less than a tenth of the sixth place, so that rounding again restores
        the float64 exactly.
        """
        probs = self.probs[self.rows[part]].astype(np.float64).round(PLACES)
        return probs, decide(probs, self.manifest.labels, self.manifest.decision)

    def all_decided(self) -> Iterator[Decided]:
        """Yield what `decided` returns, for one block of documents after another."""
        for part in _parts(len(self.rows), _at_once(self.probs.shape[1])):
            yield self.decided(part)

    def labellings(self, part: slice) -> Labellings:
        """Return the labels of some documents, with the scores that the run writes."""
        probs, chosen = self.decided(part)
        labels, scored = _lists(chosen), _scored(probs, chosen, self.selection)
        owners = np.repeat(np.arange(len(probs)), np.diff(scored.offsets))
        return Labellings(self.manifest.labels.names, labels, scored, probs[owners, scored.indices])


@dataclass(frozen=True, eq=False)
class Block:
    """The predictions of some documents, ready to be written."""

    ids: Sequence[str]
    kept_fields: Sequence[dict[str, Any]]
    by_model: dict[str, Labellings]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of documents. Iterating makes one Prediction at a time."""

    places: Sequence[int]  # number of each document's line in its slice, from 0
    ids: Sequence[str]
    kept_fields: Sequence[dict[str, Any]]  # values by field name, for each document
    by_model: dict[str, ModelScores]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Prediction]:
        for block in self.blocks():
            by_document = zip(*block.by_model.values(), strict=True)
            for identifier, kept, row in zip(block.ids, block.kept_fields, by_document, strict=True):
                yield Prediction(identifier, kept, dict(zip(block.by_model, row, strict=True)))

    def blocks(self) -> Iterator[Block]:
        """Yield the predictions in blocks of about SCORES_AT_ONCE scores, in order."""
        labels = sum(scores.probs.shape[1] for scores in self.by_model.values())
        for part in _parts(len(self), _at_once(labels)):
            by_model = {name: scores.labellings(part) for name, scores in self.by_model.items()}
            yield Block(self.ids[part], self.kept_fields[part], by_model)


def merged(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of all parts, in order; every part holds the same models, and there is at least one."""
    by_model = {}
    for name, first in parts[0].by_model.items():
        of_model = [part.by_model[name] for part in parts]
        starts = np.cumsum([0, *(len(scores.probs) for scores in of_model[:-1])])
        by_model[name] = ModelScores(
            first.manifest,
            first.selection,
            np.concatenate([scores.probs for scores in of_model]),
            np.concatenate([scores.rows + start for scores, start in zip(of_model, starts, strict=True)]),
        )
    return Predictions(
        [place for part in parts for place in part.places],
        [identifier for part in parts for identifier in part.ids],
        [kept for part in parts for kept in part.kept_fields],
        by_model,
    )


def _at_once(labels: int) -> int:
    """Return the number of documents in a block."""
    return max(1, min(MOST_DOCUMENTS, SCORES_AT_ONCE // max(labels, 1)))


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _lists(chosen: NDArray[np.bool_]) -> Lists:
    """Return the labels that apply to each document, from booleans (documents, labels)."""
    return Lists(np.nonzero(chosen)[1], np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]))


def _equal_lists(indices: NDArray[np.int64]) -> Lists:
    """Return lists of equal lengths, from label indices (documents, labels)."""
    return Lists(indices.ravel(), np.arange(len(indices) + 1) * indices.shape[1])


def _scored(probs: NDArray[np.float64], chosen: NDArray[np.bool_], selection: str) -> Lists:
    """Return the labels whose scores `--scores` writes, from arrays (documents, labels)."""
    if selection == "predicted":
        return _lists(chosen)
    if selection == "all":
        return _equal_lists(np.broadcast_to(np.arange(probs.shape[1]), probs.shape))
    count = min(int(selection.removeprefix("top:")), probs.shape[1])
    # One integer holds a probability, in reverse, and the index of its label, which decides between equal ones.
    keys = np.rint((1 - probs) * 10**PLACES).astype(np.int64) * probs.shape[1] + np.arange(probs.shape[1])
    return _equal_lists(np.sort(np.partition(keys, count - 1, axis=1)[:, :count], axis=1) % probs.shape[1])

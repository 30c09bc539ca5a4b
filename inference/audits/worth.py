"""Chooses the documents that are most worth a label for the next training.

A label is worth most where the model is undecided: next to the threshold. Each label gets an equal part of the sheet,
the rare ones first, half of it from above the threshold and half from below. A text that nearly repeats a chosen one is
passed over. Such documents are no sample of the corpus, so that nothing is estimated from them.
"""

import functools
import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.audits import drawing, population, sheets, texts
from inference.audits.drawing import Drawn, Fold, Result
from inference.audits.population import SCALE, Population, Question, RowFile
from models.text import TextRecipe

SPARE = 4  # candidates for each place on the sheet, from which near repetitions are dropped
NEAR = 0.8  # Jaccard similarity of the word triples of two texts above which one is passed over
NO_STRATUM = -1


def choose(
    source: Population, size: int, thresholds: Sequence[float], recipe: TextRecipe, fold: Fold
) -> tuple[list[Drawn], list[str]]:
    """Return the chosen documents with their texts, as coders see them.

    Raises:
        UserError: a file of rows is gone or has changed, a label is unknown, or a text cannot be shown.
        SourceError: the input has changed since it was labelled, or cannot be read.
    """
    quota = math.ceil(size / len(source.question.labels))
    of_file = functools.partial(_of_file, question=source.question, thresholds=tuple(thresholds), most=SPARE * quota)
    found = fold(source.files, of_file, functools.partial(_merge, most=SPARE * quota))
    order = sorted(found["counts"], key=lambda label: found["counts"][label])
    candidates = [_alternating(found["near"][label]) for label in order]
    places = {(one.file, one.row): one for one in itertools.chain(*candidates)}
    shown = dict(zip(places, map(sheets.shown, texts.of_drawn(source, list(places.values()), recipe)), strict=True))
    chosen: dict[tuple[int, int], frozenset[str]] = {}
    for left in (quota, size):  # what a label leaves over goes to the others
        for of_label in candidates:
            taken = 0
            for one in of_label:
                key = (one.file, one.row)
                triples = _triples(shown[key])
                if len(chosen) == size or taken == left:
                    break
                if key not in chosen and not any(_near(triples, other) for other in chosen.values()):
                    chosen[key] = triples
                    taken += 1
    return [places[key] for key in chosen], [shown[key] for key in chosen]


def _of_file(file: RowFile, question: Question, thresholds: tuple[float, ...], most: int) -> Result:
    results: list[Result] = []
    for block in population.blocks(file, question):
        margins = _logits(block.scores / SCALE) - _logits(np.asarray(thresholds))
        near: dict[str, dict[str, list[Any]]] = {}
        for label in range(len(thresholds)):
            for side, inside in (("above", margins[:, label] >= 0), ("below", margins[:, label] < 0)):
                places = np.flatnonzero(inside)
                nearest = places[np.argsort(abs(margins[places, label]), kind="stable")[:most]]
                near.setdefault(str(label), {})[side] = [
                    [float(abs(margins[place, label])), list(drawing.drawn_of(block, int(place), file, 0, NO_STRATUM))]
                    for place in nearest
                ]
        counts = {str(label): int(count) for label, count in enumerate(block.applies.sum(axis=0))}
        results.append({"counts": counts, "near": near})
    return _merge(results, most)


def _merge(results: Iterable[Result], most: int) -> Result:
    counts: dict[str, int] = {}
    near: dict[str, dict[str, list[Any]]] = {}
    for result in results:
        for label, count in result["counts"].items():
            counts[label] = counts.get(label, 0) + count
        for label, sides in result["near"].items():
            for side, candidates in sides.items():
                both = [*near.setdefault(label, {}).get(side, ()), *candidates]
                near[label][side] = heapq.nsmallest(most, both, key=lambda one: (one[0], one[1][1:3]))
    return {"counts": counts, "near": near}


def _alternating(sides: dict[str, list[Any]]) -> list[Drawn]:
    """Return the candidates of a label, one from above the threshold and one from below in turn."""
    pairs = itertools.zip_longest(sides["above"], sides["below"])
    return [Drawn(*one[1]) for one in itertools.chain.from_iterable(pairs) if one is not None]


def _logits(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(shares, 0.5 / SCALE, 1 - 0.5 / SCALE)
    return np.log(clipped / (1 - clipped))


def _triples(text: str) -> frozenset[str]:
    words = text.casefold().split()
    return frozenset(" ".join(words[place : place + 3]) for place in range(max(len(words) - 2, 1)))


def _near(one: frozenset[str], other: frozenset[str]) -> bool:
    small, large = sorted((len(one), len(other)))
    return small >= NEAR * large and len(one & other) >= NEAR * len(one | other)

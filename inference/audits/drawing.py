"""Draws a probability sample of a population in passes over its rows, in this process or as a Beam pipeline.

A pass turns each file into a small result, and the results are merged in any order. Within a stratum, each subset of
the wanted number of documents is equally likely: those with the smallest of random numbers, which depend on the seed,
the content and the place of the file, and the row.
"""

import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.audits import population, strata
from inference.audits.population import Block, Population, Question, RowFile
from inference.audits.strata import Design
from inference.scoring import tally
from inference.scoring.tally import Totals

# A pass over files: what a file gives, and how results are merged. Both give what JSON can hold.
Result = dict[str, Any]
OfFile = Callable[[RowFile], Result]
Merge = Callable[[Iterable[Result]], Result]
Fold = Callable[[Sequence[RowFile], OfFile, Merge], Result]


class Drawn(NamedTuple):
    """A document that was drawn."""

    key: int  # random number of 64 bits
    file: int  # number of the file of rows
    row: int  # number of the row in the file, from 0
    stratum: int
    id: str
    group: str
    scores: list[int]  # score of each audited label, in millionths
    applies: list[bool]  # whether the model gave each audited label


@dataclass(frozen=True)
class Sample:
    """What a draw found: the strata, the documents drawn, and the sums over the whole population."""

    design: Design
    drawn: list[Drawn]  # in the order of the rows
    cells: Totals  # documents and sums of scores by stratum, group, label, and whether the model gave it


def in_order(files: Sequence[RowFile], of_file: OfFile, merge: Merge) -> Result:
    """Make a pass over files one after another, in this process."""
    return merge(map(of_file, files))


def draw(source: Population, size: int, seed: int, fold: Fold = in_order) -> Sample:
    """Draw a sample.

    Args:
        source: The population.
        size: The number of documents to draw.
        seed: The seed of the random numbers.
        fold: What makes a pass.

    Raises:
        UserError: a file of rows is gone or has changed, a label is unknown, or the size does not fit.
    """
    design = plan(source, size, fold)
    found = fold(
        source.files,
        functools.partial(_draw_of_file, question=source.question, design=design, seed=seed),
        functools.partial(_merge_drawn, design=design),
    )
    drawn = [Drawn(*one) for of_stratum in found["drawn"].values() for one in of_stratum]
    return Sample(design, sorted(drawn, key=lambda one: (one.file, one.row)), found["cells"])


def plan(source: Population, size: int, fold: Fold = in_order) -> Design:
    """Return the strata for a sample of a size."""
    question = source.question
    weights: tuple[float, ...] = (1.0,)
    if len(question.labels) > 1:
        of_blocks = functools.partial(_tally, question=question, count=strata.variances)
        weights = strata.weights_of(fold(source.files, of_blocks, tally.add))
    counting = functools.partial(strata.histogram, weights=weights)
    counted = fold(source.files, functools.partial(_tally, question=question, count=counting), tally.add)
    return strata.design(counted, weights, size)


def _tally(file: RowFile, question: Question, count: Callable[[Block], Totals]) -> Totals:
    return tally.add(count(block) for block in population.blocks(file, question))


def _draw_of_file(file: RowFile, question: Question, design: Design, seed: int) -> Result:
    cells: Totals = {}
    drawn: dict[str, list[list[Any]]] = {}
    numbers = np.random.Philox(np.random.SeedSequence([seed, int(file.sha256, 16), file.number]))
    for block in population.blocks(file, question):
        of_document = design.strata_of(block)
        tally.add_to(cells, _cells(block, of_document))
        keys = numbers.random_raw(len(block.ids))
        new = {
            str(number): [list(drawn_of(block, int(place), file, int(keys[place]), number)) for place in places]
            for number, places in _smallest(keys, of_document, design)
        }
        drawn = _merge_drawn([{"drawn": drawn, "cells": {}}, {"drawn": new, "cells": {}}], design)["drawn"]
    return {"cells": cells, "drawn": drawn}


def _smallest(
    keys: NDArray[np.uint64], of_document: NDArray[np.int64], design: Design
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield for each stratum the places of the documents with the smallest keys, as many as are drawn of it."""
    for number in np.unique(of_document):
        places = np.flatnonzero(of_document == number)
        yield int(number), places[np.argsort(keys[places], kind="stable")[: design.strata[number].drawn]]


def drawn_of(block: Block, place: int, file: RowFile, key: int, stratum: int) -> Drawn:
    """Return the document at a place of a block as one that was drawn."""
    scores, applies = block.scores[place].tolist(), block.applies[place].tolist()
    row = block.first + place
    return Drawn(key, file.number, row, stratum, block.ids[place], block.groups[place], scores, applies)


def _cells(block: Block, of_document: NDArray[np.int64]) -> Totals:
    """Return by stratum, group, label and decision the number of documents and the sum of their scores."""
    groups, group_of = np.unique(np.array(block.groups, object), return_inverse=True)
    total: Totals = {}
    for label in range(block.scores.shape[1]):
        applies = block.applies[:, label]
        keys, inverse = np.unique(np.stack([of_document, group_of, applies]), axis=1, return_inverse=True)
        counts = np.bincount(inverse).tolist()
        sums = np.zeros(len(counts), np.int64)
        np.add.at(sums, inverse, block.scores[:, label])
        for (number, group, applied), count, score in zip(keys.T, counts, sums.tolist(), strict=True):
            by_group = total.setdefault(str(number), {}).setdefault(groups[group], {})
            by_group.setdefault(str(label), {})[str(int(applied))] = [count, score]
    return total


def _merge_drawn(results: Iterable[Result], design: Design) -> Result:
    cells: Totals = {}
    drawn: dict[str, list[list[Any]]] = {}
    for result in results:
        tally.add_to(cells, result["cells"])
        for number, candidates in result["drawn"].items():
            both = [*drawn.get(number, ()), *candidates]
            drawn[number] = heapq.nsmallest(design.strata[int(number)].drawn, both, key=lambda one: one[:3])
    return {"cells": cells, "drawn": drawn}

"""Finds pairs of documents with the same or nearly the same text, across splits and inside each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training import near_duplicates
from training.examples import Examples, Splits, concatenate
from training.spool import digest


@dataclass(frozen=True)
class Duplicate:
    """Two documents that share a text, as a row of duplicates.jsonl."""

    kind: Literal["exact", "near", "conflict"]  # conflict: equal texts with different labels
    similarity: float  # Jaccard similarity of the texts, from 0 to 1
    id: str
    split: str
    other_id: str
    other_split: str


def leaked(duplicates: Sequence[Duplicate]) -> set[str]:
    """Return the ids of training documents with a duplicate in validation or test."""
    return {pair.id for pair in duplicates if pair.split == "train" and pair.other_split != "train"}


def counts(duplicates: Sequence[Duplicate]) -> dict[str, int]:
    """Return the number of pairs by kind and splits, with keys such as `near train-test`."""
    return dict(sorted(Counter(f"{pair.kind} {pair.split}-{pair.other_split}" for pair in duplicates).items()))


def find(splits: Splits, threshold: float) -> list[Duplicate]:
    """Return exact and near duplicates across splits, exact ones inside a split, and conflicts anywhere.

    Across splits, a document is paired with the most similar one of the splits that follow: train, validation, test.
    """
    held_out = concatenate([splits.validation, splits.test])
    names = ["validation"] * len(splits.validation) + ["test"] * len(splits.test)
    pairs = [*_across(splits.train, "train", held_out, names, threshold)]
    pairs += _across(splits.validation, "validation", splits.test, ["test"] * len(splits.test), threshold)
    for name, examples in splits.items():
        pairs += _repeated(examples, name)
    return [*pairs, *_conflicts(splits)]


def _across(
    examples: Examples, split: str, others: Examples, other_splits: Sequence[str], threshold: float
) -> Iterator[Duplicate]:
    index = near_duplicates.Index(others.texts, threshold)
    places: dict[bytes, int] = {}
    for place, text in enumerate(others.texts):
        places.setdefault(digest(text), place)
    for text, document in zip(examples.texts, examples.ids, strict=True):
        same = places.get(digest(text))  # preferred to a text that differs only in case or punctuation
        nearest = index.nearest(text) if same is None else (same, 1.0)
        if nearest:
            place, similarity = nearest
            kind: Literal["exact", "near"] = "near" if same is None else "exact"
            yield Duplicate(kind, round(similarity, 4), document, split, others.ids[place], other_splits[place])


def repeats(examples: Examples, splits: Splits, threshold: float) -> set[str]:
    """Return the ids of examples whose text a validation or test document has, or nearly has."""
    held_out = concatenate([splits.validation, splits.test])
    names = ["held out"] * len(held_out)
    return {pair.id for pair in _across(examples, "taught", held_out, names, threshold)}


def _repeated(examples: Examples, split: str) -> Iterator[Duplicate]:
    """Return documents whose text and labels occur earlier in the same split.

    Only validation and test can have such documents, since training data loses its duplicates before.
    """
    first: dict[bytes, str] = {}
    for text, target, document in zip(examples.texts, examples.targets, examples.ids, strict=True):
        key = digest(text) + target.tobytes()
        if key in first:
            yield Duplicate("exact", 1.0, first[key], split, document, split)
        else:
            first[key] = document


def _conflicts(splits: Splits) -> list[Duplicate]:
    """Return the first two documents with contrary labels for each text that has such documents.

    An unknown label contradicts nothing.
    """
    first: dict[bytes, int] = {}
    conflicts: dict[int, Duplicate] = {}
    names = [name for name, examples in splits.items() for _ in range(len(examples))]
    everything = concatenate([examples for _, examples in splits.items()])
    for place, text in enumerate(everything.texts):
        earlier = first.setdefault(digest(text), place)
        differs = np.abs(everything.targets[earlier] - everything.targets[place]) > 0
        if earlier not in conflicts and differs.any():
            one, other = everything.ids[earlier], everything.ids[place]
            conflicts[earlier] = Duplicate("conflict", 1.0, one, names[earlier], other, names[place])
    return list(conflicts.values())

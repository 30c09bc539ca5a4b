"""Finds documents that are the same or nearly, across splits and inside one, and equal texts with other labels."""

from collections.abc import Sequence
from typing import Any

from training import data, near_duplicates
from training.data import SPLITS, Examples, Splits


def leaked(twins: Sequence[dict[str, Any]]) -> set[str]:
    """The ids of training documents that stand, nearly, in validation or test."""
    return {twin["id"] for twin in twins if twin["split"] == "train" and twin["other_split"] != "train"}


def find(splits: Splits, threshold: float) -> list[dict[str, Any]]:
    """Pairs that are the same or nearly across splits, or the same inside one, and conflicts.

    A conflict is the same text with other labels, anywhere. Across splits each document stands with the most similar
    one of the splits after its own: train, validation, test.
    """
    held_out = data.concatenate([splits.validation, splits.test])
    names = ["validation"] * len(splits.validation) + ["test"] * len(splits.test)
    twins = _pairs(splits.train, "train", held_out, names, threshold)
    twins += _pairs(splits.validation, "validation", splits.test, ["test"] * len(splits.test), threshold)
    for name in SPLITS:
        twins += _repeated(getattr(splits, name), name)
    return twins + _conflicts(splits)


def _pairs(
    examples: Examples, split: str, others: Examples, other_splits: Sequence[str], threshold: float
) -> list[dict[str, Any]]:
    index = near_duplicates.Index(others.texts, threshold)
    places: dict[str, int] = {}
    for place, text in enumerate(others.texts):
        places.setdefault(text, place)
    twins = []
    for text, document in zip(examples.texts, examples.ids, strict=True):
        same = places.get(text)  # goes before a text that is as similar and differs in case or punctuation
        found = index.nearest(text) if same is None else (same, 1.0)
        if found:
            place, similarity = found
            kind = "near" if same is None else "exact"
            twins.append(_twin(kind, (document, split), (others.ids[place], other_splits[place]), similarity))
    return twins


def _repeated(examples: Examples, split: str) -> list[dict[str, Any]]:
    """Documents whose text and labels stand in the same split before: only given validation and test have some."""
    first: dict[tuple[str, bytes], str] = {}
    twins = []
    for text, target, document in zip(examples.texts, examples.targets, examples.ids, strict=True):
        key = text, target.tobytes()
        if key in first:
            twins.append(_twin("exact", (first[key], split), (document, split)))
        else:
            first[key] = document
    return twins


def _twin(kind: str, one: tuple[str, str], other: tuple[str, str], similarity: float = 1.0) -> dict[str, Any]:
    """A row of the listing; the documents as (id, split)."""
    (document, split), (other_id, other_split) = one, other
    places = {"id": document, "split": split, "other_id": other_id, "other_split": other_split}
    return {"kind": kind, "similarity": round(similarity, 4), **places}


def _conflicts(splits: Splits) -> list[dict[str, Any]]:
    """For each text that stands with different labels, its first two documents that differ."""
    first: dict[str, tuple[bytes, str, str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in SPLITS:
        part: Examples = getattr(splits, name)
        for text, target, document in zip(part.texts, part.targets, part.ids, strict=True):
            labels, earlier, split = first.setdefault(text, (target.tobytes(), document, name))
            if labels != target.tobytes() and text not in found:
                found[text] = _twin("conflict", (earlier, split), (document, name))
    return list(found.values())

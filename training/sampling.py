"""Selects the documents of each split: drops duplicates, cuts missing splits, samples the training split."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema, Task
from training import data, near_duplicates
from training.config import Split, TrainConfig
from training.examples import Examples, Splits, concatenate
from training.spool import digest


def without_duplicates(examples: Examples) -> Examples:
    """Return one example of each text and its labels: the first one by key, whatever the order of the rows."""
    kept: dict[bytes, int] = {}
    for place, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
        content = digest(text) + target.tobytes()
        same = kept.setdefault(content, place)
        if examples.groups and examples.groups[place] < examples.groups[same]:
            kept[content] = place
    return examples.take(np.array(sorted(kept.values()), np.int64), "duplicate")


def cut(train: Examples, names: Sequence[str], split: Split, seed: int) -> dict[str, Examples]:
    """Cut the named splits from the training documents, so that each label has its share of every split.

    Documents with the same key stay together, and the rarest label of a key is its stratum. The keys of a stratum are
    ordered by their hashes, so the cut depends on the seed and not on the order of the rows. The last key of a stratum
    stays in train, since a label with a single document can be learnt but not measured. The shares are of documents, so
    that a key with many of them uses up the share of many keys.
    """
    order, starts = _by_key(train, seed)
    documents = np.diff(starts, append=len(order))
    split_of_key = np.zeros(len(starts), np.int64)  # 0 is train
    due = dict.fromkeys(names, 0.0)
    rarest = _rarest_labels(train.positive[order], starts)
    for stratum in np.unique(rarest):
        keys = np.flatnonzero(rarest == stratum)
        size = documents[keys].sum()
        for number, name in enumerate(names, 1):
            due[name] += getattr(split, name) * size
            count = min(_keys_for(due[name], documents[keys]), len(keys) - 1)
            due[name] -= documents[keys[:count]].sum()
            split_of_key[keys[:count]] = number
            keys = keys[count:]
    split_of_document = np.empty(len(order), np.int64)
    split_of_document[order] = np.repeat(split_of_key, documents)
    parts = {
        name: train.take(np.flatnonzero(split_of_document == number)) for number, name in enumerate(("train", *names))
    }
    for name in names:
        parts[name].skipped.clear()  # rows left out before the cut are counted once, in train
    return parts


def folds(examples: Examples, number: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each document, so that each label has its share of every fold where it is the rarest of a key.

    Documents with the same key, and so the same text, share a fold. The keys of a stratum are dealt out in the order of
    their hashes.

    Raises:
        UserError: there are too few documents or keys.
    """
    order, starts = _by_key(examples, seed)
    if len(order) < 10 * number or len(starts) < number:
        raise UserError(
            f"--folds {number}: expected at least {10 * number} documents with {number} different texts or values of "
            f"data.split_by, found {len(order)} with {len(starts)}."
        )
    by_stratum = np.argsort(_rarest_labels(examples.positive[order], starts), kind="stable")
    fold_of_key = np.empty(len(starts), np.int64)
    fold_of_key[by_stratum] = np.arange(len(starts)) % number
    fold_of_document = np.empty(len(order), np.int64)
    fold_of_document[order] = np.repeat(fold_of_key, np.diff(starts, append=len(order)))
    return fold_of_document


def of_fold(examples: Examples, fold_of: NDArray[np.int64], fold: int) -> Splits:
    """Return a fold as test, the next one as validation, which chooses the best weights, and the others as train."""
    validation = (fold + 1) % (int(fold_of.max()) + 1)
    parts = ((fold_of != fold) & (fold_of != validation), fold_of == validation, fold_of == fold)
    return Splits(*(examples.take(np.flatnonzero(part)) for part in parts))


def _by_key(examples: Examples, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of documents by the hashes of their keys, and where each key starts in this order."""
    positions = np.array([position(key, seed) for key in examples.keys])
    order = np.argsort(positions, kind="stable")
    return order, np.flatnonzero(np.diff(positions[order], prepend=-1.0))


def _keys_for(due: float, documents: NDArray[np.int64]) -> int:
    """Return how many keys, from the first one on, bring the number of documents nearest to what is due."""
    reached = np.concatenate([[0], np.cumsum(documents)])
    return len(reached) - 1 - int(np.abs(reached - max(due, 0.0))[::-1].argmin())  # of two that are as near, the larger


def _rarest_labels(positive: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rarest label of each key, or -1, from whether labels apply to the documents in the order of keys."""
    if not len(starts):
        return starts
    of_key = np.maximum.reduceat(positive, starts, axis=0)
    frequency = np.where(of_key, positive.sum(axis=0), len(positive) + 1)
    return np.where(of_key.any(axis=1), frequency.argmin(axis=1), -1)


def position(key: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sampled(splits: Splits, config: TrainConfig, schema: LabelSchema, data_dir: Path) -> Examples:
    """Return the training documents after the subsampling, undersampling and weak negatives of the configuration.

    Raises:
        UserError: there are too few weak negatives.
    """
    train, chance = splits.train, np.random.default_rng(config.data_seed)
    if config.data.subsample < 1:
        count = max(1, round(config.data.subsample * len(train)))
        train = train.take(np.sort(chance.permutation(len(train))[:count]), "subsampled")
    if config.data.undersample:
        train = _undersampled(train, config.data.undersample, schema.task, chance)
    if config.data.weak_negatives:
        train = concatenate([train, _weak_negatives(len(train), splits, config, schema, data_dir)])
    return train


def _undersampled(train: Examples, ratio: float, task: Task, chance: np.random.Generator) -> Examples:
    """Cut the largest class to at most `ratio` times all others; for multi_label, the documents without a label."""
    if task is Task.MULTI_LABEL:
        largest = ~train.positive.any(axis=1)
    else:
        largest = train.targets[:, train.targets.sum(axis=0).argmax()] > 0
    members, others = np.flatnonzero(largest), np.flatnonzero(~largest)
    kept = chance.permutation(members)[: max(1, math.floor(ratio * len(others)))] if len(others) else members
    return train.take(np.sort(np.concatenate([others, kept])), "undersampled")


def _weak_negatives(count: int, splits: Splits, config: TrainConfig, schema: LabelSchema, data_dir: Path) -> Examples:
    """Return texts of another corpus as documents without a label, for a training split of `count` documents.

    No text that is in the labelled data, or nearly, is among them.
    """
    weak = config.data.weak_negatives
    assert weak is not None
    texts, ids = data.read_texts(weak.files, config, data_dir)
    labelled = concatenate([splits.train, splits.validation, splits.test])  # before sampling left any of them out
    index = near_duplicates.Index(labelled.texts, config.data.near_duplicate)
    wanted = round(weak.share / (1 - weak.share) * count)
    order = sorted(range(len(texts)), key=lambda i: position(f"{texts[i]}\0{ids[i]}", config.data_seed))
    chosen: dict[str, str] = {}
    for i in order:
        if len(chosen) == wanted:
            break
        if texts[i] not in chosen and index.nearest(texts[i]) is None:
            chosen[texts[i]] = ids[i]
    if len(chosen) < wanted:
        raise UserError(
            f"data.weak_negatives: expected {wanted:,} distinct texts for a share of {weak.share}, found "
            f"{len(chosen):,} that are not in the labelled data; give more files or a smaller share."
        )
    target = np.zeros((wanted, len(schema.names)), np.float32)
    if schema.task is Task.BINARY:
        target[:, 0] = 1
    return Examples.of(chosen, target, [*chosen.values()])

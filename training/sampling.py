"""Selects the documents of each split: drops duplicates, cuts missing splits, samples the training split."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.errors import UserError
from models.labels import LabelSchema, Task
from training import data, near_duplicates
from training.config import Split, TrainConfig
from training.examples import Examples, Splits, concatenate


def without_duplicates(examples: Examples) -> Examples:
    """Return one example of each text and its labels: the first one by key, whatever the order of the rows."""
    kept: dict[tuple[str, bytes], int] = {}
    for place, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
        same = kept.setdefault((text, target.tobytes()), place)
        if examples.keys[place] < examples.keys[same]:
            kept[text, target.tobytes()] = place
    return examples.take(np.array(sorted(kept.values()), np.int64), "duplicate")


def cut(train: Examples, names: Sequence[str], split: Split, seed: int) -> dict[str, Examples]:
    """Cut the named splits from the training documents, so that each label has its share of every split.

    Documents with the same key stay together, and the rarest label of a key is its stratum. The keys of a stratum are
    ordered by their hashes, so the cut depends on the seed and not on the order of the rows. The last key of a stratum
    stays in train, since a label with a single document can be learnt but not measured.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(train.keys):
        members[key].append(place)
    taken: dict[str, list[int]] = {name: [] for name in ("train", *names)}
    due = dict.fromkeys(names, 0.0)
    for stratum in _strata(train, members, seed):
        keys = stratum
        for name in names:
            due[name] += getattr(split, name) * len(stratum)
            count = min(math.floor(due[name] + 0.5), len(keys) - 1) if due[name] > 0 else 0
            due[name] -= count
            taken[name] += [place for key in keys[:count] for place in members[key]]
            keys = keys[count:]
        taken["train"] += [place for key in keys for place in members[key]]
    parts = {name: train.take(np.array(sorted(places), np.int64)) for name, places in taken.items()}
    for name in names:
        parts[name].skipped.clear()  # rows left out before the cut are counted once, in train
    return parts


def _strata(train: Examples, members: Mapping[str, Sequence[int]], seed: int) -> list[list[str]]:
    """Return the keys whose rarest label is the same, in the order of their hashes, for each such label."""
    frequency = train.positive.sum(axis=0)
    strata: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for key, places in members.items():
        labels = np.flatnonzero(train.positive[places].any(axis=0))
        rarest = int(labels[frequency[labels].argmin()]) if len(labels) else -1
        strata[rarest].append((position(key, seed), key))
    return [[key for _, key in sorted(strata[rarest])] for rarest in sorted(strata)]


def position(key: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sampled(splits: Splits, config: TrainConfig, schema: LabelSchema, data_dir: Path) -> Examples:
    """Return the training documents after the subsampling, undersampling and weak negatives of the configuration.

    Raises:
        UserError: there are too few weak negatives.
    """
    train, chance = splits.train, np.random.default_rng(config.training.seed)
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
    order = sorted(range(len(texts)), key=lambda i: position(f"{texts[i]}\0{ids[i]}", config.training.seed))
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
    return Examples([*chosen], target, [*chosen.values()], [*chosen])

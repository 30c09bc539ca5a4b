"""Turns labelled files into the splits of a training: duplicates, leaks, splitting, sampling; and says what is in them.

python -m training.prepare training/configs/goemotions.toml --data_dir data --output prepared/goemotions
"""

import hashlib
import json
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import UserError, exit_code
from models.labels import LabelSchema, Task
from training import command, data, data_card, near_duplicates
from training.config import Split, TrainConfig, load_config
from training.data import Examples, Splits

NAMES = ("train", "validation", "test")
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Prepared:
    """The labels, the splits, and what was noticed on the way."""

    schema: LabelSchema
    splits: Splits
    card: dict[str, Any]  # counts; training.data_card says what it holds
    twins: list[dict[str, Any]]  # pairs of documents that are the same or nearly, and should not be


def prepare(config: TrainConfig, data_dir: Path) -> Prepared:
    """Reads every split, cuts those that are missing, keeps validation and test out of train, samples train.

    Raises:
        UserError: a file or column is missing, a split is empty, a label is in no training document, or weak
            negatives are asked for where every document has a label.
    """
    schema = config.labels.schema_in(data_dir)
    if config.data.weak_negatives and schema.task is Task.MULTI_CLASS:
        raise UserError(
            "data.weak_negatives: expected a binary or multi_label task, found multi_class, where no document is "
            "without a label; remove the section."
        )
    given = {name: data.read(config, name, data_dir, schema) for name in NAMES}
    train = given["train"]
    assert train is not None  # the configuration always names one
    train = _without_duplicates(train)
    cut = [name for name in ("test", "validation") if given[name] is None]
    parts = {name: part for name, part in given.items() if part is not None}
    parts |= _cut(train, cut, config.data.split, config.training.seed)
    splits = Splits(parts["train"], parts["validation"], parts["test"])
    _check_not_empty(splits, config)
    twins = _find_twins(splits, config.data.near_duplicate)
    leaked = {twin["id"] for twin in twins if twin["split"] == "train" and twin["other_split"] != "train"}
    if config.data.drop_leaks:
        splits = replace(splits, train=_where(splits.train, [i not in leaked for i in splits.train.ids], "leak"))
    splits = replace(splits, train=_sampled(splits, config, schema, data_dir))
    _check_labels_are_learnt(splits, schema)
    card = data_card.counts(splits, schema) | {"twins": data_card.twin_counts(twins), "settings": _settings(config)}
    return Prepared(schema, splits, card, twins)


def _where(examples: Examples, kept: Sequence[bool] | NDArray[np.bool_], reason: str) -> Examples:
    return examples.take(np.flatnonzero(np.asarray(kept, bool)), reason)


def _without_duplicates(examples: Examples) -> Examples:
    """Of equal texts with equal labels one: the first by key, so that the order of the rows decides nothing."""
    kept: dict[tuple[str, bytes], int] = {}
    for place, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
        same = kept.setdefault((text, target.tobytes()), place)
        if examples.keys[place] < examples.keys[same]:
            kept[text, target.tobytes()] = place
    return examples.take(np.array(sorted(kept.values()), np.int64), "duplicate")


def _cut(train: Examples, names: Sequence[str], split: Split, seed: int) -> dict[str, Examples]:
    """Cuts the named splits from the training documents, stratified: each label is spread as the whole is.

    Documents with the same key stay together. The rarest label of a key is its stratum; inside a stratum keys stand in
    the order of their hashes, so the cut depends on the seed and not on the order of the rows. The last key of a
    stratum stays in train: a label with one document is learnt, not measured.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(train.keys):
        members[key].append(place)
    frequency = train.targets.sum(axis=0)
    strata: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for key, places in members.items():
        labels = np.flatnonzero(train.targets[places].any(axis=0))
        rarest = int(labels[frequency[labels].argmin()]) if len(labels) else -1
        strata[rarest].append((_place(key, seed), key))
    taken: dict[str, list[int]] = {name: [] for name in ("train", *names)}
    due = dict.fromkeys(names, 0.0)
    for stratum in sorted(strata):
        keys = [key for _, key in sorted(strata[stratum])]
        for name in names:
            due[name] += getattr(split, name) * len(strata[stratum])
            count = min(math.floor(due[name] + 0.5), len(keys) - 1) if due[name] > 0 else 0
            due[name] -= count
            taken[name] += [place for key in keys[:count] for place in members[key]]
            keys = keys[count:]
        taken["train"] += [place for key in keys for place in members[key]]
    parts = {name: train.take(np.array(sorted(places), np.int64)) for name, places in taken.items()}
    for name in names:
        parts[name].skipped.clear()  # what was left out before the cut is told once, of train
    return parts


def _place(key: str, seed: int) -> float:
    """A number from 0 to 1 that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_not_empty(splits: Splits, config: TrainConfig) -> None:
    for name in NAMES:
        part: Examples = getattr(splits, name)
        if not len(part) and (name != "test" or config.data.test or config.data.split.test):
            raise UserError(
                f"data.{name}: expected at least one row with a text and a label, found none "
                f"(left out: {part.skipped or 'none'}); check the files, text.fields, labels.column and data.split."
            )


def _find_twins(splits: Splits, threshold: float) -> list[dict[str, Any]]:
    """Pairs that are the same or nearly across splits, or the same inside one, and conflicts.

    A conflict is the same text with other labels, anywhere. Across splits each document stands with the most similar
    one of the splits after its own: train, validation, test.
    """
    held_out = data.concatenate([splits.validation, splits.test])
    names = ["validation"] * len(splits.validation) + ["test"] * len(splits.test)
    twins = _pairs(splits.train, "train", held_out, names, threshold)
    twins += _pairs(splits.validation, "validation", splits.test, ["test"] * len(splits.test), threshold)
    for name in NAMES:
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
    for name in NAMES:
        part: Examples = getattr(splits, name)
        for text, target, document in zip(part.texts, part.targets, part.ids, strict=True):
            labels, earlier, split = first.setdefault(text, (target.tobytes(), document, name))
            if labels != target.tobytes() and text not in found:
                found[text] = _twin("conflict", (earlier, split), (document, name))
    return list(found.values())


def _sampled(splits: Splits, config: TrainConfig, schema: LabelSchema, data_dir: Path) -> Examples:
    train, chance = splits.train, np.random.default_rng(config.training.seed)
    if config.data.subsample < 1:
        count = max(1, round(config.data.subsample * len(train)))
        train = train.take(np.sort(chance.permutation(len(train))[:count]), "subsampled")
    if config.data.undersample:
        train = _undersampled(train, config.data.undersample, schema.task, chance)
    if config.data.weak_negatives:
        train = _with_weak_negatives(train, splits, config, schema, data_dir)
    return train


def _undersampled(train: Examples, ratio: float, task: Task, chance: np.random.Generator) -> Examples:
    """Cuts the largest class to at most `ratio` times all others together; for multi_label, what has no label."""
    if task is Task.MULTI_LABEL:
        largest = ~train.targets.any(axis=1)
    else:
        largest = train.targets[:, train.targets.sum(axis=0).argmax()] > 0
    members, others = np.flatnonzero(largest), np.flatnonzero(~largest)
    kept = chance.permutation(members)[: max(1, math.floor(ratio * len(others)))] if len(others) else members
    return train.take(np.sort(np.concatenate([others, kept])), "undersampled")


def _with_weak_negatives(
    train: Examples, splits: Splits, config: TrainConfig, schema: LabelSchema, data_dir: Path
) -> Examples:
    """Mixes in texts of another corpus as documents without a label, none that stands in the labelled data."""
    weak = config.data.weak_negatives
    assert weak is not None
    texts, ids = data.read_texts(weak.files, config, data_dir)
    labelled = data.concatenate([splits.train, splits.validation, splits.test])  # what sampling left out has labels too
    index = near_duplicates.Index(labelled.texts, config.data.near_duplicate)
    wanted = round(weak.share / (1 - weak.share) * len(train))
    order = sorted(range(len(texts)), key=lambda i: _place(f"{texts[i]}\0{ids[i]}", config.training.seed))
    chosen: dict[str, int] = {}
    for i in order:
        if len(chosen) == wanted:
            break
        if texts[i] not in chosen and index.nearest(texts[i]) is None:
            chosen[texts[i]] = i
    if len(chosen) < wanted:
        raise UserError(
            f"data.weak_negatives: expected {wanted:,} distinct texts for a share of {weak.share}, found "
            f"{len(chosen):,} that are not in the labelled data; give more files or a smaller share."
        )
    target = np.zeros((wanted, len(schema.names)), np.float32)
    if schema.task is Task.BINARY:
        target[:, 0] = 1
    found = list(chosen.values())
    negatives = Examples([texts[i] for i in found], target, [ids[i] for i in found], [texts[i] for i in found])
    return data.concatenate([train, negatives])


def _check_labels_are_learnt(splits: Splits, schema: LabelSchema) -> None:
    learnt = splits.train.targets.sum(axis=0)
    measured = splits.validation.targets.sum(axis=0) + splits.test.targets.sum(axis=0)
    unseen = [name for i, name in enumerate(schema.names) if measured[i] and not learnt[i]]
    if unseen:
        raise UserError(
            f"labels {unseen} stand in validation or test: expected them in train too, found no document there; add "
            "training documents, or take them out of the label names and of the data."
        )


def _settings(config: TrainConfig) -> str:
    """Hash of all that decides how the data is read, cleaned and cut."""
    parts = config.model_dump_json(include={"data": True, "labels": True, "text": True, "training": {"seed"}})
    return hashlib.sha256(parts.encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares what the configuration says. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> command.Parser:
    """The parser of `training.prepare`."""
    parser = command.Parser("training.prepare", __doc__)
    parser.add_config()
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the splits and the card go")
    parser.add_argument("--overwrite", action="store_true", help="replace what was prepared there before")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse_args(argv)
    config = load_config(flags.config, flags.set)
    _check_output(flags.output, flags.overwrite)
    datasets.disable_progress_bars()
    prepared = prepare(config, flags.data_dir)
    write(prepared, config, flags.output)
    data_card.show(prepared.card)
    print(f"splits, card.md and twins.jsonl: {flags.output}")


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite or not (output / data_card.FILE).is_file():
        only = " (only what training.prepare wrote is ever replaced)" if overwrite else ", or add --overwrite"
        raise UserError(f"--output {output} is there already: name another directory{only}.")


def write(prepared: Prepared, config: TrainConfig, output: Path) -> None:
    """Writes the splits as Parquet, the card as JSON and Markdown, and the twins, all or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        staging.chmod(0o755)
        names = np.array(prepared.schema.names)
        for split in NAMES:
            part: Examples = getattr(prepared.splits, split)
            labels = [names[target > 0].tolist() for target in part.targets]
            columns = {"id": part.ids, "text": part.texts, "labels": pa.array(labels, pa.list_(pa.string()))}
            pq.write_table(pa.table(columns), staging / f"{split}.parquet")
        data_card.write(staging, prepared.card, prepared.splits, config)
        with (staging / "twins.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(twin, ensure_ascii=False) + "\n" for twin in prepared.twins)
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read(directory: Path, config: TrainConfig) -> Prepared:
    """Reads back what was written.

    Raises:
        UserError: the directory holds nothing prepared, something that was prepared otherwise, or damaged files.
    """
    path = directory / data_card.FILE
    if not path.is_file():
        raise UserError(
            f"--prepared {directory}: expected what `python -m training.prepare` writes, found no {path.name}."
        )
    try:
        prepared = _load(directory)
        parts = {name: getattr(prepared.splits, name).sha256() for name in NAMES}
        changed = [name for name, found in parts.items() if found != prepared.card["splits"][name]["sha256"]]
        settings = prepared.card["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--prepared {directory}: expected the files that training.prepare writes, found some damaged or missing: "
            "prepare again."
        ) from None
    if settings != _settings(config):
        raise UserError(
            f"--prepared {directory} was made with other settings in [data], [labels], [text] or training.seed: "
            "prepare again with this configuration."
        )
    if changed:
        raise UserError(
            f"--prepared {directory}: {', '.join(changed)} no longer hold what {path.name} says: prepare again."
        )
    return prepared


def _load(directory: Path) -> Prepared:
    card = json.loads((directory / data_card.FILE).read_bytes())
    schema = LabelSchema(task=card["task"], names=tuple(card["labels"]))
    index = {name: i for i, name in enumerate(schema.names)}
    parts = []
    for split in NAMES:
        rows = pq.read_table(directory / f"{split}.parquet").to_pydict()
        targets = np.zeros((len(rows["id"]), len(index)), np.float32)
        for target, labels in zip(targets, rows["labels"], strict=True):
            target[[index[name] for name in labels]] = 1
        parts.append(Examples(rows["text"], targets, rows["id"], rows["text"], card["splits"][split]["skipped"]))
    twins = [json.loads(line) for line in (directory / "twins.jsonl").read_text(encoding="utf-8").splitlines()]
    return Prepared(schema, Splits(*parts), card, twins)


if __name__ == "__main__":
    sys.exit(main())

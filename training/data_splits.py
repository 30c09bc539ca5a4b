"""Turns labelled files into the splits of a training, and keeps such splits in a directory.

card.json, card.md                                  the data card
train.parquet, validation.parquet, test.parquet     id, text, labels and unknown labels of each document
duplicates.jsonl                                    pairs of documents that share a text
"""

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema, Task
from training import base_model, data, data_card, duplicates, frozen_splits, more_documents, sampling, tables
from training.config import TrainConfig
from training.duplicates import Duplicate
from training.examples import SPLITS, Examples, Splits

DUPLICATES = "duplicates.jsonl"
ROWS_AT_ONCE = 10_000
COLUMNS = pa.schema(
    {"id": pa.string(), "text": pa.string(), "labels": pa.list_(pa.string()), "unknown": pa.list_(pa.string())}
)
OLD_NAME = "twins"  # earlier name of the duplicates in card.json, and of their file without its suffix


@dataclass(frozen=True)
class Prepared:
    """The labels and the splits of a training, and what was observed about them."""

    schema: LabelSchema
    splits: Splits
    card: dict[str, Any]  # counts of the data card
    duplicates: list[Duplicate]  # pairs of documents that should not both be there
    sources: dict[str, str]  # where the documents of each split come from, as full paths


def prepare(config: TrainConfig, data_dir: Path, frozen: Path | None = None) -> Prepared:
    """Read every split, cut the missing ones, drop leaks from train, and sample train.

    If a directory with earlier splits is given as `frozen`, its validation and test documents stay where they are, and
    all other documents join train. So new labels and other text columns are measured on the same test documents.

    Raises:
        UserError: a file or column is missing, a split is empty, a label has no training document, or weak negatives
            are asked for although every document has a label.
    """
    schema, given = _read(config, data_dir)
    if frozen:
        given = frozen_splits.assigned(given, config, frozen)
    sources = {name: tables.source(config, name if given[name] else "train", data_dir) for name in SPLITS}
    return _prepared(_cut(given, config), schema, sources, config, data_dir)


def folds(config: TrainConfig, data_dir: Path, number: int) -> list[Prepared]:
    """Divide the training files into folds, and return splits in which each of them is test once.

    Raises:
        UserError: as `prepare`, or the configuration names files of validation or test.
    """
    if config.data.validation or config.data.test:
        raise UserError("--folds divides data.train: remove data.validation and data.test, or add their files to it.")
    schema, given = _read(config, data_dir)
    assert given["train"] is not None  # data.train is a required key
    examples = sampling.without_duplicates(given["train"])
    if rare := [name for name, count in zip(schema.names, examples.positive.sum(axis=0), strict=True) if 0 < count < 3]:
        raise UserError(
            f"--folds: expected labels with at least 3 documents, for train, validation and test, found fewer of "
            f"{', '.join(rare)}; leave them out, for example by labels.min_documents."
        )
    fold_of = sampling.folds(examples, number, config.data_seed)
    sources = dict.fromkeys(SPLITS, tables.source(config, "train", data_dir))
    return [
        _prepared(sampling.of_fold(examples, fold_of, fold), schema, sources, config, data_dir)
        for fold in range(number)
    ]


def _read(config: TrainConfig, data_dir: Path) -> tuple[LabelSchema, dict[str, Examples | None]]:
    """Return the labels, and the examples of each split that has files."""
    schema = data.schema_in(config, data_dir)
    if config.data.weak_negatives and schema.task is Task.MULTI_CLASS:
        raise UserError(
            "data.weak_negatives: expected a binary or multi_label task, found multi_class, where every document has "
            "a label; remove the section."
        )
    given = {name: data.read(config, name, data_dir, schema) for name in SPLITS}
    _check_ids(given.values(), config)
    return schema, given


def _prepared(
    splits: Splits, schema: LabelSchema, sources: dict[str, str], config: TrainConfig, data_dir: Path
) -> Prepared:
    """Drop leaks from train and sample it, once the splits are cut."""
    _check_not_empty(splits, config)
    splits = replace(splits, train=more_documents.joined(splits.train, config, data_dir, schema))
    pairs = duplicates.find(splits, config.data.near_duplicate)
    if config.data.drop_leaks:
        leaked = duplicates.leaked(pairs)
        kept = [place for place, document in enumerate(splits.train.ids) if document not in leaked]
        splits = replace(splits, train=splits.train.take(np.array(kept, np.int64), "leak"))
    splits = replace(splits, train=sampling.sampled(splits, config, schema, data_dir))
    _check_labels_are_learnt(splits, schema)
    observed = {"duplicates": duplicates.counts(pairs), "settings": _settings(config)}
    return Prepared(schema, splits, data_card.counts(splits, schema) | observed, pairs, sources)


def _check_ids(parts: Iterable[Examples | None], config: TrainConfig) -> None:
    """Check that the rows' own ids differ, because they tell which documents are leaks or stay in a split."""
    counts = Counter(document for part in parts if part for document in part.ids)
    if config.data.id_column and counts and counts.most_common(1)[0][1] > 1:
        raise UserError(
            f"data.id_column {config.data.id_column!r}: expected ids that are all different, found "
            f"{counts.most_common(1)[0][0]!r} twice; name another column, or remove the key."
        )


def _cut(given: Mapping[str, Examples | None], config: TrainConfig) -> Splits:
    """Return all splits. Those without files are cut from the training documents."""
    train = given["train"]
    assert train is not None  # data.train is a required key
    missing = [name for name in ("test", "validation") if given[name] is None]
    parts = {name: part for name, part in given.items() if part is not None}
    parts |= sampling.cut(sampling.without_duplicates(train), missing, config.data.split, config.data_seed)
    return Splits(parts["train"], parts["validation"], parts["test"])


def _check_not_empty(splits: Splits, config: TrainConfig) -> None:
    for name, part in splits.items():
        if not len(part) and (name != "test" or config.data.test or config.data.split.test):
            raise UserError(
                f"data.{name}: expected at least one row with a text and a label, found none "
                f"(left out: {part.skipped or 'none'}); check the files, text.fields, labels.column and data.split."
            )


def _check_labels_are_learnt(splits: Splits, schema: LabelSchema) -> None:
    learnt = splits.train.positive.sum(axis=0)
    measured = splits.validation.positive.sum(axis=0) + splits.test.positive.sum(axis=0)
    unseen = [name for i, name in enumerate(schema.names) if measured[i] and not learnt[i]]
    if unseen:
        raise UserError(
            f"labels {unseen} occur in validation or test: expected them in train too, found no document there; add "
            "training documents, or take them out of the label names and of the data."
        )


def _settings(config: TrainConfig) -> str:
    """Return a hash of all settings that decide how the data is read, cleaned and cut."""
    data = config.data.model_copy(update={"seed": config.data_seed})
    parts = (data, config.labels, config.text)
    return hashlib.sha256("\n".join(part.model_dump_json() for part in parts).encode()).hexdigest()


def limited(prepared: Prepared, config: TrainConfig) -> Prepared:
    """Return the data with at most `max_train_samples` training documents, drawn by the seed of the data.

    Validation and test have at most `max_eval_samples` documents each.
    """

    def drawn(part: Examples, limit: int | None) -> Examples:
        if limit is None or limit >= len(part):
            return part
        return part.take(np.sort(np.random.default_rng(config.data_seed).permutation(len(part))[:limit]))

    held_out = config.training.max_eval_samples
    parts = {name: drawn(part, held_out) for name, part in prepared.splits.items() if name != "train"}
    return replace(prepared, splits=Splits(drawn(prepared.splits.train, config.training.max_train_samples), **parts))


def write(prepared: Prepared, config: TrainConfig, output: Path) -> None:
    """Write the splits, the card and the duplicates into a directory, all or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        staging.chmod(0o755)
        names = np.array(prepared.schema.names)
        for split, part in prepared.splits.items():
            _write_split(part, names, staging / f"{split}.parquet")
            prepared.card["splits"][split]["tokens"] = base_model.token_lengths(part.texts, config)
        data_card.write(staging, prepared.card, config)
        with (staging / DUPLICATES).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in prepared.duplicates)
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_split(part: Examples, names: NDArray[Any], path: Path) -> None:
    with pq.ParquetWriter(path, COLUMNS) as writer:
        for start in range(0, len(part), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            labels, unknown = (
                [names[one].tolist() for one in of_all] for of_all in (part.positive[rows], ~part.known[rows])
            )
            content = {"id": part.ids[rows], "text": part.texts[rows], "labels": labels, "unknown": unknown}
            writer.write_table(pa.table(content, COLUMNS))


def read(directory: Path, config: TrainConfig) -> Prepared:
    """Return the splits in a directory.

    Raises:
        UserError: the directory holds no splits, splits made with other settings, or damaged files.
    """
    path = directory / data_card.FILE
    if not path.is_file():
        raise UserError(
            f"--prepared {directory}: expected what `python -m training.prepare` writes, found no {path.name}."
        )
    try:
        prepared = _load(directory)
        hashes = {name: part.sha256() for name, part in prepared.splits.items()}
        changed = [name for name, digest in hashes.items() if digest != prepared.card["splits"][name]["sha256"]]
        settings = prepared.card["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--prepared {directory}: expected the files that training.prepare writes, found some damaged or missing: "
            "prepare again."
        ) from None
    if settings != _settings(config):
        raise UserError(
            f"--prepared {directory} was made with other settings in [data], [labels], [text] or the seed of the data: "
            "prepare again with this configuration."
        )
    if changed:
        raise UserError(
            f"--prepared {directory}: {', '.join(changed)} no longer hold what {path.name} says: prepare again."
        )
    return prepared


def _load(directory: Path) -> Prepared:
    card = json.loads((directory / data_card.FILE).read_bytes())
    if OLD_NAME in card:
        card["duplicates"] = card.pop(OLD_NAME)
    schema = LabelSchema(task=card["task"], names=tuple(card["labels"]))
    index = {name: i for i, name in enumerate(schema.names)}
    parts = []
    for split in SPLITS:
        part = _read_split(directory / f"{split}.parquet", index)
        parts.append(replace(part, skipped=card["splits"][split]["skipped"]))
    listing = directory / DUPLICATES
    if not listing.exists():
        listing = directory / f"{OLD_NAME}.jsonl"
    pairs = [Duplicate(**json.loads(line)) for line in listing.read_text(encoding="utf-8").splitlines()]
    sources = {split: str((directory / f"{split}.parquet").resolve()) for split in SPLITS}
    return Prepared(schema, Splits(*parts), card, pairs, sources)


def _read_split(path: Path, index: Mapping[str, int]) -> Examples:
    with pq.ParquetFile(path) as file:
        targets = np.zeros((file.metadata.num_rows, len(index)), np.float32)
        ids: list[str] = []

        def texts() -> Iterator[str]:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                rows = batch.to_pydict()
                for column, value in (("labels", 1), ("unknown", np.nan)):
                    for place, labels in enumerate(rows.get(column, []), len(ids)):
                        targets[place, [index[name] for name in labels]] = value
                ids.extend(rows["id"])
                yield from rows["text"]

        return Examples.of(texts(), targets, ids)

"""Turns labelled files into the splits of a training: duplicates, leaks, splitting, sampling; and says what is in them.

python -m training.prepare training/configs/goemotions.toml --data_dir data --output prepared/goemotions
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import UserError, exit_code
from models.labels import LabelSchema, Task
from training import command, data, data_card, sampling, twins
from training.config import TrainConfig, load_config
from training.data import SPLITS, Examples, Splits


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
    given = {name: data.read(config, name, data_dir, schema) for name in SPLITS}
    train = given["train"]
    assert train is not None  # the configuration always names one
    train = sampling.without_duplicates(train)
    cut = [name for name in ("test", "validation") if given[name] is None]
    parts = {name: part for name, part in given.items() if part is not None}
    parts |= sampling.cut(train, cut, config.data.split, config.training.seed)
    splits = Splits(parts["train"], parts["validation"], parts["test"])
    _check_not_empty(splits, config)
    found = twins.find(splits, config.data.near_duplicate)
    if config.data.drop_leaks:
        leaked = twins.leaked(found)
        kept = [place for place, document in enumerate(splits.train.ids) if document not in leaked]
        splits = replace(splits, train=splits.train.take(np.array(kept, np.int64), "leak"))
    splits = replace(splits, train=sampling.sampled(splits, config, schema, data_dir))
    _check_labels_are_learnt(splits, schema)
    card = data_card.counts(splits, schema) | {"twins": data_card.twin_counts(found), "settings": _settings(config)}
    return Prepared(schema, splits, card, found)


def _check_not_empty(splits: Splits, config: TrainConfig) -> None:
    for name in SPLITS:
        part: Examples = getattr(splits, name)
        if not len(part) and (name != "test" or config.data.test or config.data.split.test):
            raise UserError(
                f"data.{name}: expected at least one row with a text and a label, found none "
                f"(left out: {part.skipped or 'none'}); check the files, text.fields, labels.column and data.split."
            )


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
        for split in SPLITS:
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
        parts = {name: getattr(prepared.splits, name).sha256() for name in SPLITS}
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
    for split in SPLITS:
        rows = pq.read_table(directory / f"{split}.parquet").to_pydict()
        targets = np.zeros((len(rows["id"]), len(index)), np.float32)
        for target, labels in zip(targets, rows["labels"], strict=True):
            target[[index[name] for name in labels]] = 1
        parts.append(Examples(rows["text"], targets, rows["id"], rows["text"], card["splits"][split]["skipped"]))
    twins = [json.loads(line) for line in (directory / "twins.jsonl").read_text(encoding="utf-8").splitlines()]
    return Prepared(schema, Splits(*parts), card, twins)


if __name__ == "__main__":
    sys.exit(main())

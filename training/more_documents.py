"""Reads documents that were labelled after the others, and lets them join the training documents alone.

`labelbeam audit rows` writes such files: a text as it was shown, the labels that apply, and those that were asked for.
All others are unknown.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema, Task
from training import tables
from training.config import TrainConfig
from training.examples import Examples, concatenate
from training.spool import digest

COLUMNS = ("id", "text", "labels", "asked")


def joined(train: Examples, config: TrainConfig, data_dir: Path, schema: LabelSchema) -> Examples:
    """Return the training documents with those of `data.more`, without texts that are among the former.

    Raises:
        UserError: a file is missing, has other columns, or names a label that is none of the model's.
    """
    if not config.data.more:
        return train
    known = set(map(digest, train.texts))
    return concatenate([train, _read(known, config, data_dir, schema)])


def _read(known: set[bytes], config: TrainConfig, data_dir: Path, schema: LabelSchema) -> Examples:
    ids: list[str] = []
    targets: list[NDArray[np.float32]] = []
    skipped: Counter[str] = Counter()

    def texts() -> Iterator[str]:
        for path in tables.files(config.data.more, "more", data_dir):
            name, rows = tables.shown(path, data_dir), tables.read(path, config)
            if missing := [column for column in COLUMNS if column not in rows.columns]:
                raise UserError(
                    f"data.more, {name}: expected the columns {', '.join(COLUMNS)}, found no {missing[0]}; give a file "
                    "of `labelbeam audit rows`, or add others to data.train."
                )
            for number, row in enumerate(rows.of(COLUMNS), 1):
                text = config.text.clean(row["text"])
                target = _target(row["labels"] or [], row["asked"] or [], schema, f"data.more, {name}, row {number}")
                key = digest(text)
                reason = "in train already" if key in known else "label unknown" if target is None else None
                if target is None or reason:
                    skipped[str(reason)] += 1
                    continue
                known.add(key)
                ids.append(f"{name}:{number}")
                targets.append(target)
                yield text

    examples = Examples.of(texts(), np.zeros((0, len(schema.names)), np.float32), ids)
    examples.targets = np.stack(targets) if targets else examples.targets
    examples.skipped = dict(skipped)
    return examples


def _target(labels: list[str], asked: list[str], schema: LabelSchema, source: str) -> NDArray[np.float32] | None:
    """Return the target of a document; None if its one label is not known."""
    known = np.array([name in asked for name in schema.names])
    if not known.any():
        raise UserError(
            f"{source}: expected a row that was asked for one of {', '.join(schema.names)}, found one for "
            f"{', '.join(asked) or 'none'}; leave the file out."
        )
    target = np.array([name in labels for name in schema.names], np.float32)
    if schema.task is Task.MULTI_LABEL:
        target[~known] = np.nan
        return target
    return target if target.sum() == 1 else None

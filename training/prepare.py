"""Turns labelled files into the splits of a training: first version, for splits that have files."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.labels import LabelSchema
from training import data
from training.config import TrainConfig
from training.data import Examples, Splits


@dataclass(frozen=True)
class Prepared:
    """The labels, the splits, and what is to be known of them."""

    schema: LabelSchema
    splits: Splits
    card: dict[str, Any] = field(default_factory=dict)
    leaks: list[dict[str, Any]] = field(default_factory=list)


def prepare(config: TrainConfig, data_dir: Path) -> Prepared:
    """Reads every split; of equal training texts with equal labels one stays."""
    schema = config.labels.schema_in(data_dir)
    train, validation, test = (data.read(config, name, data_dir, schema) for name in ("train", "validation", "test"))
    if train is None or validation is None or test is None:
        raise UserError("data: expected files for train, validation and test.")
    return Prepared(schema, Splits(_without_duplicates(train), validation, test))


def read(directory: Path, config: TrainConfig) -> Prepared:
    """Reads what was prepared."""
    raise UserError(f"{directory}: nothing was prepared there for {config.labels.task}.")


def _without_duplicates(examples: Examples) -> Examples:
    seen = set()
    kept = []
    for place, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
        if (text, target.tobytes()) not in seen:
            seen.add((text, target.tobytes()))
            kept.append(place)
    return replace(examples.take(np.array(kept)), skipped={**examples.skipped, "duplicate": len(examples) - len(kept)})

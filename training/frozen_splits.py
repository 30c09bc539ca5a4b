"""Keeps documents in the validation and test splits of an earlier preparation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from models.errors import UserError
from training.config import TrainConfig
from training.examples import Examples


def assigned(given: Mapping[str, Examples | None], config: TrainConfig, directory: Path) -> dict[str, Examples | None]:
    """Return the splits, with the documents that the directory has in validation and test taken out of train.

    Documents are known by their own ids, because FILE:ROW names another document once a row was inserted.

    Raises:
        UserError: the rows have no ids of their own, or splits have files, or a document is missing.
    """
    train = given["train"]
    assert train is not None  # data.train is a required key
    if config.data.id_column is None:
        raise UserError("--splits: expected data.id_column, since documents are known by their own ids; set it.")
    if given["validation"] or given["test"]:
        raise UserError(
            "--splits: expected all files under data.train, found others under data.validation or data.test."
        )
    places = {document: place for place, document in enumerate(train.ids)}
    parts: dict[str, Examples | None] = {}
    for name in ("validation", "test"):
        ids = _ids(directory / f"{name}.parquet")
        missing = [document for document in ids if document not in places]
        if missing:
            raise UserError(
                f"--splits {directory}: expected all {len(ids):,} documents of {name} in data.train, {len(missing):,} "
                f"are missing, such as {missing[0]!r}; give the files that hold them, or lift data.where."
            )
        parts[name] = train.take(np.array([places.pop(document) for document in ids], np.int64))
        parts[name].skipped.clear()  # type: ignore[union-attr]  # rows left out are counted once, in train
    held_out = {key for part in parts.values() if part for key in part.keys}
    rest = train.take(np.array(sorted(places.values()), np.int64))
    apart = [place for place, key in enumerate(rest.keys) if key not in held_out]  # such as other tweets of an author
    return parts | {"train": rest.take(np.array(apart, np.int64), "leak")}


def _ids(path: Path) -> list[str]:
    try:
        ids: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
    except (OSError, ValueError, KeyError):
        raise UserError(f"--splits: expected a folder that training.prepare wrote, found no readable {path}.") from None
    return ids

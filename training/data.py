"""Reads labelled files through `datasets` and turns rows into texts and targets."""

import csv
import fnmatch
import glob
import hashlib
import lzma
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import fsspec
import numpy as np
import pandas
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema, Task
from models.text import TextError, TextRecipe
from training.config import DataConfig, LabelsConfig, TrainConfig

READERS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
UNREADABLE = (  # what the readers raise: broken content, broken compression, too many cells, no rows
    datasets.exceptions.DatasetsError,
    ValueError,
    OSError,
    EOFError,
    lzma.LZMAError,
    csv.Error,
    pandas.errors.ParserWarning,
    StopIteration,
)
JSON_CHUNK = 1 << 29  # bytes: one chunk a file as a rule, so that a field may first appear on a late line


@dataclass
class Examples:
    """Texts and targets of one split; `targets` is float32 (documents, labels), 1 where a label applies."""

    texts: list[str]
    targets: NDArray[np.float32]
    ids: list[str]  # where each comes from, as FILE:ROW
    skipped: dict[str, int] = field(default_factory=dict)  # rows without a usable text or label, by reason

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """Hash of texts and targets: tells on which data a metric was measured."""
        digest = hashlib.sha256(self.targets.tobytes())
        for text in self.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64]) -> "Examples":
        """The examples at these places."""
        texts, ids = [self.texts[i] for i in indices], [self.ids[i] for i in indices]
        return Examples(texts, self.targets[indices], ids, self.skipped)


@dataclass(frozen=True)
class Splits:
    """The three parts of the labelled data; `test` may be empty."""

    train: Examples
    validation: Examples
    test: Examples


def read(config: TrainConfig, split: str, data_dir: Path, schema: LabelSchema) -> Examples | None:
    """One given split; None where the configuration names no files for it.

    Raises:
        UserError: a file or column is missing, or a label is not in the schema.
    """
    rows = _rows(config.data, split, data_dir)
    return None if rows is None else _examples(rows, split, config, schema)


def _rows(config: DataConfig, split: str, data_dir: Path) -> list[dict[str, Any]] | None:
    patterns: Sequence[str] = getattr(config, split)
    if not patterns:
        return None
    return [row for pattern in patterns for path in _files(pattern, split, data_dir) for row in _read(path, config)]


def _files(pattern: str, split: str, data_dir: Path) -> list[str]:
    exact = data_dir / pattern
    paths = [str(exact)] if exact.is_file() else sorted(glob.glob(str(exact), recursive=True))
    if not paths:
        raise UserError(f"data.{split}: expected files at {data_dir / pattern}, found none; check --data_dir.")
    return paths


def _read(path: str, config: DataConfig) -> Iterable[dict[str, Any]]:
    name = path
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise UserError(f"{path}: expected one of {', '.join(READERS)}, also compressed; convert the file.")
    try:
        # A temporary cache, and the table in memory: nothing stays behind in the user's cache folder.
        with tempfile.TemporaryDirectory(prefix="labelbeam_") as cache, warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # cells beyond the header would be dropped
            options = _options(reader, path, Path(name).suffix, config)
            table = datasets.load_dataset(
                reader, data_files=path, split="train", cache_dir=cache, keep_in_memory=True, **options
            )
    except UNREADABLE as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200] or "it is empty"
        raise UserError(f"{path} cannot be read as {reader}: {cause}.") from None
    rows: list[dict[str, Any]] = table.to_list()
    return rows


def _options(reader: str, path: str, suffix: str, config: DataConfig) -> dict[str, Any]:
    if reader == "json":
        return {"chunksize": JSON_CHUNK, "parse_agent_traces": False}
    if reader == "parquet":
        return {}
    # In TSV a quote is a character like any other.
    separator = "\t" if suffix == ".tsv" else ","
    quoting: Literal[0, 3] = csv.QUOTE_NONE if suffix == ".tsv" else csv.QUOTE_MINIMAL
    names = list(config.columns)
    if not names:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer", newline="") as file:
            names = next(csv.reader(file, delimiter=separator, quoting=quoting), [])
    return {
        "sep": separator,
        "quoting": quoting,
        "names": names,
        "header": None if config.columns else 0,
        "features": datasets.Features({name: datasets.Value("string") for name in names}),  # "007" stays "007"
        "index_col": False,
        "keep_default_na": False,  # "NA" and "null" are words
    }


def _cut_missing_splits(rows: dict[str, list[dict[str, Any]]], config: TrainConfig) -> None:
    """Cuts validation and test from the training rows where they have no files of their own.

    A row's place depends on its `split_by` column, or else on its text: equal texts never stand on both sides.
    """
    shares = {name: getattr(config.data.split, name) for name in ("test", "validation") if name not in rows}
    if not shares:
        return
    column, fields = config.data.split_by, config.text.fields
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in ("train", *shares)}
    for row in rows["train"]:
        if column and column not in row:
            raise UserError(f"data.split_by: expected a column {column!r}, found {sorted(row)}.")
        key = row[column] if column and row[column] is not None else [row.get(field) for field in fields]
        place = _place(str(key), config.training.seed)
        for name, share in shares.items():
            place -= share
            if place < 0:
                kept[name].append(row)
                break
        else:
            kept["train"].append(row)
    rows |= kept


def _place(key: str, seed: int) -> float:
    """A number from 0 to 1 that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _examples(rows: list[dict[str, Any]], split: str, config: TrainConfig, schema: LabelSchema) -> Examples:
    texts: list[str] = []
    ids: list[str] = []
    targets: list[NDArray[np.float32]] = []
    skipped: dict[str, int] = {}
    _check_columns(rows, split, config.labels.column, config.text)
    reader = _LabelReader(config.labels, schema)
    for number, row in enumerate(rows, 1):
        try:
            text, target = config.text.text_of(row), reader.target(row.get(config.labels.column))
        except (TextError, NoLabelError) as error:
            reason = error.reason if isinstance(error, TextError) else "no_label"
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        except ValueError as error:
            raise UserError(f"data.{split}, row {number}, column {config.labels.column!r}: {error}") from None
        texts.append(text)
        ids.append(f"{split}:{number}")
        targets.append(target)
    stacked = np.stack(targets) if targets else np.zeros((0, len(schema.names)), np.float32)
    return Examples(texts, stacked, ids, skipped)


def _check_columns(rows: list[dict[str, Any]], split: str, label_column: str, recipe: TextRecipe) -> None:
    if not rows:
        return
    found = sorted(rows[0])
    missing = [name for name in (label_column, *recipe.fields) if name not in rows[0]]
    if missing:
        raise UserError(
            f"data.{split}: expected columns {missing}, found {found}; set labels.column and text.fields, or "
            "data.columns for a file without a header."
        )


class NoLabelError(Exception):
    """A row has no label where its task wants one: it is counted and left out."""


class _LabelReader:
    """Turns a label cell into a row of targets."""

    def __init__(self, config: LabelsConfig, schema: LabelSchema) -> None:
        self._config = config
        self._schema = schema
        self._index = {name: i for i, name in enumerate(schema.names)}

    def target(self, cell: object) -> NDArray[np.float32]:
        """0 or 1 for each label.

        An empty list or string is no label, which only multi_label allows; null is a label that nobody gave.

        Raises:
            NoLabelError: null, or no label where the task wants one.
            ValueError: an unknown label, or several where the task wants one.
        """
        if cell is None:
            raise NoLabelError
        target = np.zeros(len(self._schema.names), np.float32)
        indices = self._of_groups(cell) if self._config.groups else [self._index_of(v) for v in self._values(cell)]
        target[indices] = 1
        if self._schema.task is not Task.MULTI_LABEL and not indices:
            raise NoLabelError
        if self._schema.task is not Task.MULTI_LABEL and len(set(indices)) != 1:
            raise ValueError(f"a {self._schema.task} row has exactly one label, found {cell!r}; check the column.")
        return target

    def _values(self, cell: object) -> list[object]:
        if isinstance(cell, list | tuple):
            return [value for value in cell if value is not None]
        if isinstance(cell, str) and not cell.strip():
            return []
        if self._config.delimiter and isinstance(cell, str):
            return [part.strip() for part in cell.split(self._config.delimiter) if part.strip()]
        return [cell]

    def _index_of(self, value: object) -> int:
        text = str(value).strip()
        if text in self._index:
            return self._index[text]
        if self._schema.task is Task.BINARY and text.lower() in ("true", "false"):
            return int(text.lower() == "true")
        if text.removesuffix(".0").isdecimal() and int(text.removesuffix(".0")) < len(self._schema.names):
            return int(text.removesuffix(".0"))
        names = ", ".join(self._schema.names[:8]) + (", ..." if len(self._schema.names) > 8 else "")
        raise ValueError(
            f"expected one of the labels {names} or its number, found {value!r}; mend the row or the names."
        )

    def _of_groups(self, cell: object) -> list[int]:
        codes = [str(code) for code in self._values(cell)]
        matched = [
            self._index[name]
            for name, patterns in self._config.groups.items()
            if any(fnmatch.fnmatchcase(code, pattern) for code in codes for pattern in patterns)
        ]
        return matched or ([0] if self._schema.task is Task.BINARY else [])

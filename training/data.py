"""Reads labelled files through `datasets` and turns rows into texts and targets."""

import csv
import glob
import hashlib
import lzma
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import fsspec
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema
from models.text import TextError
from training.config import DataConfig, TrainConfig
from training.label_reader import LabelReader, NoLabelError

SPLITS = ("train", "validation", "test")
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
    ids: list[str]  # where each comes from: FILE:ROW
    keys: list[str]  # what must not stand in two splits: the text, or the value of `data.split_by`
    skipped: dict[str, int] = field(default_factory=dict)  # rows that are left out, by reason

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """Hash of texts and targets: tells on which data a metric was measured."""
        digest = hashlib.sha256(self.targets.tobytes())
        for text in self.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64], reason: str | None = None) -> "Examples":
        """The examples at these places; where a reason is given, the others count as left out for it."""
        texts, ids, keys = ([column[i] for i in indices] for column in (self.texts, self.ids, self.keys))
        skipped = dict(self.skipped)
        if reason and len(indices) < len(self):
            skipped[reason] = skipped.get(reason, 0) + len(self) - len(indices)
        return Examples(texts, self.targets[indices], ids, keys, skipped)


def concatenate(parts: Sequence[Examples]) -> Examples:
    """All examples, one part after the other."""
    skipped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    texts, ids, keys = ([x for part in parts for x in getattr(part, name)] for name in ("texts", "ids", "keys"))
    return Examples(texts, np.concatenate([part.targets for part in parts]), ids, keys, skipped)


@dataclass(frozen=True)
class Splits:
    """The three parts of the labelled data; `test` may be empty."""

    train: Examples
    validation: Examples
    test: Examples


def read(config: TrainConfig, split: str, data_dir: Path, schema: LabelSchema) -> Examples | None:
    """One given split; None where the configuration names nothing for it.

    Raises:
        UserError: a file or column is missing or unreadable, or a label is not in the schema.
    """
    if not getattr(config.data, split):
        return None
    return concatenate(
        [_examples(name, rows, split, config, schema) for name, rows in _tables(config, split, data_dir)]
    )


def read_texts(patterns: Sequence[str], config: TrainConfig, data_dir: Path) -> tuple[list[str], list[str]]:
    """Texts and ids of files whose labels do not matter; rows without a text are left out."""
    texts, ids = [], []
    for path in _files(patterns, "weak_negatives.files", data_dir):
        rows = _read(path, config)
        _check_columns(rows, "weak_negatives.files", config.text.fields)
        for number, row in enumerate(rows, 1):
            try:
                texts.append(config.text.text_of(row))
            except TextError:
                continue
            ids.append(f"{_shown(path, data_dir)}:{number}")
    return texts, ids


def _tables(config: TrainConfig, split: str, data_dir: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Names and rows of what the configuration says of a split."""
    patterns: Sequence[str] = getattr(config.data, split)
    if config.data.dataset:
        for part in patterns:
            yield f"{config.data.dataset}/{part}", _read_dataset(config.data, part, data_dir)
        return
    paths = _files(patterns, split, data_dir)
    label_files: Sequence[str] = getattr(config.data.label_files, split)
    label_paths = _files(label_files, f"label_files.{split}", data_dir) if label_files else []
    if label_paths and len(label_paths) != len(paths):
        raise UserError(f"data.label_files.{split}: expected {len(paths)} files, one a text file, found {label_paths}.")
    for place, path in enumerate(paths):
        rows = _read(path, config)
        if label_paths and not _is_lines(path):
            raise UserError(
                f"data.label_files.{split}: expected line files (.txt) beside label files, found {path}, which has a "
                "label column of its own; remove the label files."
            )
        if label_paths:
            rows = _with_labels(path, rows, label_paths[place], config.labels.column)
        yield _shown(path, data_dir), rows


def _shown(path: str, data_dir: Path) -> str:
    return str(Path(path).relative_to(data_dir)) if Path(path).is_relative_to(data_dir) else path


def _files(patterns: Sequence[str], key: str, data_dir: Path) -> list[str]:
    found = []
    for pattern in patterns:
        exact = data_dir / pattern
        paths = [str(exact)] if exact.is_file() else sorted(glob.glob(str(exact), recursive=True))
        if not paths:
            raise UserError(f"data.{key}: expected files at {exact}, found none; check --data_dir.")
        found += paths
    return found


def _with_labels(path: str, rows: list[dict[str, Any]], label_path: str, column: str) -> list[dict[str, Any]]:
    labels = _lines(label_path)
    if len(labels) != len(rows):
        raise UserError(
            f"{label_path}: expected {len(rows):,} lines, a label for each line of {path}, found {len(labels):,}; "
            "check that the two files belong together."
        )
    return [{**row, column: label} for row, label in zip(rows, labels, strict=True)]


def _lines(path: str) -> list[str]:
    """The lines of a text file; only a line feed ends one, since texts hold other separators."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer", newline="\n") as file:
            lines: list[str] = file.read().split("\n")
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as lines of UTF-8: {' '.join(str(error).split())[:200]}.") from None
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def _suffix(path: str) -> str:
    """What the file is, compressed or not."""
    for compression in COMPRESSIONS:
        path = path.removesuffix(compression)
    return Path(path).suffix


def _is_lines(path: str) -> bool:
    return _suffix(path) == ".txt"


def _read(path: str, config: TrainConfig) -> list[dict[str, Any]]:
    if _is_lines(path):
        return [{"text": line} for line in _lines(path)]
    kind = _suffix(path)
    reader = READERS.get(kind)
    if reader is None:
        raise UserError(f"{path}: expected one of {', '.join(READERS)}, .txt, also compressed; convert the file.")
    try:
        # A temporary cache, and the table in memory: nothing stays behind in the user's cache folder.
        with tempfile.TemporaryDirectory(prefix="labelbeam_") as cache, warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # cells beyond the header would be dropped
            if reader == "parquet":  # read here: `datasets` does not decompress a whole Parquet file
                with fsspec.open(path, "rb", compression="infer") as file:
                    table = datasets.Dataset(pq.read_table(pa.BufferReader(file.read())))
            else:
                options = _options(reader, path, kind, config.data)
                table = datasets.load_dataset(
                    reader, data_files=path, split="train", cache_dir=cache, keep_in_memory=True, **options
                )
    except UNREADABLE as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200] or "it is empty"
        raise UserError(f"{path} cannot be read as {reader}: {cause}.") from None
    return _rows(table)


def _read_dataset(config: DataConfig, part: str, data_dir: Path) -> list[dict[str, Any]]:
    """One split of a Hugging Face dataset: a hub name, a folder of files, or a folder written by `save_to_disk`.

    What was saved as a single table is the split "train".
    """
    folder = data_dir / str(config.dataset)
    name = str(folder) if folder.is_dir() else str(config.dataset)
    try:
        if (folder / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(name)[part]
        elif (folder / "state.json").is_file():
            table = {"train": datasets.load_from_disk(name)}[part]
        else:
            table = datasets.load_dataset(name, config.subset, split=part)
    except KeyError:
        raise UserError(
            f"data.dataset {config.dataset!r}: expected a split {part!r}, found none; check the name."
        ) from None
    except UNREADABLE as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"data.dataset {config.dataset!r}, split {part!r}, cannot be read: {cause}") from None
    return _rows(table)


def _rows(table: datasets.Dataset) -> list[dict[str, Any]]:
    """The rows, with names for the numbers of labels: their order need not be the configuration's."""
    rows: list[dict[str, Any]] = table.to_list()
    for column, feature in table.features.items():
        inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
        if isinstance(inner, datasets.ClassLabel):
            for row in rows:
                row[column] = _label_names(row[column], inner.names)
    return rows


def _label_names(cell: Any, names: Sequence[str]) -> Any:
    """Names for one number or a list of them; -1 stands for a label that nobody gave."""
    if isinstance(cell, list):
        return [_label_names(number, names) for number in cell]
    return None if cell is None or cell < 0 else names[cell]


def _options(reader: str, path: str, suffix: str, config: DataConfig) -> dict[str, Any]:
    if reader == "json":
        return {"chunksize": JSON_CHUNK, "parse_agent_traces": False}
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


def _examples(name: str, rows: list[dict[str, Any]], split: str, config: TrainConfig, schema: LabelSchema) -> Examples:
    texts: list[str] = []
    ids: list[str] = []
    keys: list[str] = []
    targets: list[NDArray[np.float32]] = []
    skipped: dict[str, int] = {}
    key_columns = [config.data.split_by] if config.data.split_by else []
    label_columns = config.labels.columns or (config.labels.column,)
    _check_columns(rows, split, [*key_columns, *label_columns, *config.text.fields])
    reader = LabelReader(config.labels, schema)
    for number, row in enumerate(rows, 1):
        try:
            text, target = config.text.text_of(row), reader.target(row)
        except (TextError, NoLabelError) as error:
            reason = error.reason if isinstance(error, TextError) else "no_label"
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        except ValueError as error:
            raise UserError(f"data.{split}, {name}, row {number}, {error}") from None
        texts.append(text)
        ids.append(f"{name}:{number}")
        group = row[config.data.split_by] if config.data.split_by else None
        keys.append(text if group is None else str(group))
        targets.append(target)
    stacked = np.stack(targets) if targets else np.zeros((0, len(schema.names)), np.float32)
    return Examples(texts, stacked, ids, keys, skipped)


def _check_columns(rows: Sequence[Mapping[str, Any]], key: str, wanted: Sequence[str]) -> None:
    """Every column must be there, in the first row at least."""
    missing = [name for name in wanted if rows and name not in rows[0]]
    if missing:
        raise UserError(
            f"data.{key}: expected columns {missing}, found {sorted(rows[0])}; set labels.column, text.fields and "
            "data.split_by, or data.columns for a file without a header."
        )

"""Reads labelled files and Hugging Face datasets, and turns their rows into texts and targets."""

import csv
import glob
import lzma
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from training.examples import Examples, concatenate
from training.label_reader import LabelReader, NoLabelError

READERS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
UNREADABLE = (  # errors of the readers: broken content, broken compression, too many cells, no rows
    datasets.exceptions.DatasetsError,
    ValueError,
    OSError,
    EOFError,
    lzma.LZMAError,
    csv.Error,
    pandas.errors.ParserWarning,
    StopIteration,
)
JSON_CHUNK = 1 << 29  # bytes; one chunk holds a whole file as a rule, so a field may first appear in a late line


def read(config: TrainConfig, split: str, data_dir: Path, schema: LabelSchema) -> Examples | None:
    """Return the examples of a split, or None if the configuration names no files for it.

    Raises:
        UserError: a file or column is missing or unreadable, or a label is not in the schema.
    """
    if not getattr(config.data, split):
        return None
    return concatenate(
        [_examples(name, rows, split, config, schema) for name, rows in _tables(config, split, data_dir)]
    )


def read_texts(patterns: Sequence[str], config: TrainConfig, data_dir: Path) -> tuple[list[str], list[str]]:
    """Return the texts and ids of files whose labels do not matter. Rows without a text are left out."""
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
    """Return the name and the rows of each file or dataset that the configuration names for a split."""
    patterns: Sequence[str] = getattr(config.data, split)
    if config.data.dataset:
        for part in patterns:
            yield f"{config.data.dataset}/{part}", _read_dataset(config.data, part, data_dir)
        return
    paths = _files(patterns, split, data_dir)
    label_files: Sequence[str] = getattr(config.data.label_files, split)
    label_paths = _files(label_files, f"label_files.{split}", data_dir) if label_files else []
    if label_paths and len(label_paths) != len(paths):
        raise UserError(
            f"data.label_files.{split}: expected {len(paths)} files, one for each text file, found {label_paths}."
        )
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
    files = []
    for pattern in patterns:
        exact = data_dir / pattern
        paths = [str(exact)] if exact.is_file() else sorted(glob.glob(str(exact), recursive=True))
        if not paths:
            raise UserError(f"data.{key}: expected files at {exact}, found none; check --data_dir.")
        files += paths
    return files


def _with_labels(path: str, rows: list[dict[str, Any]], label_path: str, column: str) -> list[dict[str, Any]]:
    labels = _lines(label_path)
    if len(labels) != len(rows):
        raise UserError(
            f"{label_path}: expected {len(rows):,} lines, a label for each line of {path}, found {len(labels):,}; "
            "check that the two files belong together."
        )
    return [{**row, column: label} for row, label in zip(rows, labels, strict=True)]


def _lines(path: str) -> list[str]:
    """Return the lines of a text file. Only a line feed ends a line, since texts hold other separators."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer", newline="\n") as file:
            lines: list[str] = file.read().split("\n")
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as lines of UTF-8: {' '.join(str(error).split())[:200]}.") from None
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def _suffix(path: str) -> str:
    """Return the suffix that tells the format of a file, without the one of its compression."""
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
        # The cache is temporary and the table is in memory, so nothing stays in the user's cache folder.
        with tempfile.TemporaryDirectory(prefix="labelbeam_") as cache, warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # else pandas drops cells beyond the header
            if reader == "parquet":  # `datasets` does not decompress a Parquet file that was compressed as a whole
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
    """Return the rows of one split of a Hugging Face dataset.

    The dataset is a hub name, a folder of files, or a folder that `save_to_disk` wrote. A single table that was saved
    in this way is the split "train".
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
    """Return the rows of a table, with the names of labels in place of their numbers.

    The order of the numbers need not be the order of the configuration.
    """
    rows: list[dict[str, Any]] = table.to_list()
    for column, feature in table.features.items():
        inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
        if isinstance(inner, datasets.ClassLabel):
            for row in rows:
                row[column] = _label_names(row[column], inner.names)
    return rows


def _label_names(cell: Any, names: Sequence[str]) -> Any:
    """Return the name of a number, or the names of a list of them. The number -1 stands for a missing label."""
    if isinstance(cell, list):
        return [_label_names(number, names) for number in cell]
    return None if cell is None or cell < 0 else names[cell]


def _options(reader: str, path: str, suffix: str, config: DataConfig) -> dict[str, Any]:
    """Return the options with which `datasets` reads a JSON, CSV or TSV file without changing any value."""
    if reader == "json":
        return {"chunksize": JSON_CHUNK, "parse_agent_traces": False}
    separator = "\t" if suffix == ".tsv" else ","
    # A quotation mark in a TSV file is a character like any other.
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
    """Return the examples in the rows of a file. Rows without a text or a label are counted by reason."""
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
    """Check that the first row has every column."""
    missing = [name for name in wanted if rows and name not in rows[0]]
    if missing:
        raise UserError(
            f"data.{key}: expected columns {missing}, found {sorted(rows[0])}; set labels.column, text.fields and "
            "data.split_by, or data.columns for a file without a header."
        )

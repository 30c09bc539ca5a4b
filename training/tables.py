"""Reads labelled files and Hugging Face datasets as rows, without changing any value."""

import contextlib
import csv
import ctypes
import glob
import lzma
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import fsspec
import pandas
import pyarrow as pa

from models.errors import UserError
from training import hub_access
from training.config import DataConfig, TrainConfig
from training.rows import OwnRows, Rows

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
# Bytes that are parsed at once. The columns and their types come from the first chunk. Where a later one does not fit
# them, a larger chunk is tried, which takes several times its size in memory.
JSON_CHUNKS = (1 << 26, 1 << 29)


def of_split(config: TrainConfig, split: str, data_dir: Path) -> Iterator[tuple[str, Rows]]:
    """Return the name and the rows of each file or dataset that the configuration names for a split."""
    patterns: Sequence[str] = getattr(config.data, split)
    if config.data.dataset:
        for part in patterns:
            yield f"{config.data.dataset}/{part}", read_dataset(config.data, part, data_dir)
        return
    paths = files(patterns, split, data_dir)
    label_files: Sequence[str] = getattr(config.data.label_files, split)
    label_paths = files(label_files, f"label_files.{split}", data_dir) if label_files else []
    if label_paths and len(label_paths) != len(paths):
        raise UserError(
            f"data.label_files.{split}: expected {len(paths)} files, one for each text file, found {label_paths}."
        )
    for place, path in enumerate(paths):
        if label_paths and not _is_lines(path):
            raise UserError(
                f"data.label_files.{split}: expected line files (.txt) beside label files, found {path}, which has a "
                "label column of its own; remove the label files."
            )
        rows = _labelled_lines(path, label_paths[place], config) if label_paths else read(path, config)
        yield shown(path, data_dir), rows


def source(config: TrainConfig, split: str, data_dir: Path) -> str:
    """Return the full paths of the files of a split, or the name of its dataset."""
    patterns: Sequence[str] = getattr(config.data, split)
    if config.data.dataset:
        return ", ".join(f"{config.data.dataset}/{part}" for part in patterns)
    return ", ".join(str(Path(path).resolve()) for path in files(patterns, split, data_dir))


def shown(path: str, data_dir: Path) -> str:
    """Return the name of a file as messages and ids have it: without the data folder."""
    return str(Path(path).relative_to(data_dir)) if Path(path).is_relative_to(data_dir) else path


def files(patterns: Sequence[str], key: str, data_dir: Path) -> list[str]:
    """Return the files of some names and globs.

    Raises:
        UserError: there are none for one of them; it names the key of the configuration.
    """
    files = []
    for pattern in patterns:
        exact = data_dir / pattern
        paths = [str(exact)] if exact.is_file() else sorted(glob.glob(str(exact), recursive=True))
        if not paths:
            raise UserError(f"data.{key}: expected files at {exact}, found none; check --data_dir.")
        files += paths
    return files


def _labelled_lines(path: str, label_path: str, config: TrainConfig) -> Rows:
    lines, labels = _lines(path), _lines(label_path)
    if len(labels) != len(lines):
        raise UserError(
            f"{label_path}: expected {len(lines):,} lines, a label for each line of {path}, found {len(labels):,}; "
            "check that the two files belong together."
        )
    return _rows_of_lines({"text": lines, config.labels.column: labels})


def _rows_of_lines(columns: Mapping[str, list[str]]) -> Rows:
    table = pa.table({name: pa.array(cells, pa.large_string()) for name, cells in columns.items()})
    return Rows(datasets.Dataset(table))


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


def read(path: str, config: TrainConfig) -> Rows:
    """Return the rows of a file.

    Raises:
        UserError: the file is damaged, or of no format that its suffix could tell.
    """
    if _is_lines(path):
        return _rows_of_lines({"text": _lines(path)})
    kind = _suffix(path)
    reader = READERS.get(kind)
    if reader is None:
        raise UserError(f"{path}: expected one of {', '.join(READERS)}, .txt, also compressed; convert the file.")
    try:
        options = _options(reader, path, kind, config.data)
        try:
            return _loaded(reader, path, options)
        except datasets.exceptions.DatasetGenerationError:
            if reader != "json":
                raise
            return _loaded(reader, path, options | {"chunksize": JSON_CHUNKS[1]})
    except UNREADABLE as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200] or "it is empty"
        raise UserError(f"{path} cannot be read as {reader}: {cause}.") from None
    finally:
        _give_memory_back()


def _loaded(reader: str, path: str, options: dict[str, Any]) -> OwnRows:
    """Return the rows of a file. Their files lose their names here, so nothing stays in memory or on disk."""
    with tempfile.TemporaryDirectory(prefix="labelbeam_") as folder, warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # else pandas drops cells beyond the header
        source = _decompressed(path, folder) if reader == "parquet" else path
        return OwnRows(
            datasets.load_dataset(
                reader, data_files=source, split="train", cache_dir=folder, keep_in_memory=False, **options
            )
        )


def _give_memory_back() -> None:
    """Return to the system what the parsers have freed, which Arrow and the C library would keep."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # of glibc alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _decompressed(path: str, folder: str) -> str:
    """Return a copy of a file that was compressed as a whole, since `datasets` decompresses no Parquet file."""
    if not path.endswith(COMPRESSIONS):
        return path
    copy = Path(folder, "decompressed.parquet")
    with fsspec.open(path, "rb", compression="infer") as compressed, copy.open("wb") as file:
        shutil.copyfileobj(compressed, file)
    return str(copy)


def read_dataset(config: DataConfig, part: str, data_dir: Path) -> Rows:
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
            table = _load(name, config, part, local=folder.is_dir())
    except KeyError:
        raise UserError(
            f"data.dataset {config.dataset!r}: expected a split {part!r}, found none; check the name."
        ) from None
    except UNREADABLE as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"data.dataset {config.dataset!r}, split {part!r}, cannot be read: {cause}") from None
    return Rows(table)


def _load(name: str, config: DataConfig, part: str, *, local: bool) -> datasets.Dataset:
    """Return a split of a dataset of files or of the hub. If the hub does not answer, the cache has to have it.

    Raises:
        UserError: the hub does not answer, and the cache does not have it.
    """
    if local or hub_access.check(f"data.dataset {config.dataset!r}", cached=True):
        return datasets.load_dataset(name, config.subset, split=part)
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name, config.subset, split=part)
    except UNREADABLE:
        if not offline:
            hub_access.check(f"data.dataset {config.dataset!r}", cached=False)
        raise
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _options(reader: str, path: str, suffix: str, config: DataConfig) -> dict[str, Any]:
    """Return the options with which `datasets` reads a file without changing any value."""
    if reader == "parquet":
        return {}
    if reader == "json":
        return {"chunksize": JSON_CHUNKS[0], "parse_agent_traces": False}
    separator = config.separator or ("\t" if suffix == ".tsv" else ",")
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

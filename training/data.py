"""Turns the rows of labelled files and datasets into texts and targets."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.labels import LabelSchema, Task
from models.text import TextError
from training import long_form, tables
from training.config import TrainConfig
from training.examples import Examples, concatenate
from training.label_reader import LabelReader, Names, NoLabelError, flag, matches, values_of
from training.rows import Rows
from training.spool import Texts, digest
from training.where import Condition

# Names of columns that tell whether a row's label applies, in tables in long form.
TELLING = ("applies", "label", "labels", "relevant", "correct", "agree", "value", "truth", "is_positive")
FLAGS = {"true", "false"}


def read(config: TrainConfig, split: str, data_dir: Path, schema: LabelSchema) -> Examples | None:
    """Return the examples of a split, or None if the configuration names no files for it.

    Raises:
        UserError: a file or column is missing or unreadable, or a label is not in the schema.
    """
    if not getattr(config.data, split):
        return None
    reader = LabelReader(config.labels.with_names(data_dir), schema)
    parts = [_examples(name, rows, split, config, reader) for name, rows in tables.of_split(config, split, data_dir)]
    examples = concatenate(parts)
    return long_form.joined(examples) if config.labels.value and schema.task is Task.MULTI_LABEL else examples


def schema_in(config: TrainConfig, data_dir: Path) -> LabelSchema:
    """Return the labels of the configuration: its own names, or those in the cells of the training files.

    With `labels.min_documents`, names that fewer training documents have are left out.

    Raises:
        UserError: a file or a column is missing or unreadable, or too few labels are left.
    """
    labels = config.labels.with_names(data_dir)
    if not labels.min_documents:
        return labels.schema_in(data_dir)
    documents: Counter[str] = Counter()
    known = Names(labels.names)
    for name, rows in tables.of_split(config, "train", data_dir):
        _check_columns(rows, "train", _columns(config))
        for number, row in kept(rows.of(_columns(config)), f"data.train, {name}", config, Counter()):
            try:
                applies = labels.value is None or flag(row[labels.value], labels.value) == 1
            except ValueError as error:
                raise UserError(f"data.train, {name}, row {number}, {error}") from None
            values = values_of(row[labels.column], labels.delimiter) if applies else ()
            documents.update({known.of(value) for value in values if value is not None})
    names = labels.names or tuple(sorted(name for name in documents if not matches(name, labels.ignore)))
    frequent = [name for name in names if documents[name] >= labels.min_documents]
    print(f"labels: {len(frequent):,} of {len(names):,} have at least {labels.min_documents:,} training documents")
    return labels.schema_of(tuple(frequent))


def read_texts(patterns: Sequence[str], config: TrainConfig, data_dir: Path) -> tuple[list[str], list[str]]:
    """Return the texts and ids of files whose labels do not matter. Rows without a text are left out."""
    texts, ids = [], []
    for path in tables.files(patterns, "weak_negatives.files", data_dir):
        rows = tables.read(path, config)
        _check_columns(rows, "weak_negatives.files", config.text.fields)
        for number, row in enumerate(rows.of(config.text.fields), 1):
            try:
                texts.append(config.text.text_of(row))
            except TextError:
                continue
            ids.append(f"{tables.shown(path, data_dir)}:{number}")
    return texts, ids


def _examples(name: str, rows: Rows, split: str, config: TrainConfig, reader: LabelReader) -> Examples:
    """Return the examples in the rows of a file. Rows without a text or a label are counted by reason."""
    ids: list[str] = []
    groups: list[str] = []
    targets: list[NDArray[np.float32]] = []
    skipped: Counter[str] = Counter()
    source = f"data.{split}, {name}"
    _check_columns(rows, split, _columns(config))
    _point_out_values(name, rows, config)

    def texts() -> Iterator[str]:
        for number, row in kept(rows.of(_columns(config)), source, config, skipped):
            try:
                text, target = config.text.text_of(row), reader.target(row)
            except (TextError, NoLabelError) as error:
                skipped[error.reason if isinstance(error, TextError) else "no_label"] += 1
                continue
            except ValueError as error:
                raise UserError(f"{source}, row {number}, {error}") from None
            own = row[config.data.id_column] if config.data.id_column else f"{name}:{number}"
            if own in (None, ""):
                raise UserError(
                    f"{source}, row {number}, column {config.data.id_column!r}: expected an id, found none."
                )
            ids.append(str(own))
            targets.append(target)
            if config.data.split_by:
                group = row[config.data.split_by]
                groups.append(digest(text).hex() if group is None else str(group))  # equal texts stay together
            yield text

    written = Texts.of(texts())
    stacked = np.stack(targets) if targets else np.zeros((0, reader.labels), np.float32)
    return Examples(written, stacked, ids, groups if config.data.split_by else None, dict(skipped))


def kept(
    rows: Iterable[dict[str, Any]], source: str, config: TrainConfig, skipped: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows that fulfil all conditions, with their numbers. Count the others by the condition.

    Raises:
        UserError: a cell cannot be compared.
    """
    conditions = [Condition.parse(text) for text in config.data.where]
    for number, row in enumerate(rows, 1):
        try:
            unmet = next((condition.text for condition in conditions if not condition.holds(row)), None)
        except ValueError as error:
            raise UserError(f"{source}, row {number}, {error}") from None
        if unmet is None:
            yield number, row
        else:
            skipped[f"not {unmet}"] += 1


def _columns(config: TrainConfig) -> list[str]:
    """Return the columns that the rows must have."""
    labels = config.labels.columns or (config.labels.column,)
    single = (config.data.split_by, config.data.id_column, config.labels.value)
    return [*filter(None, single), *labels, *compared_columns(config), *config.text.fields]


def compared_columns(config: TrainConfig) -> list[str]:
    """Return the columns that the conditions of the configuration compare."""
    return [column for text in config.data.where for column in Condition.parse(text).columns]


def _point_out_values(name: str, rows: Rows, config: TrainConfig) -> None:
    """Say that a column may tell whether the rows' labels apply, if it is not read and holds only true and false.

    Without `labels.value`, a row that denies a label would count as an example of it.
    """
    if config.labels.value or config.labels.columns:
        return
    for column in sorted(set(rows.columns) - set(_columns(config))):
        if column.lower() in TELLING and {str(row[column]).strip().lower() for row in rows.of([column])} == FLAGS:
            print(
                f"notice: {name} has a column {column!r} of true and false that is not read. If it says whether the "
                f"label in {config.labels.column!r} applies, set labels.value = {column!r}; rows with false count as "
                "examples of their label otherwise."
            )


def _check_columns(rows: Rows, key: str, wanted: Sequence[str]) -> None:
    """Check that the rows have every column."""
    missing = [name for name in wanted if len(rows) and name not in rows.columns]
    if missing:
        raise UserError(
            f"data.{key}: expected columns {missing}, found {sorted(rows.columns)}; set labels.column, text.fields and "
            "data.split_by, or data.columns for a file without a header."
        )

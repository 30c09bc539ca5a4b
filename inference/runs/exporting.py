"""Writes a finished run as one table, beside the fields of its input."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from inference.corpus import storage
from inference.runs import summary, tables
from inference.runs.joined import JoinedRun
from inference.runs.tables import Columns, Labels, Layout
from models.errors import UserError


def export(run: str, to: str, fields: Sequence[str], layout: Layout, *, overwrite: bool = False) -> dict[str, int]:
    """Write a run as a table. Return the numbers of rows, of those with a prediction, and of those that failed.

    A reading of the input finds the types of its fields, and a second one the rows.

    Args:
        run: The folder of a finished run.
        to: The file to write; its end tells the format.
        fields: The input fields to write; all of them if there are none.
        layout: The shape of the labels.
        overwrite: Whether a file that exists is replaced.

    Raises:
        UserError: the folder holds no finished run, its files or its input have changed, the file exists or has an
            unknown format, or a field has the name of a column of labels.
        SourceError: the input cannot be read.
    """
    write = next((writer for suffix, writer in tables.WRITERS.items() if to.endswith(suffix)), None)
    if write is None:
        raise UserError(f"--to {to}: expected a name that ends in {', '.join(tables.WRITERS)}; name another.")
    joined = JoinedRun(run, fields)
    _check_target(to, joined, overwrite=overwrite)
    totals: dict[str, Any] = summary.read(run, joined.description["run"]) or {}
    labels = Labels(
        {model["name"]: _label_names(totals, model["name"]) for model in joined.description["models"]}, layout
    )
    if labels.repeated:
        raise UserError(f"two columns would have the name {labels.repeated[0]}; use --layout lists.")
    types = tables.field_types(joined.records())
    _check_names(types, labels, fields)
    with storage.new_file(to) as file:
        rows = write(joined.rows(), types, labels, file)
    return {"rows": rows, "predicted": totals["predicted"], "failed": totals["failed"]}


def _label_names(totals: dict[str, Any], model: str) -> list[str]:
    """Return the labels of a model in its own order; of a model with very many, those that a document has, sorted."""
    return list(totals["scores"].get(model) or sorted(totals["labels"].get(model, ())))


def _check_target(to: str, joined: JoinedRun, *, overwrite: bool) -> None:
    """Refuse a target that cannot be written, or that would replace what the table is made of."""
    if problem := storage.bucket_problem(to):
        raise UserError(f"--to {problem}")
    if not storage.is_remote(to) and os.path.isdir(to):
        raise UserError(f"--to {to}: expected a file, found a folder; name a file in it.")
    place = _place(to)
    if place.startswith(f"{_place(joined.run)}/"):
        raise UserError(f"--to {to}: expected a file outside the run's folder; name another.")
    if place in map(_place, joined.inputs):
        raise UserError(f"--to {to}: expected a new file, found an input of the run; name another.")
    if not overwrite and storage.exists(to):
        raise UserError(f"--to {to}: expected a new file, found one; name another, or add --overwrite.")


def _place(path: str) -> str:
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)


def _check_names(types: Columns, labels: Labels, fields: Iterable[str]) -> None:
    """Refuse fields that no record has, and those with the name of another column."""
    if missing := [name for name in fields if name not in types]:
        raise UserError(f"--fields {missing[0]}: no record has this field; `labelbeam peek FILE` shows what there is.")
    own = [*labels.columns, tables.FAILURE]
    taken = {column.casefold() for column in own}
    if both := [name for name in types if name.casefold() in taken]:
        others = [name for name in types if name not in both and name == name.strip() != "" and "," not in name]
        raise UserError(
            f"two columns would have the name {both[0]}; name the fields to write, such as --fields "
            f"{','.join(others) or 'A,B'}."
        )

"""Describes a corpus from a sample: fields, types, lengths of the texts, repeated documents, and unusable lines."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from inference.corpus import records
from inference.corpus.files import InputFile, compression_of
from inference.corpus.records import DocumentRecipe, Documents, Line, RecordError, read_documents
from inference.corpus.sampling import Pieces
from inference.cost import sample
from inference.cost.sample import Estimate
from models.console import PlainConsole

TYPES = {str: "string", bool: "boolean", int: "integer", float: "float", list: "list", dict: "object"}
LONGEST = 100_000  # tokens up to which a text is measured
DEEPEST = 200  # levels of a value that is shown as it is
CELL = 40  # characters of an example
VALUE = 400  # characters of a value of a document


def describe(files: Sequence[InputFile], found: Pieces, id_field: str, documents: int) -> dict[str, Any]:
    """Describe a corpus from pieces of it, and include the records of some documents."""
    lines = [line for piece in found.pieces for line in piece.lines if not line.is_blank]
    outcomes = [_record(line) for line in lines]
    sampled = [record for record in outcomes if not isinstance(record, str)]
    ids = [record[id_field] for record in sampled if record.get(id_field) is not None]
    return {
        "formats": Counter(f"{file.format}{compression_of(file.path) or ''}" for file in files),
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "lines": asdict(sample.count_lines(files, found)),
        "sampled": len(lines),
        "sampled_files": len({piece.file for piece in found.pieces}),
        "fields": [_field(name, values, len(sampled)) for name, values in _columns(sampled).items()],
        "repeated_ids": _repeated(ids),
        "repeated_records": _repeated(sampled),
        "failures": Counter(reason for reason in outcomes if isinstance(reason, str)),
        "documents": [
            {name: _shallow(value) for name, value in record.items()}
            for record in sampled[:: max(len(sampled) // documents, 1)][:documents]
        ],
    }


def describe_texts(found: Pieces, model: str, fields: Sequence[str], id_field: str) -> dict[str, Any]:
    """Describe what a model would read of the sample.

    Raises:
        ModelError: the model cannot be used.
    """
    from inference.scoring import model_files
    from models import tokenizing, trained_model, weights  # transformers takes seconds to load

    directory = model_files.local(model)
    manifest = trained_model.verify(directory)
    recipe = manifest.text.model_copy(update={"fields": tuple(fields)} if fields else {})
    read = Documents()
    for piece in found.pieces:
        read_documents(piece.lines, piece.file, DocumentRecipe((recipe,), id_field), read)
    texts = [document.texts[0] for document in read.documents]
    tokens = [
        len(ids) for ids in tokenizing.encode(tokenizing.of(weights.load_tokenizer(directory)), texts, LONGEST, recipe)
    ]
    return {
        "model": trained_model.model_name(model),
        "text_fields": recipe.fields,
        "tokens": _percentiles(tokens),
        "max_tokens": recipe.most_tokens,
        "truncated": sum(length > recipe.most_tokens for length in tokens) / max(len(tokens), 1),
        "repeated_texts": _repeated(texts),
        "failures": Counter(failure.reason for failure in read.failures),
    }


def _record(line: Line) -> dict[str, Any] | str:
    """Return the record of a line, or the reason why it has none."""
    try:
        return records.record_of(line)
    except RecordError as error:
        return error.reason


def _columns(sampled: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each field that are neither null nor an empty text."""
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for record in sampled:
        for name, value in record.items():
            columns[name] += [value] if value is not None and value != "" else []
    return columns


def _field(name: str, values: Sequence[Any], of: int) -> dict[str, Any]:
    return {
        "name": name,
        "filled": len(values) / of,
        "types": Counter(TYPES.get(type(value), "other") for value in values),
        "characters": _percentiles([len(value) for value in values if isinstance(value, str)]),
        "example": _shallow(values[0]) if values else None,
    }


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Return the median of some lengths, the length that 95 % of them do not exceed, and the largest."""
    if not lengths:
        return {}
    median, most = np.percentile(lengths, (50, 95), method="higher").tolist()
    return {"median": int(median), "p95": int(most), "longest": max(lengths)}


def _repeated(values: Iterable[Any]) -> int:
    """Return how many of the values equal an earlier one."""
    keys = [hashlib.blake2b(records.to_json(value), digest_size=16).digest() for value in values]
    return len(keys) - len(set(keys))


def show(overview: dict[str, Any], console: PlainConsole) -> None:
    """Print the description of a corpus."""
    formats = ", ".join(f"{count:,} {name}" for name, count in overview["formats"].items())
    console.print(
        f"{_count(overview['files'], 'file')} ({formats}), {overview['bytes'] / 1e6:,.1f} MB: about "
        f"{Estimate(**overview['lines'])} documents",
        f"looked at {overview['sampled']:,} of them, from {_count(overview['sampled_files'], 'file')}",
        sep="\n",
        soft_wrap=True,
    )
    console.print(_table(overview["fields"]))
    console.print(
        f"repeated in the sample: {_count(overview['repeated_ids'], 'id')}, "
        f"{_count(overview['repeated_records'], 'whole record')}",
        soft_wrap=True,
    )
    _show_failures(overview["failures"], console, "lines that hold no record")
    if texts := overview.get("texts"):
        tokens = texts["tokens"] or {"median": 0, "p95": 0, "longest": 0}
        console.print(
            f"texts for {texts['model']} ({', '.join(texts['text_fields'])}): half have at most {tokens['median']:,} "
            f"tokens, 95 % at most {tokens['p95']:,}, the longest {tokens['longest']:,}; the model reads "
            f"{texts['max_tokens']:,}, so {texts['truncated']:.1%} are truncated; {texts['repeated_texts']:,} repeat "
            "another one",
            soft_wrap=True,
        )
        _show_failures(texts["failures"], console, "lines that it could not label")
    for document in overview["documents"]:
        console.print()
        for name, value in document.items():
            console.print(f"{name}: {_short(value, VALUE)}", soft_wrap=True)


def _show_failures(failures: dict[str, int], console: PlainConsole, what: str) -> None:
    if failures:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(failures.items()))
        console.print(f"{what}: {reasons}", soft_wrap=True)


def _table(fields: Iterable[dict[str, Any]]) -> Table:
    table = Table(caption="characters of a text: median / 95 % are not longer / longest", caption_justify="left")
    table.add_column("field")
    table.add_column("type", no_wrap=True)
    for column in ("filled", "characters"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("example")
    for field in fields:
        types = " or ".join(sorted(field["types"])) or "null"
        characters = " / ".join(f"{length:,}" for length in field["characters"].values())
        table.add_row(field["name"], types, f"{field['filled']:.1%}", characters, _short(field["example"], CELL))
    return table


def _short(value: Any, most: int) -> str:
    text = " ".join((value if isinstance(value, str) else records.to_json(value).decode()).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _shallow(value: Any) -> Any:
    """Return a value that `--json` can print: JSON text instead of lists in lists beyond 200 levels."""
    level = [value]
    for _ in range(DEEPEST):
        level = [item for outer in level for item in _items(outer)]
    return records.to_json(value).decode() if level else value


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"

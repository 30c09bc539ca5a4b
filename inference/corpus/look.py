"""Looks at the first lines of some files before a run, and explains why next to nothing of them could be labelled."""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.corpus import files as inputs
from inference.corpus import records, slices
from inference.corpus.csv_rows import HeaderError
from inference.corpus.files import InputFile
from inference.corpus.parquet_rows import LayoutError
from inference.corpus.records import DocumentRecipe, Failure, Line

FILES = 5  # files to look at, spread over the whole list
LINES = 100  # lines to look at in each
BYTES = 256 * 1024  # bytes of text to read of each
FEW = 20  # fewer lines than this say too little to refuse a corpus, unless its format is known to be wrong
ALLOWED = 0.5  # share of lines that may fail
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
BINARY = {b"PK\x03\x04": "a ZIP archive", b"Obj\x01": "an Avro file", b"ORC": "an ORC file"}


@dataclass
class Look:
    """What the beginning of one file shows."""

    file: InputFile
    lines: int = 0  # lines that are not blank
    failures: list[tuple[Failure, dict[str, Any]]] = field(default_factory=list)  # with the record, if it could be read
    wrong_format: str | None = None  # what the file holds instead of JSON lines, and what to do


def problems(files: Sequence[InputFile], recipe: DocumentRecipe, allowed: float = ALLOWED) -> list[str]:
    """Return why this corpus should not be labelled; nothing if at most a share `allowed` of the lines looks faulty.

    The first sentence has the counts, and each of the others names a file and a cause.

    Raises:
        SourceError: a file cannot be read.
    """
    looks = [_look(file, recipe) for file in _spread([file for file in files if file.size])]
    looks = [look for look in looks if look.lines or look.wrong_format]
    lines, failed = sum(look.lines for look in looks), sum(len(look.failures) for look in looks)
    all_wrong = bool(looks) and all(look.wrong_format for look in looks)
    if allowed >= 1 or not (all_wrong or (lines >= FEW and failed > allowed * lines)):
        return []
    where = f"{lines:,} lines from the beginning of {len(looks):,} file{'s' * (len(looks) > 1)}"
    return [
        f"--input: expected documents, found {lines - failed:,} in {where}; mend what follows, or add "
        "--max_failure_rate 1 to write these lines as failures.",
        *_causes(looks, recipe),
    ]


def _spread(files: Sequence[InputFile]) -> list[InputFile]:
    """Return the first file, the last, and some between."""
    places = {round(number * (len(files) - 1) / (FILES - 1)) for number in range(FILES)} if files else ()
    return [files[place] for place in sorted(places)]


def _look(file: InputFile, recipe: DocumentRecipe) -> Look:
    if file.format != "jsonl":
        return _look_at_rows(file, recipe)
    if inputs.compression_of(file.path):
        stored = inputs.read_stored(file, len(max(MAGIC, key=len)))
        content = inputs.read_beginning(file, BYTES)[0]
    else:
        stored = content = inputs.read_stored(file, BYTES)
    # The last line may be cut off, unless this is the whole file.
    whole = content if len(content) < BYTES else content[: content.rfind(b"\n") + 1]
    look = _look_at_lines(file, slices.lines_in(whole), recipe)
    if len(look.failures) == look.lines:
        look.wrong_format = _wrong_format(file.path, stored, content)
    return look


def _look_at_rows(file: InputFile, recipe: DocumentRecipe) -> Look:
    """Look at a table, whose fields are the same in all rows."""
    try:
        return _look_at_lines(file, slices.all_lines(file), recipe)
    except (HeaderError, LayoutError) as error:
        return Look(file, wrong_format=error.found)


def _look_at_lines(file: InputFile, found: Iterator[Line], recipe: DocumentRecipe) -> Look:
    lines = list(itertools.islice(found, min(LINES, file.max_lines or LINES)))
    read = records.read_documents(lines, file.path, recipe)
    look = Look(file, lines=read.lines - read.blank)
    for failure in read.failures:
        record = records.record_or_nothing(lines[failure.place])
        if not _is_only_missing(failure, record, recipe):
            look.failures.append((failure, record))
    return look


def _is_only_missing(failure: Failure, record: dict[str, Any], recipe: DocumentRecipe) -> bool:
    """Return whether a document has the fields of the text, and just no text in them."""
    fields = {name for text in recipe.recipes for name in text.fields}
    return failure.reason == "empty_text" or (failure.reason == "no_text" and not fields.isdisjoint(record))


def _wrong_format(path: str, stored: bytes, content: bytes) -> str | None:
    """Return what a file without a usable line holds, and what to do; None if that is unknown."""
    named = inputs.compression_of(path)
    found = next((suffix for magic, suffix in MAGIC.items() if stored.startswith(magic)), None)
    if found != named and (found or stored.lstrip()[:1] in (b"{", b"[")):
        return (
            f"expected {named or 'no compression'} by its name, found {found or 'no compression'}; rename it to "
            f"{path.removesuffix(named or '')}{found or ''}."
        )
    if content.startswith(b"PAR1"):
        return "expected JSON lines, found a Parquet file; end its name with .parquet, or add --input_format parquet."
    if kind := next((kind for magic, kind in BINARY.items() if content.startswith(magic)), None):
        return f"expected JSON lines, found {kind}; export it as JSON lines."
    if encoding := records.encoding_of(content):
        return (
            f"expected UTF-8, found {encoding}; convert it with `iconv -f {encoding} -t UTF-8 FILE > NEW.jsonl`, and "
            "look whether it holds one JSON object a line."
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*\[\s*[{\]]", content):
        return "expected one JSON object a line, found a JSON array; convert it with `jq -c '.[]' FILE > NEW.jsonl`."
    if re.match(rb'(\xef\xbb\xbf)?\s*\{\s*\n\s*"', content):
        return (
            "expected one JSON object a line, found one object over several lines; convert it with `jq -c . FILE > "
            "NEW.jsonl`, or with `jq -c '.NAME[]'` if the documents are a list in it."
        )
    if kind := _table(content):
        return (
            f"expected one JSON object a line, found {kind}; end its name with .{kind.lower()}, or add --input_format "
            f"{kind.lower()}."
        )
    return None


def _table(content: bytes) -> str | None:
    """Return CSV or TSV if the first two lines have the same number of cells, more than one, and none begins JSON."""
    first = content.decode("utf-8", "replace").splitlines()[:2]
    if len(first) < 2 or any(line.lstrip()[:1] in ("", "{", "[") for line in first):
        return None
    for kind, separator in (("TSV", "\t"), ("CSV", ",")):
        widths = {len(row) for row in csv.reader(first, delimiter=separator)}
        if len(widths) == 1 and widths != {1}:
            return kind
    return None


def _causes(looks: Sequence[Look], recipe: DocumentRecipe) -> Iterator[str]:
    """Yield a sentence for each different cause, with the first file that shows it."""
    shown: set[str] = set()
    for look in looks:
        for cause in [look.wrong_format] if look.wrong_format else _faults(look, recipe):
            kind = cause.partition(";")[0]
            if kind not in shown:
                shown.add(kind)
                yield f"{look.file.path}: {cause}"


def _faults(look: Look, recipe: DocumentRecipe) -> Iterator[str]:
    """Yield a sentence for the first failure of each reason."""
    shown: set[str] = set()
    for failure, record in look.failures:
        if failure.reason in shown:
            continue
        shown.add(failure.reason)
        found = f"found the fields {', '.join(map(str, record)) or 'none'}"
        if failure.reason == "no_text":
            names = [name for text in recipe.recipes for name in text.fields]
            expected = f"a field {names[0]!r}" if len(names) == 1 else f"one of the fields {', '.join(names)}"
            alike = ",".join(name for name in record if _is_prose(name, look)) or "A,B"
            yield f"expected {expected}, {found}; name the text with --text_fields {alike}."
        elif failure.reason == "no_id":
            alike = next((name for name in record if re.search(r"(id|doi|key)$", name, re.IGNORECASE)), "NAME")
            yield (
                f"expected a field {recipe.id_field!r}, {found}; name the id with --id_field {alike}, or add "
                "--id_field= for ids made of file and line number."
            )
        else:
            yield f"line {failure.line}: {failure.detail.rstrip('.')}."


def _is_prose(name: str, look: Look) -> bool:
    """Return whether most records have several words in a field."""
    values = [record.get(name) for _, record in look.failures]
    return 2 * sum(isinstance(value, str) and len(value.split()) > 1 for value in values) > len(values)

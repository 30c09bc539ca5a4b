"""Writes the documents of an audit for coders, and reads their labels back, as CSV or for a labelling tool.

Every format names a document by its row, which no two audits share. In the formats of the tools, a document without any
label has the choice NONE, so that it differs from one that nobody has looked at.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson

from inference.audits.population import NONE
from models.errors import UserError

LONGEST = 20_000  # characters of a text; a cell of a spreadsheet holds 32,767
YES, NO = frozenset({"1", "yes", "y", "true"}), frozenset({"0", "no", "n", "false"})
QUESTION = "labels"  # name of the question in Label Studio and Argilla
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula


@dataclass(frozen=True)
class Paper:
    """A document as a coder sees it."""

    row: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What a coder says of a document."""

    row: str
    text: str | None  # text as it came back; None if the file does not hold it
    labels: frozenset[str] | None  # labels that apply; None if the coder did not say


def shown(text: str) -> str:
    """Return a text as coders see it: in one line, and not longer than a cell."""
    return " ".join(text.split())[:LONGEST]


def write_csv(papers: Iterable[Paper], labels: Sequence[str]) -> bytes:
    """Return a CSV file with an empty column for each label. Spreadsheets take no cell for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["row", "text", *(_cell(f"{label}?") for label in labels)])
    for paper in papers:
        writer.writerow([paper.row, _cell(paper.text), *("" for _ in labels)])
    return text.getvalue().encode("utf-8-sig")  # without the mark, spreadsheets take it for another encoding


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def write_label_studio(papers: Iterable[Paper], labels: Sequence[str]) -> bytes:  # noqa: ARG001
    """Return tasks for Label Studio; `label_studio_config` returns the settings of their project."""
    return orjson.dumps([{"data": {"row": paper.row, "text": paper.text}} for paper in papers])


def label_studio_config(labels: Sequence[str], *, exclusive: bool) -> bytes:
    """Return the labelling interface of a project in Label Studio."""
    choices = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in (*labels, NONE))
    choice = "single" if exclusive else "multiple"
    return (
        f'<View>\n  <Text name="text" value="$text"/>\n  <Choices name="{QUESTION}" toName="text" choice="{choice}" '
        f'required="true">\n{choices}  </Choices>\n</View>\n'
    ).encode()


def write_doccano(papers: Iterable[Paper], labels: Sequence[str]) -> bytes:  # noqa: ARG001
    """Return JSON lines for a project of doccano."""
    return b"".join(orjson.dumps({"row": paper.row, "text": paper.text, "label": []}) + b"\n" for paper in papers)


def write_argilla(papers: Iterable[Paper], labels: Sequence[str]) -> bytes:  # noqa: ARG001
    """Return records for Argilla."""
    return orjson.dumps(
        [
            {"id": paper.row, "fields": {"text": paper.text}, "metadata": {}, "suggestions": {}, "responses": {}}
            for paper in papers
        ]
    )


# The name of the file and what writes it, for each format.
FORMATS: dict[str, tuple[str, Callable[[Iterable[Paper], Sequence[str]], bytes]]] = {
    "csv": ("sheet.csv", write_csv),
    "label_studio": ("label_studio.json", write_label_studio),
    "argilla": ("argilla.json", write_argilla),
    "doccano": ("doccano.jsonl", write_doccano),
}


def read(path: str, content: bytes, labels: Sequence[str]) -> list[Answer]:
    """Return what a file says, in its order. Its content tells the format.

    Raises:
        UserError: the file has another form, or a cell holds neither yes nor no.
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    start = content.lstrip()[:1]
    if start not in (b"[", b"{"):
        return list(_read_csv(path, content, labels))
    try:
        rows = orjson.loads(content) if start == b"[" else [orjson.loads(line) for line in content.splitlines() if line]
        return [_answer(row, path, labels) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: expected an export of Label Studio (JSON), Argilla (records.to_json) or doccano (JSONL), found "
            "another form; export it again, or give a CSV sheet."
        ) from None


def _read_csv(path: str, content: bytes, labels: Sequence[str]) -> Iterator[Answer]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected UTF-8, found another encoding; save it as 'CSV UTF-8'.") from None
    readers = (csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter) for delimiter in ",;\t")
    reader = next((one for one in readers if "row" in map(_bare, one.fieldnames or ())), None)
    columns = {_bare(name): name for name in reader.fieldnames or ()} if reader else {}
    of_label = {label: columns.get(_bare(f"{label}?"), "") for label in labels}
    missing = [f"{label}?" for label, column in of_label.items() if not column]
    if reader is None or missing:
        expected = missing[0] if reader else "row"
        raise UserError(f"{path}: expected a column {expected!r}, found none; give the sheet that the audit wrote.")
    try:
        for cells in reader:
            if not any(cells.values()):
                continue
            row = (cells[columns["row"]] or "").strip()
            given = {label: _yes(cells[column], label, row, path) for label, column in of_label.items()}
            said = None if None in given.values() else frozenset(label for label, yes in given.items() if yes)
            yield Answer(row, cells[columns["text"]] if "text" in columns else None, said)
    except csv.Error as error:
        raise UserError(f"{path}: expected CSV, found {error}; save it again as CSV.") from None


def _bare(name: str | None) -> str:
    """Return the name of a column without what a spreadsheet may add to it."""
    return (name or "").strip().lstrip("'").strip()


def _yes(cell: str | None, label: str, row: str, path: str) -> bool | None:
    value = (cell or "").strip().casefold()
    if value and value not in YES | NO:
        raise UserError(f"{path}: row {row}: expected 1 or 0 for {label}, found {value!r}; mend the cell.")
    return value in YES if value else None


def _answer(row: dict[str, Any], path: str, labels: Sequence[str]) -> Answer:
    """Return what a task of Label Studio, a record of Argilla or a line of doccano says."""
    if "annotations" in row or "data" in row:
        name, text = row["data"]["row"], row["data"].get("text")
        done = [one for one in row.get("annotations", ()) if not one.get("was_cancelled")]
        choices = [[choice for part in one["result"] for choice in part["value"]["choices"]] for one in done]
    elif "fields" in row:
        name, text = row["id"], row["fields"].get("text")
        values = [one["value"] for one in row.get("responses", {}).get(QUESTION, ()) if one["value"]]
        choices = [value if isinstance(value, list) else [value] for value in values]
    else:
        name, text = row.get("row") or row["meta"]["row"], row.get("text")
        choices = [row.get("label") or row.get("labels") or []]
    return Answer(name, text, _labels(name, [frozenset(one) for one in choices if one], path, labels))


def _labels(row: str, choices: Sequence[frozenset[str]], path: str, labels: Sequence[str]) -> frozenset[str] | None:
    if unknown := sorted(frozenset().union(*choices) - {*labels, NONE}):
        raise UserError(
            f"{path}: row {row}: expected the labels {', '.join(labels)} or {NONE!r}, found {unknown[0]!r}; mend it."
        )
    if len(set(choices)) > 1:
        raise UserError(
            f"{path}: row {row}: expected one answer, found coders who disagree; settle it in the tool, or export each "
            "coder's answers to a file of their own."
        )
    if not choices:
        return None
    if NONE in choices[0] and len(choices[0]) > 1:
        raise UserError(f"{path}: row {row}: expected labels or {NONE!r}, found both; mend it.")
    return choices[0] - {NONE}

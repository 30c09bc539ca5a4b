"""Keeps an audit in a folder: `audit.json` with the sample, and the files for the coders.

`audit.json` is sealed and written last, so a folder that has it is complete. Coders need not see it: it holds the
scores and decisions of the model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import orjson

from inference.audits import labelling_page, sheets
from inference.audits.population import MISSING, SCALE
from inference.audits.sheets import Paper
from inference.audits.strata import Stratum
from inference.corpus import storage
from inference.runs import lineage
from models import seals
from models.errors import UserError

AUDIT, PAPERS, PAGE, STUDIO = "audit.json", "papers.json", "label.html", "label_studio.xml"
ESTIMATES, AT_ODDS = "estimates.json", "at_odds.csv"
FORMAT_VERSION = 1
Purpose = Literal["estimate", "training"]


@dataclass(frozen=True)
class AuditDocument:
    """A document of the sample."""

    row: str  # its name on every sheet
    id: str  # its id in the corpus
    file: int  # number of the file of rows that holds it
    place: int  # number of its row in that file, from 0
    stratum: int  # number of its stratum
    group: str  # value of the grouping field
    scores: list[int]  # score of each audited label, in millionths
    applies: list[bool]  # whether the model gave each audited label
    text_sha256: str  # hash of the text that coders see


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The content of `audit.json`."""

    format_version: int  # 1
    name: str  # name of the audit, with which its rows begin
    purpose: Purpose  # estimate, or training, from which nothing is estimated
    source: str  # folder of the run
    run: str | None  # identity of the run; None for a delta with nothing to label
    predicted: int  # documents that the run itself labelled
    population: str  # hash of all rows of the run
    model: dict[str, str]  # name, path and SHA-256 of the model
    precision: str  # precision that the run asked for, which tells a model's SHA-256
    labels: list[str]  # labels that are audited
    all_labels: list[str]  # all labels of the model
    exclusive: bool  # whether a document has at most one label
    by: str | None  # field whose values are the groups
    fields: list[str]  # input fields that coders see
    as_read: bool  # whether the model read these fields
    seed: int  # seed of the random numbers
    weights: list[float]  # weight of each label in the choice of the strata
    strata: list[Stratum]  # group, label, range of scores, documents and documents drawn of each stratum
    cells: dict[str, Any]  # documents and sums of scores by stratum, group, label, and whether the model gave it
    documents: list[AuditDocument]  # the sample, in the order of the sheet

    @property
    def groups(self) -> list[str]:
        """Return the values of the grouping field, sorted."""
        return sorted({group for by_group in self.cells.values() for group in by_group}, key=_order)

    def probability(self, document: AuditDocument) -> float:
        """Return the probability with which a document was drawn."""
        stratum = self.strata[document.stratum]
        return stratum.drawn / stratum.documents


def _order(group: str) -> tuple[bool, float, str]:
    """Return by what groups are sorted: numbers by their value, before all others."""
    try:
        return False, float(group), group
    except ValueError:
        return True, 0.0, group


def name_of(*parts: object) -> str:
    """Return the name of an audit, which depends on what it draws from, what it asks, and how."""
    return f"audit-{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:8]}"


def text_hash(text: str) -> str:
    """Return the hash of a text as it is shown, without what a spreadsheet may add to it."""
    return hashlib.sha256(sheets.shown(text.removeprefix("'")).encode()).hexdigest()


def refuse_used(folder: str) -> None:
    """Refuse a folder that holds anything but what a stopped draw wrote.

    Raises:
        UserError: it holds an audit or other files.
    """
    names = lineage.contents(folder)
    own = {PAPERS, PAGE, STUDIO, *(name for name, _ in sheets.FORMATS.values())}
    if AUDIT in names or (foreign := next((name for name in names if name not in own), None)):
        what = "an audit" if AUDIT in names else repr(foreign)
        raise UserError(f"--output {folder}: expected a new folder, found {what} in it; name another.")


def write(audit: Audit, papers: Sequence[Paper], folder: str, formats: Sequence[str]) -> list[str]:
    """Write the files for the coders, and then `audit.json`. Return the paths for the coders."""
    contents = {sheets.FORMATS[name][0]: sheets.FORMATS[name][1](papers, audit.labels) for name in formats}
    if "label_studio" in formats:
        contents[STUDIO] = sheets.label_studio_config(audit.labels, exclusive=audit.exclusive)
    contents[PAGE] = labelling_page.make(audit.name, papers, audit.labels, exclusive=audit.exclusive)
    paths = []
    for name, content in contents.items():
        paths.append(storage.join(folder, name))
        storage.write_file(paths[-1], content)
    storage.write_file(storage.join(folder, PAPERS), orjson.dumps(papers))
    storage.write_file(storage.join(folder, AUDIT), seals.seal(orjson.loads(orjson.dumps(asdict(audit)))))
    return paths


def read(folder: str) -> Audit:
    """Return the audit in a folder.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    stored = storage.read_if_there(storage.join(folder, AUDIT))
    if stored is None:
        raise UserError(f"{folder}: expected the folder of an audit, found no {AUDIT} in it; check the path.")
    content = seals.unseal(stored)
    if content is None or content.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{folder}: expected an {AUDIT} of this version, found a damaged or other one; draw again.")
    content["strata"] = [Stratum(**one) for one in content["strata"]]
    content["documents"] = [AuditDocument(**one) for one in content["documents"]]
    return Audit(**content)


def papers(audit: Audit, folder: str) -> list[Paper]:
    """Return the documents of an audit as coders see them, in the order of the sheet.

    Raises:
        UserError: the file is gone, or does not hold the texts that were drawn.
    """
    stored = storage.read_if_there(storage.join(folder, PAPERS)) or b"[]"
    try:
        found = [Paper(**one) for one in orjson.loads(stored)]
        hashes = [(paper.row, text_hash(paper.text)) for paper in found]
    except (ValueError, TypeError, AttributeError):
        hashes = []
    if hashes != [(one.row, one.text_sha256) for one in audit.documents]:
        raise UserError(f"{folder}: expected the texts of the audit in {PAPERS}, found others or none; put it back.")
    return found


def frame(audit: Audit, label: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return documents and sums of scores of a label, both (strata, groups, 2): without and with the model's label."""
    groups = {group: place for place, group in enumerate(audit.groups)}
    documents = np.zeros((len(audit.strata), len(groups), 2), np.int64)
    expected = np.zeros(documents.shape)
    for number, by_group in audit.cells.items():
        for group, by_label in by_group.items():
            for applied, (count, score) in by_label[str(label)].items():
                place = (int(number), groups[group], int(applied))
                documents[place], expected[place] = count, score / SCALE
    return documents, expected


def group_name(group: str) -> str:
    """Return a group as tables show it."""
    return "(none)" if group == MISSING else group

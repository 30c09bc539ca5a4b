"""Reads the sheets that coders filled in, and checks them against the audit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.audits import audit_folder, estimates, sheets
from inference.audits.audit_folder import AT_ODDS, Audit
from inference.audits.sheets import Answer, Paper
from inference.corpus import storage
from models.errors import UserError

Labels = frozenset[str]


def read(audit: Audit, path: str, flag: str = "--labelled") -> dict[str, Labels]:
    """Return the labels of each row of a sheet, which has every row of the audit unless the flag is --agreed.

    Raises:
        UserError: the file is no sheet; or a row is missing, repeated, of another audit, without an answer, or has
            another text or impossible labels.
    """
    content = storage.read_if_there(path)
    if content is None:
        raise UserError(f"{flag} {path}: expected a sheet, found no such file; check the path.")
    found: dict[str, Labels] = {}
    hashes = {one.row: one.text_sha256 for one in audit.documents}
    for answer in sheets.read(path, content, audit.labels):
        if problem := _problem(audit, answer, hashes, found):
            raise UserError(f"{path}: row {answer.row}: {problem}")
        if answer.labels is not None:
            found[answer.row] = answer.labels
    missing = [one.row for one in audit.documents if one.row not in found]
    if missing and flag != "--agreed":
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UserError(f"{path}: expected every row of the audit, found no {missing[0]}{more}; label them too.")
    return found


def _problem(audit: Audit, answer: Answer, hashes: dict[str, str], found: dict[str, Labels]) -> str | None:
    """Return what is wrong with a row of a sheet."""
    if answer.row not in hashes:
        return f"expected a row of {audit.name}, found one of another audit or of none; give the sheet of this audit."
    if answer.row in found:
        return "expected one row of this name, found two; delete one."
    if answer.text is not None and audit_folder.text_hash(answer.text) != hashes[answer.row]:
        return "expected the text that was drawn, found another; put it back, or leave the column out."
    if answer.labels is None:
        return "expected 1 or 0 for each label, found an empty cell; label the document."
    if audit.exclusive and len(answer.labels) > 1:
        return (
            f"expected one label at most, found {', '.join(sorted(answer.labels))}; the model gives each document one."
        )
    return None


def truth_of(audit: Audit, of_rows: dict[str, Labels]) -> NDArray[np.bool_]:
    """Return whether each document of the audit has each label, (documents, labels)."""
    return np.array([[label in of_rows[one.row] for label in audit.labels] for one in audit.documents], np.bool_)


def settle(audit: Audit, coders: Sequence[dict[str, Labels]], agreed: dict[str, Labels]) -> dict[str, Labels]:
    """Return the labels on which all coders agree, and `agreed` for the others.

    Raises:
        UserError: coders disagree about a row that is not among those agreed on.
    """
    odds = rows_at_odds(audit, coders)
    if stray := sorted(agreed.keys() - set(odds)):
        raise UserError(
            f"--agreed: row {stray[0]}: expected rows on which the coders disagree, found another; drop it."
        )
    if left := [row for row in odds if row not in agreed]:
        raise UserError(
            f"the coders disagree about {len(left):,} rows, such as {left[0]}; label {AT_ODDS} in the folder of the "
            "audit together, and give it as --agreed."
        )
    return coders[0] | agreed


def rows_at_odds(audit: Audit, coders: Sequence[dict[str, Labels]]) -> list[str]:
    """Return the rows about which coders disagree, in the order of the sheet."""
    return [one.row for one in audit.documents if len({coder[one.row] for coder in coders}) > 1]


def write_at_odds(audit: Audit, coders: Sequence[dict[str, Labels]], folder: str) -> None:
    """Write a sheet of the rows about which coders disagree into the folder of the audit, unless there is one."""
    if storage.exists(storage.join(folder, AT_ODDS)):
        return  # it may be filled in already
    rows = rows_at_odds(audit, coders)
    texts = {paper.row: paper.text for paper in audit_folder.papers(audit, folder)}
    sheet = sheets.write_csv((Paper(row, texts[row]) for row in rows), audit.labels)
    storage.write_file(storage.join(folder, AT_ODDS), sheet)


def agreement(audit: Audit, coders: Sequence[dict[str, Labels]]) -> dict[str, float]:
    """Return Cohen's kappa of two coders for each label."""
    one, other = (truth_of(audit, coder) for coder in coders)
    return {label: estimates.agreement(one[:, place], other[:, place]) for place, label in enumerate(audit.labels)}

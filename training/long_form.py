"""Joins the rows of a table in long form, which has a row for each text and label, into one example for each text."""

from collections import defaultdict

import numpy as np

from training.examples import Examples
from training.spool import digest


def joined(examples: Examples) -> Examples:
    """Return one example for each text, with every label that one of its rows knows.

    It has the id and the key of the first row. If two rows contradict each other, the label is unknown. A text of which
    no label is known any more is left out.
    """
    rows_of_text: dict[bytes, list[int]] = defaultdict(list)
    for row, text in enumerate(examples.texts):
        rows_of_text[digest(text)].append(row)
    first = examples.take(np.array([rows[0] for rows in rows_of_text.values()], np.int64), "joined_with_its_text")
    contrary = 0
    for place, rows in enumerate(rows_of_text.values()):
        yes, no = ((examples.targets[rows] == value).any(axis=0) for value in (1, 0))
        first.targets[place] = np.select([yes & no, yes, no], [np.nan, 1, 0], np.nan)
        contrary += int((yes & no).sum())
    if contrary:
        print(f"notice: rows contradict each other on {contrary:,} labels of a text; these labels count as unknown.")
    return first.take(np.flatnonzero(first.known.any(axis=1)), "contrary_labels")

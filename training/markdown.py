"""Writes tables of Markdown pages."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Return the lines of a table. Its first column is aligned to the left, the others to the right."""
    yield "| " + " | ".join(heading) + " |"
    yield "|-|" + "-:|" * (len(heading) - 1)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"

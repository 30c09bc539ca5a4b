"""Keeps the list of a run's slices, with the counts and checksums of their lines, so that no resume reads the corpus.

The list is written once, when all lines are counted, and is the same whoever counts them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from inference.corpus import storage
from inference.corpus.files import InputFile
from inference.corpus.slices import Part, Slice
from models import seals

SLICES = "slices.json"
_known: dict[tuple[str, str], list[Slice]] = {}  # the list of the run that this process works for
COPIES = "text"  # folder with copies of the text of compressed files, until their slices are finished


def write(slices: Sequence[Slice], output: str, run: str, require_own: Callable[[], None]) -> None:
    """Write the list of the slices of a run. `require_own` raises an error if the folder belongs to another run."""
    files = {part.file: None for piece in slices for part in piece.parts}
    number_of = {file: number for number, file in enumerate(files)}
    columns = list(dict.fromkeys(part.columns for piece in slices for part in piece.parts))
    place_of = {names: place for place, names in enumerate(columns)}
    content = {
        "run": run,
        "files": [[file.path, file.size, file.max_lines, file.format] for file in files],
        "columns": columns,
        "slices": [[_values(part, number_of, place_of) for part in piece.parts] for piece in slices],
    }
    sealed = seals.seal(orjson.loads(orjson.dumps(content)))
    storage.replace_file(storage.join(output, SLICES), sealed, require_own)


def read(output: str, run: str) -> list[Slice] | None:
    """Return the slices of a run in the order of its input; None if they are not counted yet or the list is damaged."""
    stored = storage.read_if_there(storage.join(output, SLICES))
    content = seals.unseal(stored) if stored else None
    if content is None or content["run"] != run:
        return None
    files = [InputFile(*file) for file in content["files"]]
    columns = [tuple(names) for names in content["columns"]]
    return [
        Slice(number, tuple(_part(values, files, columns) for values in parts))
        for number, parts in enumerate(content["slices"])
    ]


def of_run(output: str, run: str) -> list[Slice] | None:
    """Return what `read` returns, and read the file only once in a process. A run has one list, which never changes."""
    found = _known.get((output, run)) or read(output, run)
    if found:
        _known.clear()  # one list of a large run takes as much memory as a slice
        _known[output, run] = found
    return found


def _part(values: list[Any], files: Sequence[InputFile], columns: Sequence[tuple[str, ...]]) -> Part:
    return Part(*[files[values[0]], *values[1:-1], columns[values[-1]]])


def _values(part: Part, number_of: dict[InputFile, int], place_of: dict[tuple[str, ...], int]) -> list[Any]:
    """Return the values of a part in the order of its fields, with numbers for its file and its columns."""
    return [number_of[part.file], *list(vars(part).values())[1:-1], place_of[part.columns]]

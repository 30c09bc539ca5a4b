"""Keeps the list of a run's slices, with the counts and checksums of their lines, so that no resume reads the corpus.

The list is written once, when all lines are counted, and is the same whoever counts them.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.corpus.files import InputFile
from inference.corpus.slices import Part, Slice
from models import seals

SLICES = "slices.json"
_known: dict[tuple[str, str], list[Slice]] = {}  # the list of the run that this process works for
COPIES = "text"  # folder with copies of the text of compressed files, until their slices are finished


def write(slices: Sequence[Slice], output: str, run: str) -> None:
    """Write the list of the slices of a run."""
    files = {part.file: None for piece in slices for part in piece.parts}
    number_of = {file: number for number, file in enumerate(files)}
    content = {
        "run": run,
        "files": [[file.path, file.size, file.max_lines, file.format] for file in files],
        "slices": [[_numbers(part, number_of) for part in piece.parts] for piece in slices],
    }
    storage.write_file(FileSystems.join(output, SLICES), seals.seal(orjson.loads(orjson.dumps(content))))


def read(output: str, run: str) -> list[Slice] | None:
    """Return the slices of a run in the order of its input; None if they are not counted yet or the list is damaged."""
    stored = storage.read_if_there(FileSystems.join(output, SLICES))
    content = seals.unseal(stored) if stored else None
    if content is None or content["run"] != run:
        return None
    files = [InputFile(*file) for file in content["files"]]
    return [
        Slice(number, tuple(_part(numbers, files) for numbers in parts))
        for number, parts in enumerate(content["slices"])
    ]


def of_run(output: str, run: str) -> list[Slice] | None:
    """Return what `read` returns, and read the file only once in a process. A run has one list, which never changes."""
    found = _known.get((output, run)) or read(output, run)
    if found:
        _known.clear()  # one list of a large run takes as much memory as a slice
        _known[output, run] = found
    return found


def _numbers(part: Part, number_of: dict[InputFile, int]) -> list[Any]:
    return [number_of[part.file], *list(vars(part).values())[1:]]


def _part(numbers: list[Any], files: Sequence[InputFile]) -> Part:
    return Part(files[numbers[0]], *numbers[1:])

"""Ties a run to the delta that it labels: reads `delta.json`, checks a launch against it, and finds an earlier corpus.

The labels of a corpus are the rows of a run. If the run labelled the documents of a delta, they are these rows and the
rows that the delta kept. `run.json` of such a run names the delta and the SHA-256 of its `delta.json`.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from inference.corpus import storage
from inference.corpus.files import InputFile, find_file
from inference.runs import run_folder
from models.errors import UserError

DELTA, UNFINISHED, DOCUMENTS, KEPT = "delta.json", "unfinished.json", "documents", "kept"
FORMAT_VERSION = 1
# Options that decide a row. A run on a delta needs the values of the earlier run, or its rows would not fit those kept.
DECISIVE = ("text_fields", "id_field", "keep_fields", "scores", "format", "max_tokens")


@dataclass(frozen=True)
class Part:
    """A file that a delta has written."""

    path: str  # path in the folder of the delta
    size: int  # bytes
    rows: int  # number of lines
    sha256: str


@dataclass(frozen=True)
class SliceChecksum:
    """The checksum of a slice of the new corpus, counted when the delta was made."""

    file: str  # input file
    start: int  # first byte, in the decompressed file
    end: int  # byte after the last
    checksum: str  # SHA-256 of the bytes of its lines


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The content of `delta.json`."""

    format_version: int  # 1
    previous: dict[str, str | None]  # path and identity of the earlier run
    models: list[dict[str, str]]  # name, path and SHA-256 of each model that is to label the documents
    options: dict[str, Any]  # options of the earlier run, with which the documents are to be labelled
    slice_bytes: int  # size at which the new corpus was cut
    counts: dict[str, int]  # documents by outcome: new, changed, unreadable, kept, gone
    documents: list[Part]  # path, size, rows and SHA-256 of each file with documents to relabel
    kept: list[Part]  # path, size, rows and SHA-256 of each file with rows that are still right
    files: list[InputFile]  # path and size in bytes of each file of the new corpus
    slices: list[SliceChecksum]  # file, start, end and checksum of each slice of the new corpus


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a whole corpus: the rows of a run, and those that its delta kept."""

    run: str | None  # folder of the run; None for a delta with nothing to label
    delta: str | None  # folder of the delta; None if the run labelled the whole corpus
    description: dict[str, Any]  # `run.json`; `delta.json` for a delta with nothing to label
    kept: Delta | None  # content of `delta.json`, if there is a delta

    @property
    def corpus(self) -> list[InputFile]:
        """Return the input files of the whole corpus."""
        return self.kept.files if self.kept else _files(self.description)

    @property
    def models(self) -> list[dict[str, str]]:
        """Return name, path and SHA-256 of each model."""
        return list(self.description["models"])

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that decided the rows."""
        return dict(self.description["options"])


def _files(description: dict[str, Any]) -> list[InputFile]:
    return [InputFile(**file) for file in description["files"]]


def find_labels(path: str) -> Labels:
    """Return the labels that lie in the folder of a finished run, or of a delta with nothing to label.

    Raises:
        UserError: the folder holds neither, or the delta of the run is gone or has been made again.
    """
    if storage.exists(storage.join(path, DELTA)):
        delta = read(path)
        if delta.documents:
            raise UserError(
                f"{path}: expected a run, found a delta with {sum(part.rows for part in delta.documents):,} documents "
                "to label; label them and name the folder of that run."
            )
        description: dict[str, Any] = {"models": delta.models, "options": delta.options, "files": []}
        return Labels(run=None, delta=path, description=description, kept=delta)
    description = run_folder.require(path, finished=True)
    reference = description.get("delta")
    if reference is None:
        return Labels(run=path, delta=None, description=description, kept=None)
    folder = reference["path"]
    if not storage.exists(storage.join(folder, DELTA)):
        raise UserError(
            f"{path}: expected the delta of this run in {folder}, found no {DELTA} there; put it back, or start in the "
            "folder in which the run was started."
        )
    if _sha256(folder) != reference["sha256"]:
        raise UserError(
            f"{path}: expected the delta that this run labelled, found another one in {folder}; put the first one back."
        )
    return Labels(run=path, delta=folder, description=description, kept=read(folder))


def read(folder: str) -> Delta:
    """Return the content of `delta.json` in the folder of a finished delta.

    Raises:
        UserError: the file is damaged or of another version.
    """
    path = storage.join(folder, DELTA)
    try:
        content = orjson.loads(storage.read_file(path))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError
        for name, kind in (("documents", Part), ("kept", Part), ("files", InputFile), ("slices", SliceChecksum)):
            content[name] = [kind(**entry) for entry in content[name]]
        return Delta(**content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is damaged or was written by another version of labelbeam; make the delta again in a new folder."
        ) from None


def kept_files(folder: str) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-256 of each file with rows that a delta kept."""
    yield from ((_path(folder, part), part.sha256) for part in read(folder).kept)


def document_files(folder: str) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-256 of each file with documents to relabel."""
    yield from ((_path(folder, part), part.sha256) for part in read(folder).documents)


def _path(folder: str, part: Part) -> str:
    return str(storage.join(folder, *part.path.split("/")))


def of_inputs(files: Sequence[InputFile]) -> dict[str, str] | None:
    """Return path and SHA-256 of the delta whose documents the input files are; None if they belong to no delta.

    Raises:
        UserError: the input is a part of a delta's documents, or holds other files too.
    """
    folders = sorted({folder for file in files if (folder := _delta_folder(file.path)) is not None})
    folder = next((folder for folder in folders if storage.exists(storage.join(folder, DELTA))), None)
    if folder is None:
        unfinished = [folder for folder in folders if storage.exists(storage.join(folder, UNFINISHED))]
        if unfinished:
            raise UserError(f"--input: {unfinished[0]} holds an unfinished delta; repeat the command of the delta.")
        return None
    found = {_normal(file.path): file.size for file in files}
    expected = {_normal(_path(folder, part)): part.size for part in read(folder).documents}
    advice = f"give --input '{folder}/{DOCUMENTS}/*.jsonl' and no other input."
    if others := sorted(found.keys() - expected.keys()):
        raise UserError(f"--input: expected the documents of the delta {folder} alone, found {others[0]}; {advice}")
    if missing := sorted(expected.keys() - found.keys()):
        raise UserError(f"--input: expected all documents of the delta {folder}, found no {missing[0]}; {advice}")
    if changed := sorted(path for path in found if found[path] != expected[path]):
        raise UserError(
            f"--input {changed[0]}: expected {expected[changed[0]]:,} bytes as its delta wrote them, found "
            f"{found[changed[0]]:,}; put the file back, or make the delta again."
        )
    return {"path": folder, "sha256": _sha256(folder)}


def _delta_folder(path: str) -> str | None:
    """Return the folder of the delta that a file may belong to."""
    folder, name = posixpath.split(path)
    if name == DELTA:
        return folder or "."
    above, room = posixpath.split(folder)
    return (above or ".") if room in (DOCUMENTS, KEPT) else None


def _normal(path: str) -> str:
    return path if storage.is_remote(path) else posixpath.normpath(path)


def problems(description: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence if a run on a delta has other models or options than the rows that the delta kept."""
    if not (reference := description.get("delta")):
        return
    delta = read(reference["path"])
    current = orjson.loads(orjson.dumps(description))
    differences = [
        f"{name} {delta.options[name]!r}, found {current['options'][name]!r}"
        for name in DECISIVE
        if delta.options[name] != current["options"][name]
    ]
    models = [{model["name"]: model["sha256"] for model in models} for models in (delta.models, current["models"])]
    if models[0] != models[1]:
        before, now = (", ".join(f"{name} {sha256[:8]}" for name, sha256 in each.items()) for each in models)
        differences.append(f"the models {before}, found {now}")
    if differences:
        yield (
            f"--input: expected the models and options of the delta {reference['path']} ({'; '.join(differences)}); "
            "give the flags of the command that `delta` printed."
        )


def contents(output: str) -> list[str]:
    """Return the path in an output folder of each file in it; nothing if there is no such folder.

    Raises:
        UserError: it is a file, or its name holds a wildcard.
    """
    if any(character in output for character in "*?["):
        raise UserError(f"--output {output}: expected a name without *, ? and [, found one; name another folder.")
    if find_file(output):
        raise UserError(f"--output {output}: expected a folder, found a file; name another.")
    folder = output.rstrip("/") + "/"
    return sorted(found.path.removeprefix(folder) for found in storage.match(f"{folder}**"))


def _sha256(folder: str) -> str:
    return hashlib.sha256(storage.read_file(storage.join(folder, DELTA))).hexdigest()

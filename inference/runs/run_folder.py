"""The output folder of a run: what `run.json` says, one run at a time, and no mixing with another run's files."""

import contextlib
import fcntl
import glob
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import IO, Any

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import records, storage
from inference.corpus.files import InputFile
from inference.runs import receipts, sink, summary
from inference.runs.options import RunOptions
from models.arguments import refuse
from models.errors import UserError

RUN, SCHEMA, LOCK, REPORT = "run.json", "schema.json", ".lock", "report.html"
FORMAT_VERSION = 1
PACKAGES = ("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "openvino", "onnxruntime", "pyarrow")
CONTENTS = (
    LOCK,
    RUN,
    SCHEMA,
    sink.PREDICTIONS,
    sink.FAILURES,
    REPORT,
    summary.SUMMARY,
    receipts.RECEIPTS,
    sink.ATTEMPTS,
)


def describe(options: RunOptions, files: list[InputFile], fingerprints: Sequence[str], command: str) -> dict[str, Any]:
    """What `run.json` says: everything that decides which bytes the run writes, and what it began with."""
    scoring = options.scoring
    return {
        "format_version": FORMAT_VERSION,
        "command": command,
        "models": [
            {"name": name, "path": path, "sha256": sha256}
            for name, path, sha256 in zip(options.model_names, scoring.models, fingerprints, strict=True)
        ],
        "options": {
            "text_fields": scoring.text_fields,
            "id_field": options.id_field,
            "keep_fields": options.keep_fields,
            "scores": scoring.scores,
            "format": options.file_format,
            "max_tokens": scoring.max_tokens,
            "runtime": scoring.runtime,
            "precision": scoring.precision,
            "limit": options.limit,
            "redact_failures": options.redact_failures,
            "slice_bytes": options.slice_bytes,
        },
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
        "files": files,
    }


def require(output: str, *, finished: bool = False) -> dict[str, Any]:
    """The description of a run that has to be there, and to have ended where `finished` says so.

    Raises:
        UserError: it is not there, or is still to end.
    """
    run = read(output)
    if run is None:
        raise UserError(f"{output}: expected the folder of a run, found no {RUN} in it; check the path.")
    if finished and summary.read(output) is None:
        raise UserError(f"{output}: expected a finished run, found no {summary.SUMMARY} in it; finish it first.")
    return run


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def read(output: str) -> dict[str, Any] | None:
    """The run's description, or None where there is none.

    Raises:
        UserError: `run.json` is there but cannot be read.
    """
    path = FileSystems.join(output, RUN)
    if not FileSystems.exists(path):
        return None
    try:
        run: dict[str, Any] = orjson.loads(storage.read_file(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): use another --output, or --overwrite to start anew.") from None
    return run


def read_files(output: str) -> list[InputFile]:
    """The run's input files."""
    run = orjson.loads(storage.read_file(FileSystems.join(output, RUN)))
    return [InputFile(**file) for file in run["files"]]


def check(run: dict[str, Any], output: str, overwrite: bool) -> list[str]:
    """What stands against writing this run into the folder; nothing is changed."""
    if not storage.is_remote(output) and os.path.exists(output) and not os.path.isdir(output):
        return [f"--output {output}: expected a folder, found a file; name another."]
    foreign = _foreign_entries(output)
    if foreign:
        return [f"--output {output} holds {foreign[0]!r}, which is no part of a run: name an empty or a new folder."]
    if overwrite:
        return []
    previous = read(output)
    wanted = orjson.loads(orjson.dumps(run))
    differences = _differences(previous, wanted) if previous else []
    if differences:
        return [
            f"--output {output} holds another run ({'; '.join(differences)}): "
            "use another folder, or --overwrite to delete it and start anew."
        ]
    return []


def _foreign_entries(output: str) -> list[str]:
    if storage.is_remote(output) or not os.path.isdir(output):
        return []
    return sorted(name for name in set(os.listdir(output)) - set(CONTENTS) if not name.endswith(storage.PART))


def _differences(previous: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = []
    before, now = previous.get("options", {}), wanted["options"]
    for name in now:
        if before.get(name) != now[name]:
            found.append(f"{name} was {before.get(name)!r}, now {now[name]!r}")
    models = [{m["name"]: m["sha256"] for m in run.get("models", [])} for run in (previous, wanted)]
    if models[0] != models[1]:
        found.append(f"models were {_short(models[0])}, now {_short(models[1])}")
    if previous.get("files") != wanted["files"]:
        found.append(_file_difference(previous.get("files", []), wanted["files"]))
    return found


def _short(models: dict[str, str]) -> str:
    return ", ".join(f"{name} {sha256[:8]}" for name, sha256 in models.items())


def _file_difference(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    old, new = ({file["path"]: file for file in files} for files in (before, now))
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            return f"input {path} is missing now"
        if path not in old:
            return f"input {path} is new"
        if old[path] != new[path]:
            return f"input {path} had {old[path]['size']:,} bytes, now {new[path]['size']:,}"
    return "the input files differ"


@contextlib.contextmanager
def claim(options: RunOptions, run: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Holds the folder for this run and writes `run.json` and the schema into it where they are not there yet.

    Raises:
        UserError: another run is at work in the folder, or it cannot be written.
    """
    output = options.output
    with _lock(output):
        _refuse(run, output, overwrite)  # checked again: another run may have come and gone
        _sweep(output)
        if overwrite:
            _clear(output)
        if not storage.create_file(FileSystems.join(output, RUN), orjson.dumps(run, option=orjson.OPT_INDENT_2)):
            _refuse(run, output)
        schema = records.predictions_schema(options.keep_fields, options.model_names)
        fields = records.bigquery_schema(schema, options.keep_fields, options.file_format)
        storage.write_file(FileSystems.join(output, SCHEMA), orjson.dumps(fields, option=orjson.OPT_INDENT_2))
        yield
        if not storage.is_remote(output):
            with contextlib.suppress(OSError):  # not empty: slices that were not finished
                os.rmdir(os.path.join(output, sink.ATTEMPTS))


def _refuse(run: dict[str, Any], output: str, overwrite: bool = False) -> None:
    refuse(check(run, output, overwrite))


@contextlib.contextmanager
def _lock(output: str) -> Iterator[None]:
    """One run at a time: by a lock that the operating system frees with the process, or by a lease in Cloud Storage."""
    if output.startswith(storage.GS):
        with storage.Lease(FileSystems.join(output, LOCK), f"{socket.gethostname()}:{os.getpid()}"):
            yield
        return
    try:
        os.makedirs(output, exist_ok=True)
        file: IO[bytes] = open(os.path.join(output, LOCK), "ab")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}; name another folder.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {output}: another run is at work in it; wait for it or stop it.") from None
        yield


def _sweep(output: str) -> None:
    """Removes what a killed run had begun to write."""
    if not storage.is_remote(output):
        for path in glob.glob(f"{glob.escape(output)}/**/*{storage.PART}", recursive=True):
            os.unlink(path)


def _clear(output: str) -> None:
    """Deletes what a run writes, receipts first: a half-deleted run has no slice that looks whole."""
    for name in reversed(CONTENTS):
        path = FileSystems.join(output, name)
        if storage.is_remote(output):
            if name != LOCK:
                storage.delete_remote(path)
        elif os.path.isdir(path):
            shutil.rmtree(path)
        elif name != LOCK:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

"""Manages the folder of a run: writes `run.json`, locks the folder, and refuses the files of another run."""

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


def describe(
    options: RunOptions,
    files: list[InputFile],
    fingerprints: Sequence[str],
    command: str,
    delta: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of `run.json`: the input, everything that decides the written bytes, and the command.

    If the input is the documents of a delta, `delta` holds its path and the SHA-256 of its `delta.json`.
    """
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
        **({"delta": delta} if delta else {}),
    }


def require(output: str, *, finished: bool = False) -> dict[str, Any]:
    """Return the description of a run that must exist, and that must be finished if `finished` is true.

    Raises:
        UserError: there is no run, or it is not finished.
    """
    description = read(output)
    if description is None:
        raise UserError(f"{output}: expected the folder of a run, found no {RUN} in it; check the path.")
    if finished and summary.read(output) is None:
        raise UserError(f"{output}: expected a finished run, found no {summary.SUMMARY} in it; finish it first.")
    return description


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def read(output: str) -> dict[str, Any] | None:
    """Return the description of a run, or None if there is no run in the folder.

    Raises:
        UserError: `run.json` exists but is damaged.
    """
    path = FileSystems.join(output, RUN)
    if not FileSystems.exists(path):
        return None
    try:
        description: dict[str, Any] = orjson.loads(storage.read_file(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): use another --output, or --overwrite to start over.") from None
    return description


def read_files(output: str) -> list[InputFile]:
    """Return the input files of a run."""
    description = orjson.loads(storage.read_file(FileSystems.join(output, RUN)))
    return [InputFile(**file) for file in description["files"]]


def check(description: dict[str, Any], output: str, overwrite: bool) -> list[str]:
    """Return a sentence for each reason not to write this run into the folder. Change nothing."""
    if not storage.is_remote(output) and os.path.exists(output) and not os.path.isdir(output):
        return [f"--output {output}: expected a folder, found a file; name another."]
    foreign = _foreign_entries(output)
    if foreign:
        return [
            f"--output {output} holds {foreign[0]!r}, which does not belong to a run: name an empty or a new folder."
        ]
    if overwrite:
        return []
    previous = read(output)
    current = orjson.loads(orjson.dumps(description))
    differences = _differences(previous, current) if previous else []
    if differences:
        return [
            f"--output {output} holds another run ({'; '.join(differences)}): "
            "use another folder, or --overwrite to delete it and start over."
        ]
    return []


def _foreign_entries(output: str) -> list[str]:
    if storage.is_remote(output) or not os.path.isdir(output):
        return []
    return sorted(name for name in set(os.listdir(output)) - set(CONTENTS) if not name.endswith(storage.PART_SUFFIX))


def _differences(previous: dict[str, Any], current: dict[str, Any]) -> list[str]:
    differences = []
    before, now = previous.get("options", {}), current["options"]
    for name in now:
        if before.get(name) != now[name]:
            differences.append(f"{name} was {before.get(name)!r}, now {now[name]!r}")
    models = [
        {model["name"]: model["sha256"] for model in description.get("models", [])}
        for description in (previous, current)
    ]
    if models[0] != models[1]:
        differences.append(f"models were {_short(models[0])}, now {_short(models[1])}")
    deltas = [(description.get("delta") or {}).get("sha256") for description in (previous, current)]
    if deltas[0] != deltas[1]:
        differences.append("the delta that the input belongs to has been made again")
    if previous.get("files") != current["files"]:
        differences.append(_file_difference(previous.get("files", []), current["files"]))
    return differences


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
def claim(options: RunOptions, description: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Lock the folder while the body runs. Write the schema, and `run.json` if it is not there yet.

    Raises:
        UserError: another run is at work in the folder, or the folder cannot be written.
    """
    output = options.output
    with _lock(output):
        _refuse(description, output, overwrite)  # again, because another run may have written since the first check
        _delete_partial_files(output)
        if overwrite:
            _clear(output)
        content = orjson.dumps(description, option=orjson.OPT_INDENT_2)
        if not storage.create_file(FileSystems.join(output, RUN), content):
            _refuse(description, output)
        schema = records.predictions_schema(options.keep_fields, options.model_names)
        fields = records.bigquery_schema(schema, options.keep_fields, options.file_format)
        storage.write_file(FileSystems.join(output, SCHEMA), orjson.dumps(fields, option=orjson.OPT_INDENT_2))
        yield
        if not storage.is_remote(output):
            with contextlib.suppress(OSError):  # the folder is not empty if slices are unfinished
                os.rmdir(os.path.join(output, sink.ATTEMPTS))


def _refuse(description: dict[str, Any], output: str, overwrite: bool = False) -> None:
    refuse(check(description, output, overwrite))


@contextlib.contextmanager
def _lock(output: str) -> Iterator[None]:
    """Let one run at a time into a folder, by a lease in Cloud Storage or by a file lock.

    The operating system releases the file lock when the process ends.
    """
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


def _delete_partial_files(output: str) -> None:
    """Delete the local files that a killed run left half-written."""
    if not storage.is_remote(output):
        for path in glob.glob(f"{glob.escape(output)}/**/*{storage.PART_SUFFIX}", recursive=True):
            os.unlink(path)


def _clear(output: str) -> None:
    """Delete the files of a run. Receipts go first, so that no slice of a half-deleted run looks finished."""
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

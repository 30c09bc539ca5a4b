"""Manages the folder of a run: writes `run.json`, locks the folder, and refuses the files of another run.

A run has an identity, which its `run.json`, its receipts and the names of its files carry. It is a hash of the models,
the options, the input, the versions, and a random number that is drawn when the folder is opened. So no two runs share
an identity, and a process of an earlier run can neither replace nor delete a file of a later one.
"""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import orjson

from inference.corpus import lease as leases
from inference.corpus import records, storage
from inference.corpus.files import InputFile
from inference.corpus.lease import Lease
from inference.runs import lock, own_files, receipts, summary
from inference.runs.lock import LOCK
from inference.runs.options import RunOptions
from inference.runs.own_files import FOLDERS, RUN, SCHEMA
from inference.runs.receipts import Receipt
from models import paths, seals
from models.arguments import refuse
from models.errors import UserError

FORMAT_VERSION = 3
# The packages whose versions decide the scores.
DECISIVE_PACKAGES = (
    "labelbeam",
    "torch",
    "transformers",
    "tokenizers",
    "openvino",
    "onnxruntime",
)
PACKAGES = (*DECISIVE_PACKAGES, "apache-beam", "pyarrow")


class RunLost(UserError):
    """The folder belongs to another run by now, or to none, so this one must not write into it."""


@dataclass(frozen=True)
class Claim:
    """A folder that belongs to a run while its launcher is at work."""

    options: RunOptions  # options with the identity of the run and the fingerprints of its models
    lease: Lease | None = None  # lease on a remote folder

    @property
    def lost(self) -> str | None:
        """Return a sentence if the claim is lost to another run."""
        return self.lease.lost if self.lease else None

    def leave(self, *, to_job: bool) -> None:
        """Say whether the folder still belongs to the job when the launcher ends."""
        if self.lease:
            self.lease.leave(to_job=to_job)


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
    if finished and summary.read(output, description["run"]) is None:
        raise UserError(f"{output}: expected a finished run, found no {summary.SUMMARY} of it; finish it first.")
    return description


def finished_receipts(output: str) -> list[Receipt]:
    """Return the receipts of a run that must be finished, without counts by label. They account for its summary.

    Raises:
        UserError: there is no finished run, or a receipt of it is damaged or missing.
    """
    identity = require(output, finished=True)["run"]
    found = [receipt.small() for _, receipt in receipts.read_all(output, identity) if receipt]
    slices = (summary.read(output, identity) or {}).get("slices")
    if len(found) != slices:
        raise UserError(
            f"{output}: expected {slices} receipts as in its summary, found {len(found)} whole ones; "
            f"`labelbeam verify {output}` names the others, and the command of the run mends them."
        )
    return found


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def read(output: str) -> dict[str, Any] | None:
    """Return the description of a run, or None if there is no run in the folder.

    Raises:
        UserError: `run.json` exists but is damaged, or is of another version.
    """
    storage.refuse_wildcards(output)
    if wrong := paths.problem(output):
        raise UserError(f"{output}: {wrong}.")
    path = storage.join(output, RUN)
    try:
        if not storage.exists(path):
            return None
        stored = storage.read_settled(path)
    except Exception as error:  # each storage raises its own exceptions
        if storage.is_remote(path):
            raise UserError(storage.explanation(path, error)) from None
        raise
    description = seals.unseal(stored)
    if description is None or description["run"] != _identity(description):
        with contextlib.suppress(ValueError, AttributeError):
            if (version := orjson.loads(stored).get("format_version")) != FORMAT_VERSION:
                raise UserError(
                    f"{path}: expected format {FORMAT_VERSION}, found {version}, which another version of labelbeam "
                    "wrote; use that version or another --output."
                )
        raise UserError(f"{path} is damaged: use another --output, or --overwrite to start over.")
    return description


def _identity(description: dict[str, Any]) -> str:
    """Return the identity of a run: 128 bits of a hash of what decides its labels, and of its random number."""
    models = [{"name": model["name"], "sha256": model["sha256"]} for model in description["models"]]
    decisive = [models, *(description[name] for name in ("options", "versions", "files", "nonce"))]
    return hashlib.sha256(orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def read_files(output: str) -> list[InputFile]:
    """Return the input files of a run."""
    return [InputFile(**file) for file in require(output)["files"]]


def require_own(options: RunOptions) -> None:
    """Check that the folder still belongs to a run. Every process of a run does so before it writes a slice.

    In a remote storage the token of the lease decides, so a run also stops if another command has resumed it.

    Raises:
        RunLost: it belongs to another run or command, or to none.
    """
    if options.lease:
        _require_lease(options)
        return
    path = storage.join(options.output, RUN)
    try:
        found = re.search(rb'"run": "([0-9a-f]{32})"', storage.read_file(path, 100))
    except Exception:  # each storage raises its own exceptions
        if storage.exists(path):
            raise
        found = None
    if found is None or found[1].decode() != options.run:
        raise RunLost(
            f"{options.output} belongs to {'another run' if found else 'no run'} by now, so this run has stopped; none "
            "of its labels were mixed in."
        )


def _require_lease(options: RunOptions) -> None:
    """Check that a remote folder is still leased to this command. Other folders are locked, which cannot be lost.

    Raises:
        RunLost: another command has taken the folder.
    """
    path = storage.join(options.output, LOCK)
    if options.lease and not leases.holds(path, options.lease):
        raise RunLost(leases.taken(path))


def check(description: dict[str, Any], output: str, overwrite: bool) -> list[str]:
    """Return a sentence for each reason not to write this run into the folder. Change nothing."""
    try:
        return _reasons(description, output, overwrite)
    except OSError as error:
        return [f"--output {output} cannot be read: {error.strerror or error}; name another folder."]


def _reasons(description: dict[str, Any], output: str, overwrite: bool) -> list[str]:
    storage.refuse_wildcards(output)
    if not storage.is_remote(output) and os.path.exists(output) and not os.path.isdir(output):
        return [f"--output {output}: expected a folder, found a file; name another."]
    if stranger := next(own_files.strangers(output, overwrite), None):
        return [
            f"--output {output} holds {stranger!r}, which does not belong to a run: move it away, or name a new folder."
        ]
    if overwrite:
        return []
    previous = read(output)
    if previous is None and any(next(own_files.of(output, folder), None) for folder in FOLDERS):
        previous = read(output)  # another task may have begun the run in between
        if previous is None:
            return [f"--output {output} holds files of a run without its {RUN}: put it back, or --overwrite them."]
    if previous is None:
        return []
    if differences := _differences(previous, orjson.loads(orjson.dumps(description))):
        return [
            f"--output {output} holds another run ({'; '.join(differences)}): use another folder, `labelbeam delta "
            f"--previous {output}` to label only what is new since that run, or --overwrite to delete it."
        ]
    return []


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
    image = "image" in previous["versions"] or "image" in current["versions"]
    for name in ("image",) if image else DECISIVE_PACKAGES:
        before_and_now = [description["versions"].get(name) for description in (previous, current)]
        if before_and_now[0] != before_and_now[1]:
            differences.append(f"{name} was {before_and_now[0]}, now {before_and_now[1]}")
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
        if old[path].get("format") != new[path]["format"]:
            return f"input {path} was read as {old[path].get('format')}, now as {new[path]['format']}"
        if old[path] != new[path]:
            return f"input {path} had {old[path]['size']:,} bytes, now {new[path]['size']:,}"
    return "the input files differ"


@contextlib.contextmanager
def claim(
    options: RunOptions,
    description: dict[str, Any],
    overwrite: bool,
    job: dict[str, str] | None = None,
    is_active: Callable[[dict[str, str]], bool] | None = None,
) -> Iterator[Claim]:
    """Lock the folder while the body runs. Write the schema, and `run.json` if it is not there yet.

    Args:
        options: The options of the run, without its identity.
        description: The content of `run.json`, without the identity of the run.
        overwrite: Whether the files of an earlier run are deleted first.
        job: What names the job that will write into the folder, if an engine elsewhere runs it.
        is_active: Asks the engine whether the job of an earlier launch still runs.

    Raises:
        RunLost: another run has taken the folder, or its storage did not answer for too long.
        UserError: another run is at work in the folder, or the folder cannot be written.
    """
    output = options.output
    with lock.hold(output, job, is_active) as lease:
        options = replace(options, lease=lease.token) if lease else options
        try:
            _refuse(description, output, overwrite)  # again, because another run may have written since the first check
            if overwrite:
                own_files.clear(output, lambda: _require_lease(options))
            else:
                own_files.tidy_up(output)
            _require_lease(options)
            yield Claim(_open(options, description), lease)
            own_files.delete_empty_folders(output)
        except KeyboardInterrupt:
            if lease and lease.lost:
                raise RunLost(lease.lost) from None
            raise


@contextlib.contextmanager
def join(
    options: RunOptions, description: dict[str, Any], is_active: Callable[[dict[str, str]], bool] | None = None
) -> Iterator[RunOptions]:
    """Let a task into the folder beside other tasks, and keep all other commands out of it while the body runs.

    The last task to leave a finished run tidies the folder up.

    Raises:
        UserError: another command is at work in the folder, or the folder cannot be written.
    """
    output = options.output
    with lock.hold(output, is_active=is_active, shared=True):
        _refuse(description, output)
        options = _open(options, description)
        yield options
        own_files.delete_empty_folders(output)
    with contextlib.suppress(Exception):  # others may be at work, and each storage raises its own errors
        if summary.read(output, options.run) is not None:
            with lock.hold(output, is_active=is_active):
                own_files.tidy_up(output)
                own_files.delete_empty_folders(output)


def _open(options: RunOptions, description: dict[str, Any]) -> RunOptions:
    """Write the schema, and `run.json` if it is not there yet. Return the options with what `run.json` says."""
    output = options.output
    current = read(output) or _create(description, output)
    schema = records.predictions_schema(options.keep_fields, options.model_names)
    fields = records.bigquery_schema(schema, options.keep_fields, options.file_format)
    content, path = orjson.dumps(fields, option=orjson.OPT_INDENT_2), storage.join(output, SCHEMA)
    if not storage.exists(path) or storage.read_file(path) != content:  # many tasks may begin at once
        storage.write_file(path, content)
    fingerprints = {model["name"]: model["sha256"] for model in current["models"]}
    scoring = replace(options.scoring, sha256=tuple(fingerprints[name] for name in options.model_names))
    return replace(options, run=current["run"], slice_bytes=current["options"]["slice_bytes"], scoring=scoring)


def _refuse(description: dict[str, Any], output: str, overwrite: bool = False) -> None:
    refuse(check(description, output, overwrite))


def _create(description: dict[str, Any], output: str) -> dict[str, Any]:
    """Write `run.json` with a new identity, and return its content."""
    content: dict[str, Any] = orjson.loads(orjson.dumps({**description, "nonce": uuid.uuid4().hex}))
    content = {"run": _identity(content), **content}
    if storage.create_file(storage.join(output, RUN), seals.seal(content, indent=True)):
        return content
    first = require(output)  # another process was faster, and the size of its slices counts
    size = first["options"]["slice_bytes"]
    _refuse({**description, "options": {**description["options"], "slice_bytes": size}}, output)
    return first

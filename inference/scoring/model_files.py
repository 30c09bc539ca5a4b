"""Brings the files of trained models to this machine and checks them; remote models are copied to a cache."""

import hashlib
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from inference.corpus import storage
from inference.scoring import conversion_folder, conversions
from inference.scoring.conversion_folder import FOLDER, ChangedError
from inference.scoring.options import PrecisionChoice, ScoringOptions
from models import paths, trained_model
from models.errors import ModelError
from models.trained_model import MANIFEST, Manifest


def local(directory: str) -> str:
    """Return the model's folder on this machine: the directory itself, or the cached copy of a remote one.

    The SHA-256 of `model.json` names a copy. `model.json` holds the hashes of all other files, so a copy is never used
    for another model. If the model has an int8 variant, the name covers its manifest too. Loading checks the files
    themselves.

    Raises:
        ModelError: the remote directory holds no model, or cannot be read.
    """
    if not storage.is_remote(directory):
        return directory
    try:
        manifest = _read_manifest(directory)
        variant = _read_variant(directory, manifest)
        name = posixpath.basename(directory.rstrip("/"))
        sha256 = hashlib.sha256(manifest + variant).hexdigest()
        return cached(sha256, name, lambda folder: _copy(directory, manifest, variant, folder))
    except ModelError:
        raise
    except Exception as error:  # each storage raises its own exceptions
        raise ModelError(f"Model {storage.explanation(directory, error)}") from error


def fingerprint(directory: str, precision: PrecisionChoice) -> str:
    """Return the SHA-256 that names a model in a local or remote directory.

    It is that of `model.json`, which holds the hashes of all other files; conversions follow from these. The int8
    variant also depends on its calibration, so with `int8` the hash covers `model.json` followed by the variant's
    `conversion.json`.

    Raises:
        ModelError: the directory holds no model, or with `int8` no int8 variant.
    """
    folder = local(directory)
    if precision != "int8":
        return trained_model.fingerprint(folder)
    variant = conversions.int8_folder(trained_model.read_manifest(folder), folder)
    contents = (Path(folder) / MANIFEST).read_bytes(), (variant / conversion_folder.MANIFEST).read_bytes()
    return hashlib.sha256(b"".join(contents)).hexdigest()


def fingerprints(directories: Sequence[str]) -> dict[str, str]:
    """Return the fingerprint of each local model, by name, and with int8, if it has a variant, by NAME.int8.

    Raises:
        ModelError: an int8 variant is not as it was made.
    """
    found = {}
    for directory in directories:
        name, manifest = trained_model.model_name(directory), trained_model.read_manifest(directory)
        found[name] = fingerprint(directory, "auto")
        if conversions.has_int8(manifest, directory):
            conversions.int8(manifest, directory)
            found[name_of(name, "int8")] = fingerprint(directory, "int8")
    return found


def name_of(model: str, precision: PrecisionChoice) -> str:
    """Return the name of a model among `fingerprints`."""
    return f"{model}.int8" if precision == "int8" else model


def check(directory: str, precision: PrecisionChoice, max_tokens: int | None) -> None:
    """Check the files of a model on this machine, and whether it can score with these options.

    Raises:
        ModelError: a file is missing or has changed, an int8 variant is missing or has changed, or the model reads
            fewer tokens.
    """
    manifest = trained_model.verify(directory)
    if precision == "int8":
        conversions.int8(manifest, directory)
    if max_tokens:
        from models import weights  # torch and transformers take seconds to load

        weights.check_max_tokens(directory, max_tokens)


def refuse_changed(options: ScoringOptions, folders: Sequence[str]) -> None:
    """Compare models that have just been read from these local folders with the fingerprints that the run began with.

    Raises:
        ModelError: a model has been replaced since then.
    """
    for directory, folder, expected in zip(options.models, folders, options.sha256, strict=False):
        if (found := fingerprint(folder, options.precision)) != expected:
            raise ModelError(
                f"Model {directory!r}: expected the model that the run began with (SHA-256 {expected[:12]}…), found "
                f"another ({found[:12]}…); put the first one back, or label with the new one into another --output."
            )


def all_local(directories: Sequence[str]) -> list[str]:
    """Return the folder of each model on this machine."""
    return [local(directory) for directory in directories]


def cached(sha256: str, name: str, copy: Callable[[Path], None]) -> str:
    """Return the cached copy of the model with this fingerprint; if there is none, `copy` fills a folder."""
    folder = paths.cache() / "models" / sha256[:16] / name
    if folder.is_dir():
        return str(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".copy_", dir=folder.parent))
    try:
        copy(staging)
        staging.chmod(0o755)
        staging.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have made the same copy meanwhile
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return str(folder)


def _read_manifest(directory: str) -> bytes:
    path = storage.join(directory, MANIFEST)
    if not storage.exists(path):
        if problem := storage.bucket_problem(directory):
            raise ModelError(f"Model {problem}")
        raise ModelError(
            f"Model {directory!r}: expected a directory written by `python -m training.train`, found no {MANIFEST} in "
            "it; check the path."
        )
    return storage.read_file(path)


def _read_variant(directory: str, content: bytes) -> bytes:
    """Return the manifest of a remote model's int8 variant, or nothing if there is none."""
    try:
        variant = conversion_folder.int8(Manifest.model_validate_json(content))
    except ValidationError:  # the check of the copy says what is wrong
        return b""
    path = storage.join(directory, FOLDER, variant.name, conversion_folder.MANIFEST)
    return storage.read_file(path) if storage.exists(path) else b""


def _copy(directory: str, content: bytes, variant: bytes, folder: Path) -> None:
    """Copy the model's files and the conversions that this machine can use; the two manifests were read before.

    Raises:
        ModelError: `model.json` names a file outside of the directory, or the int8 variant is not as it was made.
    """
    names = orjson.loads(content)["files"]
    if outside := [name for name in names if not (folder / name).resolve().is_relative_to(folder.resolve())]:
        raise ModelError(
            f"Model {directory!r}: {MANIFEST} names {outside[0]!r}, which lies outside of it; export the model again."
        )
    (folder / MANIFEST).write_bytes(content)
    for name in names:
        (folder / name).write_bytes(storage.read_file(storage.join(directory, name)))
    manifest = trained_model.read_manifest(folder)
    for conversion in conversion_folder.usable(manifest):
        _copy_conversion(storage.join(directory, FOLDER, conversion.name), folder / FOLDER / conversion.name)
    if variant:
        int8 = conversion_folder.int8(manifest)
        (folder / FOLDER / int8.name / conversion_folder.MANIFEST).write_bytes(variant)
        try:
            conversion_folder.read(folder / FOLDER / int8.name, int8.model_copy(update={"version": None}))
        except ChangedError as error:
            raise ModelError(
                f"{directory}/{FOLDER}/{int8.name}: expected the int8 variant as it was made, found {error}; copy the "
                "variant there again."
            ) from None


def _copy_conversion(source: str, target: Path) -> None:
    """Copy a remote conversion, whatever its state, for the check at loading; only plain names are taken."""
    for name in storage.listing(source):
        if re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            target.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(storage.read_file(storage.join(source, name)))

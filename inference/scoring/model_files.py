"""Brings the files of trained models to this machine and checks them; models in Cloud Storage are copied to a cache."""

import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.scoring import conversions
from inference.scoring.options import PrecisionChoice
from models import trained_model, weights
from models.errors import ModelError
from models.trained_model import MANIFEST


def local(directory: str) -> str:
    """Return the model's folder on this machine: the directory itself, or the cached copy of a remote one.

    The SHA-256 of `model.json` names a copy. `model.json` holds the hashes of all other files, so a copy is never used
    for another model. Loading checks the files themselves.

    Raises:
        ModelError: the remote directory holds no model, or cannot be read.
    """
    if not storage.is_remote(directory):
        return directory
    try:
        manifest = _read_manifest(directory)
        sha256 = hashlib.sha256(manifest).hexdigest()
        name = posixpath.basename(directory.rstrip("/"))
        return cached(sha256, name, lambda folder: _copy(directory, manifest, folder))
    except ModelError:
        raise
    except Exception as error:  # each storage raises its own exceptions
        raise ModelError(f"Model {storage.explanation(directory, error)}") from error


def fingerprint(directory: str) -> str:
    """Return the SHA-256 that names a model in a local or remote directory."""
    return trained_model.fingerprint(local(directory))


def check(directory: str, precision: PrecisionChoice, max_tokens: int | None) -> None:
    """Check the files of a model on this machine, and whether it can score with these options.

    Raises:
        ModelError: a file is missing or has changed, an int8 variant is missing, or the model reads fewer tokens.
    """
    manifest = trained_model.verify(directory)
    if precision == "int8":
        conversions.check_int8(manifest, directory)
    if max_tokens:
        weights.check_max_tokens(directory, max_tokens)


def all_local(directories: Sequence[str]) -> list[str]:
    """Return the folder of each model on this machine."""
    return [local(directory) for directory in directories]


def cached(sha256: str, name: str, copy: Callable[[Path], None]) -> str:
    """Return the cached copy of the model whose `model.json` has this hash; if there is none, `copy` fills a folder."""
    folder = _cache() / sha256[:16] / name
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
    path = FileSystems.join(directory, MANIFEST)
    if not FileSystems.exists(path):
        if problem := storage.bucket_problem(directory):
            raise ModelError(f"Model {problem}")
        raise ModelError(
            f"Model {directory!r}: expected a directory written by `python -m training.train`, found no {MANIFEST} in "
            "it; check the path."
        )
    return storage.read_file(path)


def _copy(directory: str, manifest: bytes, folder: Path) -> None:
    """Copy the model's files, and its conversions and variants."""
    names = [MANIFEST, *orjson.loads(manifest)["files"], *_variants(directory)]
    if outside := [name for name in names if not (folder / name).resolve().is_relative_to(folder.resolve())]:
        raise ModelError(
            f"Model {directory!r}: {MANIFEST} names {outside[0]!r}, which lies outside of it; export the model again."
        )
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(storage.read_file(FileSystems.join(directory, *name.split("/"))))


def _variants(directory: str) -> list[str]:
    root = FileSystems.join(directory, conversions.FOLDER)
    matches = FileSystems.match([FileSystems.join(root, "**")])
    return [
        metadata.path.removeprefix(directory.rstrip("/") + "/") for match in matches for metadata in match.metadata_list
    ]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelbeam" / "models"

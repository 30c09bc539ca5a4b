"""Where the files of a trained model lie on this machine: a model in Cloud Storage is copied here first."""

import hashlib
import os
import posixpath
import shutil
import tempfile
from pathlib import Path

import orjson
from apache_beam.io.filesystems import FileSystems

from inference import conversions, storage
from models.errors import ModelError
from models.trained_model import MANIFEST


def local(directory: str) -> str:
    """The model's folder on this machine: the directory itself, or a copy of a remote one.

    Copies are kept by the SHA-256 of `model.json`, which names every other file's, so that one is never used for
    another model; loading checks the files themselves.

    Raises:
        ModelError: the remote directory holds no model, or cannot be read.
    """
    if not storage.is_remote(directory):
        return directory
    try:
        manifest = _read_manifest(directory)
        folder = _cache() / hashlib.sha256(manifest).hexdigest()[:16] / posixpath.basename(directory.rstrip("/"))
        if not folder.is_dir():
            _copy(directory, manifest, folder)
    except ModelError:
        raise
    except Exception as error:  # each storage raises its own kinds
        raise ModelError(f"Model {storage.explained(directory, error)}") from error
    return str(folder)


def _read_manifest(directory: str) -> bytes:
    path = FileSystems.join(directory, MANIFEST)
    if problem := storage.bucket_problem(directory):
        raise ModelError(f"Model {problem}")
    if not FileSystems.exists(path):
        raise ModelError(
            f"Model {directory!r}: expected a directory written by `python -m training.train`, found no {MANIFEST} in "
            "it; check the path."
        )
    return storage.read_file(path)


def _copy(directory: str, manifest: bytes, folder: Path) -> None:
    """Copies the model's files and its variants; the folder appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".copy_", dir=folder.parent))
    try:
        names = [MANIFEST, *orjson.loads(manifest)["files"], *_variants(directory)]
        if outside := [n for n in names if not (staging / n).resolve().is_relative_to(staging.resolve())]:
            raise ModelError(f"Model {directory!r}: {MANIFEST} names {outside[0]!r}, which lies outside of it.")
        for name in names:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(storage.read_file(FileSystems.join(directory, *name.split("/"))))
        staging.chmod(0o755)
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was as fast
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _variants(directory: str) -> list[str]:
    root = FileSystems.join(directory, conversions.FOLDER)
    matches = FileSystems.match([FileSystems.join(root, "**")])
    return [
        metadata.path.removeprefix(directory.rstrip("/") + "/") for match in matches for metadata in match.metadata_list
    ]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelbeam" / "models"

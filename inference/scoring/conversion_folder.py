"""Describes and checks the folder of a conversion; no other module knows the names in it, and it imports no runtime.

MODEL/runtimes/PACKAGE-VERSION-HASH/   an exact conversion of the state dict with this hash
MODEL/runtimes/int8-HASH/              the int8 variant of the state dict with this hash
MODEL/runtimes/reference-HASH/         what torch gives the probe texts with the state dict with this hash
    conversion.json                    the manifest: what the files were made from, and the SHA-256 of each
    ...                                the files that the runtime reads, and the int8 variant's proof

If MODEL cannot be written, the same folders lie in the user's cache, below a folder that is named by the hash of
model.json.
"""

import contextlib
import hashlib
import os
import re
import stat
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models import paths, trained_model
from models.errors import ModelError
from models.trained_model import Manifest, Pooling

FOLDER = "runtimes"  # folder of the conversions in the model's directory
MANIFEST = "conversion.json"
PACKAGES = ("openvino", "onnx")  # packages that make exact conversions
TORCH = "torch"  # package that makes the reference
# Names of the files that are written here. Whatever else lies in a folder is someone else's and is never deleted.
OPENVINO, OPENVINO_WEIGHTS, ONNX, ONNX_WEIGHTS = "model.xml", "model.bin", "model.onnx", "model.onnx.data"
PROOF = "proof.json"
REFERENCE, TOKENIZER = "reference.json", "tokenizer.json"
OWN = (MANIFEST, OPENVINO, OPENVINO_WEIGHTS, ONNX, ONNX_WEIGHTS, PROOF, REFERENCE, TOKENIZER)


class Conversion(BaseModel):
    """The content of `conversion.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str  # SHA-256 of the state dict that was converted
    config: str  # SHA-256 of the architecture's config.json
    pooling: Pooling  # kind of head
    precision: Literal["fp32", "int8"]  # precision of the stored weights
    package: str  # package that made the files
    version: str | None  # version of the package, of torch with those that it used; None if it is not installed
    files: dict[str, str] = {}  # SHA-256 of every other file in the folder, by file name

    @property
    def name(self) -> str:
        """The name of the folder."""
        kind = f"{self.package}-{self.version}"
        if self.precision == "int8" or self.package == TORCH:
            kind = "int8" if self.precision == "int8" else "reference"
        return f"{kind}-{re.sub(r'[^0-9a-f]', '', self.weights[:16])}"


@dataclass(frozen=True)
class Checked:
    """Weights that were compared with the manifest that names them."""

    files: dict[str, bytes]  # the compared bytes of each file, by file name
    sha256: str  # SHA-256 of the manifest


class ChangedError(Exception):
    """A conversion is not as it was made; the message says what was found."""


def exact(manifest: Manifest, package: str) -> Conversion:
    """Return the conversion that the installed version of a package makes of a model, without its files."""
    return _conversion(manifest, "fp32", package)


def int8(manifest: Manifest) -> Conversion:
    """Return the int8 variant that the installed version of OpenVINO runs, without its files."""
    return _conversion(manifest, "int8", "openvino")


def reference(manifest: Manifest) -> Conversion:
    """Return what the installed versions of torch, transformers and tokenizers give a model's probe texts."""
    versions = [f"{name} {version}" for name in (TORCH, "transformers", "tokenizers") if (version := _version(name))]
    version = ", ".join(versions) if len(versions) == 3 else None
    return _conversion(manifest, "fp32", TORCH).model_copy(update={"version": version})


def usable(manifest: Manifest) -> list[Conversion]:
    """Return the reference, the int8 variant and the conversions that this machine would use, if they exist."""
    return [
        reference(manifest),
        int8(manifest),
        *(exact(manifest, package) for package in PACKAGES if _version(package)),
    ]


def _conversion(manifest: Manifest, precision: Literal["fp32", "int8"], package: str) -> Conversion:
    return Conversion(
        weights=manifest.files.get(trained_model.WEIGHTS, ""),
        config=manifest.files.get(trained_model.CONFIG, ""),
        pooling=manifest.pooling,
        precision=precision,
        package=package,
        version=_version(package),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def homes(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the directories that may hold conversions of a model.

    That is its own, and if it cannot be written also one in the user's cache, unless others may write into that.
    """
    beside = Path(directory) / FOLDER
    if os.access(beside if beside.exists() else directory, os.W_OK):
        return [Path(directory)]
    cache = paths.cache() / "conversions" / trained_model.fingerprint(directory)[:16]
    with contextlib.suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = cache.lstat()
        mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if mine and stat.S_ISDIR(status.st_mode) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return [Path(directory), cache]
    return [Path(directory)]


def path_of(directory: str | os.PathLike[str], conversion: Conversion) -> Path:
    """Return the path of a conversion beside a model, which may not exist.

    Raises:
        ModelError: a link leads from there out of the model's directory.
    """
    folder, root = Path(directory) / FOLDER / conversion.name, os.path.realpath(directory)
    for path in (folder, *folder.glob("*")):
        target = os.path.realpath(path)
        if not Path(target).is_relative_to(root):
            raise ModelError(
                f"{path}: expected a path inside of the model's directory, found a link to {target}; delete the link."
            )
    return folder


def seal(folder: Path, conversion: Conversion) -> Checked:
    """Write the manifest of all files in a folder; return the files as they are named there."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content = conversion.model_copy(update={"files": hashes}).model_dump_json(indent=2).encode() + b"\n"
    (folder / MANIFEST).write_bytes(content)
    return Checked(files, hashlib.sha256(content).hexdigest())


def read(folder: Path, expected: Conversion) -> Checked:
    """Read every file of a conversion once into memory, and compare these bytes with its manifest.

    Raises:
        ChangedError: the files are not those that were made, or were made from something else.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        conversion = Conversion.model_validate_json(content)
        _compare(conversion, expected)
        is_file = {path.name: path.is_file() for path in folder.iterdir()}
        if unknown := sorted(is_file.keys() - {MANIFEST, *conversion.files}):
            raise ChangedError(f"the unknown file {unknown[0]}")
        if missing := sorted(name for name in conversion.files if not is_file.get(name)):
            raise ChangedError(f"no file {missing[0]}")
        files = {name: (folder / name).read_bytes() for name in conversion.files}
    except OSError as error:
        raise ChangedError(f"no readable {Path(error.filename or folder).name} ({error.strerror})") from None
    except ValidationError:
        raise ChangedError(f"a {MANIFEST} that is damaged") from None
    for name, sha256 in conversion.files.items():
        if (actual := hashlib.sha256(files[name]).hexdigest()) != sha256:
            raise ChangedError(f"{name} changed (SHA-256 {actual[:12]}… instead of {sha256[:12]}…)")
    return Checked(files, hashlib.sha256(content).hexdigest())


def _compare(conversion: Conversion, expected: Conversion) -> None:
    """Compare what a conversion was made from; the version counts only where the package is installed."""
    for field in ("weights", "config", "pooling", "precision", "package", "version"):
        found, needed = getattr(conversion, field), getattr(expected, field)
        if found != needed and (field, needed) != ("version", None):
            raise ChangedError(f"a {MANIFEST} in which {field} is {found} instead of {needed}")


def identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells this folder from another that gets its name; None if there is none."""
    try:
        status = folder.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def publish(staging: Path, folder: Path, replaced: tuple[int, int] | None) -> None:
    """Give a whole folder its name, instead of the one whose `identity` is `replaced`.

    Another folder of this name stays, because another process has just published it. From a replaced folder, only the
    files that are written here are deleted.

    Raises:
        OSError: the place cannot be written.
    """
    staging.chmod(0o755)
    aside = folder.with_name(f"{folder.name}.replaced-{uuid.uuid4().hex[:8]}")
    if replaced and identity(folder) == replaced:
        with contextlib.suppress(FileNotFoundError):  # another process may be replacing it at this moment
            folder.rename(aside)
    try:
        staging.rename(folder)
    finally:
        _discard(aside)


def _discard(folder: Path) -> None:
    """Delete the files that are written here, and the folder if it is empty then; follow no link."""
    with contextlib.suppress(OSError):
        for name in () if folder.is_symlink() else OWN:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()

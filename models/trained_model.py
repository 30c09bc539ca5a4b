"""Describes and checks a trained model's directory; no other module knows the names of its files.

The module imports neither torch nor transformers, so a command can check a model before it loads them (models.weights).

model.json    the manifest: labels, text recipe, decision, origin, and the SHA-256 of every other file
model.pth     the state dict, fp32
config.json   the architecture, as transformers writes it
tokenizer.json, tokenizer_config.json, ...
"""

import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models import seals
from models.decision import Decision
from models.errors import ModelError
from models.labels import LabelSchema
from models.names import distinct
from models.text import TextRecipe

FORMAT_VERSION = 2
MANIFEST = "model.json"
WEIGHTS = "model.pth"
CONFIG = "config.json"

# `stock` is the architecture's own classification head; `first` and `mean` are linear layers on the pooled tokens.
Pooling = Literal["stock", "first", "mean"]


class Manifest(BaseModel):
    """The content of `model.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format_version: int = FORMAT_VERSION  # version of this format; labelbeam refuses versions newer than its own
    labels: LabelSchema  # the task, and the label names in the order of the outputs
    text: TextRecipe  # the text recipe: fields, separator, cleaning, max_tokens
    decision: Decision = Decision()  # temperatures, biases and thresholds, in the order of the labels
    pooling: Pooling = "stock"  # kind of head: stock, first or mean
    base_model: str = ""  # base model that training started from
    base_revision: str | None = None  # revision of the base model on the hub
    metrics: dict[str, Any] = Field(default_factory=dict)  # metrics by split, with the hash of the split's data
    training: dict[str, Any] = Field(default_factory=dict)  # configuration, data and time of the training
    versions: dict[str, str] = Field(default_factory=dict)  # versions of Python and packages used in training
    files: dict[str, str] = Field(default_factory=dict)  # SHA-256 of every other file that is loaded, by file name
    seal: str = ""  # SHA-256 of all other keys; empty in models from before there were seals

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        strange = [name for name in files if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)]
        if strange:
            raise ValueError(f"file names must be plain names inside the directory, found {strange}")
        return files

    @model_validator(mode="after")
    def _decision_fits_labels(self) -> Self:
        needed, found = self.labels.thresholds_needed, len(self.decision.thresholds)
        if needed != found:
            raise ValueError(f"a {self.labels.task} model with these labels has {needed} thresholds, found {found}")
        temperature, bias = self.decision.temperature, self.decision.bias
        lengths = {len(values) for values in (temperature, bias) if isinstance(values, tuple) and values}
        if lengths - {len(self.labels.names)}:
            raise ValueError(f"expected a temperature and a bias for each label, found {sorted(lengths)} of them")
        return self


def model_name(directory: str | os.PathLike[str]) -> str:
    """Return the model's name: the last part of its path, with all but ASCII letters, digits and _ replaced by _.

    If that leaves no letter or digit, as of 政治, a hash follows, so that two such models have different names.
    """
    return distinct([Path(os.path.abspath(directory)).name], max_bytes=255)[0]


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Read and validate `model.json` alone, without a look at the other files.

    Raises:
        ModelError: the directory or the file is missing, or the file is invalid, has changed or has a newer format.
    """
    path = Path(directory) / MANIFEST
    if not Path(directory).is_dir():
        raise ModelError(
            f"Model {str(directory)!r}: expected a directory written by `python -m training.train`, found "
            f"{'a file' if Path(directory).exists() else 'nothing'}; check the path."
        )
    if not path.is_file():
        raise ModelError(f"{path} is missing from this directory; check the path, or copy the whole model again.")
    content = _refuse_newer_format(path)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path} is not valid ({problems}); export the model again.") from None
    if manifest.seal and seals.unseal(content) is None:
        raise ModelError(
            f"{path} is not the file that was saved: its seal belongs to other content; copy it again or export the "
            "model again."
        )
    return manifest


def write_manifest(directory: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write `model.json` with its seal; a reader sees the former file or this one, and never a part."""
    path = Path(directory) / MANIFEST
    current = manifest.model_copy(update={"format_version": FORMAT_VERSION})
    content = json.loads(current.model_dump_json(exclude={"seal"}))
    staging = path.with_name(f".{MANIFEST}.{uuid.uuid4().hex}")
    try:
        staging.write_bytes(seals.seal(content, indent=True) + b"\n")
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _refuse_newer_format(path: Path) -> bytes:
    content = path.read_bytes()
    version = re.search(rb'"format_version"\s*:\s*(\d+)', content)
    if version and int(version[1]) > FORMAT_VERSION:
        raise ModelError(
            f"{path}: expected at most format {FORMAT_VERSION}, found format {int(version[1])}; upgrade labelbeam."
        )
    return content


def verify(directory: str | os.PathLike[str]) -> Manifest:
    """Check every file of the directory against its SHA-256, and the number of labels against the head.

    Raises:
        ModelError: has a line for each file that is missing, has changed, or does not fit.
    """
    manifest = read_manifest(directory)
    problems = []
    for name in (WEIGHTS, CONFIG):
        if name not in manifest.files:
            problems.append(f"{Path(directory) / MANIFEST} does not list {name}; export the model again.")
    for name, expected in manifest.files.items():
        path = Path(directory) / name
        if not path.is_file():
            problems.append(f"{path} is missing; copy the whole directory again.")
        elif (actual := sha256(path)) != expected:
            problems.append(
                f"{path} is not the file that was saved: expected SHA-256 {expected[:12]}…, found {actual[:12]}…; "
                "copy it again or export the model again."
            )
    if problems:
        raise ModelError("\n".join(problems))
    _check_head(Path(directory), manifest)
    return manifest


def _check_head(directory: Path, manifest: Manifest) -> None:
    """Compare the number of labels with the outputs in config.json; transformers omits its default of two there."""
    config = json.loads((directory / CONFIG).read_bytes())
    names, outputs = len(manifest.labels.names), len(config.get("id2label", "01"))
    if outputs != names:
        raise ModelError(
            f"{directory / MANIFEST} names {names} labels, but {directory / CONFIG} describes a head with "
            f"{outputs} outputs; export the model again."
        )


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of `model.json`; it holds the hashes of all other files, so only equal models share it."""
    return sha256(Path(directory) / MANIFEST)


def tokenizer_fingerprint(manifest: Manifest) -> str:
    """Return a hash of the tokenizer's files; models with the same tokenizer share it."""
    names = sorted(name for name in manifest.files if name not in (WEIGHTS, CONFIG))
    return hashlib.sha256("".join(f"{name}={manifest.files[name]}\n" for name in names).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

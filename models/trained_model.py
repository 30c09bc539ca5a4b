"""Describes and checks a trained model's directory; the only module that knows its file names.

It imports neither torch nor transformers, so a command can check a model before it loads them (models.weights).

model.json    labels, text recipe, decision, where it comes from, and the SHA-256 of every other file
model.pth     the state dict, fp32
config.json   the architecture, as transformers writes it
tokenizer.json, tokenizer_config.json, ...
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.decision import Decision
from models.errors import ModelError
from models.labels import LabelSchema
from models.text import TextRecipe

FORMAT_VERSION = 1
MANIFEST = "model.json"
WEIGHTS = "model.pth"
CONFIG = "config.json"

# stock: the architecture's own sequence-classification head; first, mean: a linear layer on the pooled tokens.
Pooling = Literal["stock", "first", "mean"]


class Manifest(BaseModel):
    """What `model.json` says. `files` maps every other file's name to its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format_version: int = FORMAT_VERSION  # a newer one than this version knows is refused
    labels: LabelSchema  # task, and names in the order of the outputs
    text: TextRecipe  # fields, separator, cleaning, max_tokens
    decision: Decision = Decision()  # temperature, and thresholds in the order of the labels
    pooling: Pooling = "stock"  # stock, first or mean, as in training
    base_model: str = ""  # what training started from
    base_revision: str | None = None  # its revision on the hub
    metrics: dict[str, Any] = Field(default_factory=dict)  # by split, with the hash of its data
    training: dict[str, Any] = Field(default_factory=dict)  # configuration, data, time
    versions: dict[str, str] = Field(default_factory=dict)  # of Python and packages, at the training
    files: dict[str, str] = Field(default_factory=dict)  # SHA-256 of every other file that is loaded, by its name

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        strange = [name for name in files if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)]
        if strange:
            raise ValueError(f"file names must be plain names inside the directory, found {strange}")
        return files

    @model_validator(mode="after")
    def _thresholds_fit_labels(self) -> Self:
        needed, found = self.labels.thresholds_needed, len(self.decision.thresholds)
        if needed != found:
            raise ValueError(f"a {self.labels.task} model with these labels has {needed} thresholds, found {found}")
        return self


def model_name(directory: str | os.PathLike[str]) -> str:
    """The model's name: its directory's last part with everything but letters, digits and _ replaced by _."""
    return re.sub(r"\W", "_", Path(os.path.abspath(directory)).name, flags=re.ASCII)


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Reads and validates `model.json` alone, without looking at the other files.

    Raises:
        ModelError: the directory or the file is missing, unreadable, or of a newer format.
    """
    path = Path(directory) / MANIFEST
    if not Path(directory).is_dir():
        raise ModelError(
            f"Model {str(directory)!r}: expected a directory written by `python -m training.train`, found "
            f"{'a file' if Path(directory).exists() else 'nothing'}; check the path."
        )
    if not path.is_file():
        raise ModelError(f"{path} is missing: this is not a trained model's directory, or it was copied in part.")
    try:
        return Manifest.model_validate_json(_refuse_newer_format(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path} is not valid: {problems}. Export the model again.") from None


def _refuse_newer_format(path: Path) -> bytes:
    content = path.read_bytes()
    version = re.search(rb'"format_version"\s*:\s*(\d+)', content)
    if version and int(version[1]) > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format {int(version[1])}, this version reads up to {FORMAT_VERSION}: upgrade labelbeam."
        )
    return content


def verify(directory: str | os.PathLike[str]) -> Manifest:
    """Checks every file of the directory against its SHA-256 and the labels against the head.

    Raises:
        ModelError: one line for each file that is missing, changed, or does not fit.
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
        elif (found := sha256(path)) != expected:
            problems.append(
                f"{path} is not the file that was saved: expected SHA-256 {expected[:12]}…, found {found[:12]}…; "
                "copy it again or export the model again."
            )
    if problems:
        raise ModelError("\n".join(problems))
    _check_head(Path(directory), manifest)
    return manifest


def _check_head(directory: Path, manifest: Manifest) -> None:
    """Compare the labels with the outputs that config.json describes; transformers omits two, its default."""
    config = json.loads((directory / CONFIG).read_bytes())
    names, outputs = len(manifest.labels.names), len(config.get("id2label", "01"))
    if outputs != names:
        raise ModelError(
            f"{directory / MANIFEST} names {names} labels, but {directory / CONFIG} describes a head with "
            f"{outputs} outputs; export the model again."
        )


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """SHA-256 of `model.json`, which holds the hash of every other file: equal for equal models only."""
    return sha256(Path(directory) / MANIFEST)


def tokenizer_fingerprint(manifest: Manifest) -> str:
    """Equal for models whose tokenizers are the same, whatever their weights."""
    names = sorted(name for name in manifest.files if name not in (WEIGHTS, CONFIG))
    return hashlib.sha256("".join(f"{name}={manifest.files[name]}\n" for name in names).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Saves, checks and loads a trained model's directory; the only module that knows its file names.

model.json    labels, text recipe, decision, where it comes from, and the SHA-256 of every other file
model.pth     the state dict, fp32
config.json   the architecture, as transformers writes it
tokenizer.json, tokenizer_config.json, ...
"""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from models import network as networks
from models.decision import Decision
from models.errors import ModelError
from models.labels import LabelSchema
from models.text import TextRecipe

FORMAT_VERSION = 1
MANIFEST = "model.json"
WEIGHTS = "model.pth"
CONFIG = "config.json"


class Manifest(BaseModel):
    """What `model.json` says. `files` maps every other file's name to its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format_version: int = FORMAT_VERSION  # a newer one than this version knows is refused
    labels: LabelSchema  # task, and names in the order of the outputs
    text: TextRecipe  # fields, separator, cleaning, max_tokens
    decision: Decision = Decision()  # temperature, and thresholds in the order of the labels
    pooling: networks.Pooling = "stock"  # stock, first or mean, as in training
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


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for use: the network is in evaluation mode, on the CPU, in fp32."""

    name: str
    manifest: Manifest
    network: nn.Module
    tokenizer: PreTrainedTokenizerBase


def model_name(directory: str | os.PathLike[str]) -> str:
    """The model's name: its directory's last part with everything but letters, digits and _ replaced by _."""
    return re.sub(r"\W", "_", Path(os.path.abspath(directory)).name, flags=re.ASCII)


def save(
    directory: str | os.PathLike[str],
    network: nn.Module,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
) -> None:
    """Writes the directory whole or not at all; one that is already there is replaced."""
    target = Path(os.path.abspath(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o755)
        tokenizer.save_pretrained(staging)
        config.save_pretrained(staging)
        torch.save(networks.full_precision_state(network), staging / WEIGHTS)
        files = {file.name: sha256(file) for file in sorted(staging.iterdir())}
        complete = manifest.model_copy(update={"files": files})
        (staging / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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
    _check_head(Path(directory), manifest, AutoConfig.from_pretrained(directory))
    return manifest


def _check_head(directory: Path, manifest: Manifest, config: PretrainedConfig) -> None:
    names = len(manifest.labels.names)
    if config.num_labels != names:
        raise ModelError(
            f"{directory / MANIFEST} names {names} labels, but {directory / CONFIG} describes a head with "
            f"{config.num_labels} outputs; export the model again."
        )


def load(directory: str | os.PathLike[str]) -> TrainedModel:
    """Verifies the directory, builds the network and loads its weights (`weights_only`, `strict`).

    Raises:
        ModelError: what `verify` finds, or weights that do not fit the architecture.
    """
    manifest = verify(directory)
    config = AutoConfig.from_pretrained(directory)
    network = networks.from_config(config, manifest.pooling)
    weights = Path(directory) / WEIGHTS
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # torch raises several kinds; each means that the file does not hold these weights
        first_lines = " ".join(str(error).split())[:300]
        raise ModelError(f"{weights} does not fit {CONFIG} and {MANIFEST}: {first_lines}") from error
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return TrainedModel(model_name(directory), manifest, network.eval(), tokenizer)


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


def positions(config: PretrainedConfig) -> int | None:
    """How many tokens the architecture can read; None where it sets no limit."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    # RoBERTa and its kin number positions from the padding token's id on.
    reserved = (config.pad_token_id or 0) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return found - reserved if found else None


def check_max_tokens(directory: str | os.PathLike[str], max_tokens: int) -> None:
    """Refuses more tokens than the architecture has positions for.

    Raises:
        ModelError: says how many there are.
    """
    readable = positions(AutoConfig.from_pretrained(directory))
    if readable and max_tokens > readable:
        raise ModelError(
            f"Model {str(directory)!r} reads at most {readable} tokens, but {max_tokens} were asked for: "
            "lower --max_tokens."
        )

"""Writes and loads a trained model's directory with its network: the part that needs torch and transformers."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from models import network as networks
from models.errors import ModelError
from models.trained_model import CONFIG, MANIFEST, WEIGHTS, Manifest, model_name, sha256, verify


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for use: the network is in evaluation mode, on the CPU, in fp32."""

    name: str
    manifest: Manifest
    network: nn.Module
    tokenizer: PreTrainedTokenizerBase


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

"""Writes and loads a trained model's directory with its network, which needs torch and transformers."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from models import network as networks
from models.errors import ModelError
from models.labels import Task
from models.trained_model import CONFIG, MANIFEST, WEIGHTS, Manifest, model_name, sha256, verify, write_manifest

# Architectures that number positions from the padding token's id + 1, as RoBERTa does.
NUMBERED_FROM_PADDING = {
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet"),
    *("data2vec-text", "ibert", "xmod", "esm", "luke"),
}


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for use."""

    name: str
    manifest: Manifest
    network: nn.Module  # in evaluation mode, on the CPU, in fp32
    tokenizer: PreTrainedTokenizerBase


def save(
    directory: str | os.PathLike[str],
    network: nn.Module,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
) -> None:
    """Write the directory whole or not at all; replace one that exists."""
    target = Path(os.path.abspath(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o755)
        tokenizer.save_pretrained(staging)
        if isinstance(network, networks.StockClassifier):  # so that transformers.pipeline gives the same scores
            config.architectures = [type(network.model).__name__]
            config.id2label = dict(enumerate(manifest.labels.names))
            config.label2id = {name: place for place, name in enumerate(manifest.labels.names)}
            multi_label = manifest.labels.task is Task.MULTI_LABEL
            config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"
        config.save_pretrained(staging)
        torch.save(networks.full_precision_state(network), staging / WEIGHTS)
        files = {file.name: sha256(file) for file in sorted(staging.iterdir())}
        write_manifest(staging, manifest.model_copy(update={"files": files}))
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load(directory: str | os.PathLike[str]) -> TrainedModel:
    """Verify the directory, build the network and load its weights (`weights_only`, `strict`).

    Raises:
        ModelError: `verify` finds a problem, or the weights do not fit the architecture.
    """
    manifest = verify(directory)
    config = _read(AutoConfig, directory)
    network = networks.from_config(config, manifest.pooling)
    weights = Path(directory) / WEIGHTS
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # torch raises several exceptions; each means that the file holds other weights
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelError(
            f"{weights} does not fit {CONFIG} and {MANIFEST} ({reason}); export the model again."
        ) from error
    return TrainedModel(model_name(directory), manifest, network.eval(), load_tokenizer(directory))


def load_tokenizer(directory: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a verified directory.

    Raises:
        ModelError: it is none that transformers itself has.
    """
    return cast(PreTrainedTokenizerBase, _read(AutoTokenizer, directory))


def _read(kind: Any, directory: str | os.PathLike[str]) -> Any:
    """Return the configuration or the tokenizer of a directory, without running code that it brings.

    Raises:
        ModelError: it is none that transformers itself has.
    """
    try:
        return kind.from_pretrained(directory, **networks.NO_CODE)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(
            f"Model {str(directory)!r}: expected an architecture of transformers, found another ({reason}); export the "
            "model again with one that transformers has."
        ) from None


def positions(config: PretrainedConfig) -> int | None:
    """Return the number of tokens that the architecture can read; None if it sets no limit."""
    embeddings: int | None = getattr(config, "max_position_embeddings", None)
    reserved = (config.pad_token_id or 0) + 1 if config.model_type in NUMBERED_FROM_PADDING else 0
    return embeddings - reserved if embeddings else None


def check_max_tokens(directory: str | os.PathLike[str], max_tokens: int) -> None:
    """Refuse more tokens than the architecture can read.

    Raises:
        ModelError: `max_tokens` is too large; the message names the limit.
    """
    readable = positions(_read(AutoConfig, directory))
    if readable and max_tokens > readable:
        raise ModelError(
            f"Model {str(directory)!r} reads at most {readable} tokens, but {max_tokens} were asked for; "
            "lower --max_tokens."
        )

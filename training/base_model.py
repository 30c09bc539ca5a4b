"""Finds the pretrained encoder that a training starts from, and gives it a new head."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import constants
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from models import network as networks
from models import tokenizing, weights
from models.errors import UserError
from models.labels import LabelSchema
from training import hub_access
from training.config import ModelConfig, TrainConfig
from training.data_card import PERCENTILES

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")  # its names in different architectures


@dataclass(frozen=True)
class Network:
    """A network to train, with its configuration and tokenizer."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    module: nn.Module


def start(config: TrainConfig, schema: LabelSchema) -> Network:
    """Return the base model with a new head for these labels. The head is drawn from torch's random state.

    Raises:
        UserError: the base model cannot be loaded, or reads fewer tokens than the text recipe asks for.
    """
    base, names = folder(config.model), dict(enumerate(schema.names))
    pieces = tokenizer(config.model)
    source = _source(config.model)
    try:
        base_config = AutoConfig.from_pretrained(base, **source)
        if base_config.is_encoder_decoder:
            raise UserError(
                f"model.base {config.model.base!r}: expected an encoder, found an encoder with a decoder "
                f"({base_config.model_type}); take an encoder, such as microsoft/deberta-v3-small."
            )
        if pieces.pad_token is None:
            raise UserError(
                f"model.base {config.model.base!r}: expected a tokenizer that can pad, found none "
                f"({base_config.model_type}); take an encoder, such as microsoft/deberta-v3-small."
            )
        model_config = AutoConfig.from_pretrained(
            base, id2label=names, label2id={name: i for i, name in names.items()}, **source
        )
        if config.training.attention_dropout is not None:
            set_attention_dropout(model_config, config.training.attention_dropout)
        source |= _new_head(config.model, base_config, len(names))
        module = networks.from_pretrained(base, config.model.pooling, model_config, source).float()
    except (OSError, ValueError) as error:
        raise _unusable(config.model, error) from None
    positions = min(weights.positions(model_config) or sys.maxsize, pieces.model_max_length)
    if config.text.max_tokens > positions:
        raise UserError(
            f"text.max_tokens is {config.text.max_tokens}, but {config.model.base} reads {positions} at most; lower it."
        )
    if config.training.head_bias is not None:
        set_head_bias(module, config.training.head_bias)
    return Network(model_config, pieces, module)


def _new_head(model: ModelConfig, base: PretrainedConfig, labels: int) -> dict[str, Any]:
    """Return what lets transformers replace the head of a classifier with other labels, which a notice says."""
    classifies = any(name.endswith("ForSequenceClassification") for name in base.architectures or ())
    if model.pooling != "stock" or not classifies or base.num_labels == labels:
        return {}
    print(f"notice: {model.base} classifies {base.num_labels} labels; a new head of {labels} replaces its own.")
    return {"ignore_mismatched_sizes": True}


def _source(model: ModelConfig) -> dict[str, Any]:
    """Return how transformers loads the base model: its revision, no code of its own, and the cache if that must do.

    Raises:
        UserError: the base model is on the hub, which does not answer, and not in the cache.
    """
    base = folder(model)
    found: dict[str, Any] = {"revision": model.revision, **networks.NO_CODE}
    if not Path(base).is_dir():
        cached = hub_access.is_cached(base, model.revision)
        found["local_files_only"] = not hub_access.check(f"model.base {model.base!r}", cached=cached)
    return found


def folder(model: ModelConfig) -> str:
    """Return the folder or hub name of the base model. `package:NAME/FOLDER` is a folder of an installed package.

    Raises:
        UserError: the package or the folder does not exist.
    """
    if model.base.startswith(("/", "./", "../")) and not Path(model.base).is_dir():
        raise UserError(f"model.base: expected a folder {model.base}, found none; check the path.")
    if not model.base.startswith("package:"):
        return model.base
    package, _, inside = model.base.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / inside if spec and spec.submodule_search_locations else None
    if path is None or not path.is_dir():
        raise UserError(f"model.base: expected a folder {inside!r} in the installed package {package!r}, found none.")
    return str(path)


def fetch(model: ModelConfig) -> str:
    """Load the base model once, which leaves it in the hub's cache. Return where it is.

    Raises:
        UserError: it cannot be loaded.
    """
    base, source = folder(model), _source(model)
    tokenizer(model)
    try:
        AutoModel.from_pretrained(base, **source)
    except (OSError, ValueError) as error:
        raise _unusable(model, error) from None
    return base if Path(base).is_dir() else constants.HF_HUB_CACHE


def tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the base model.

    Raises:
        UserError: the base model has none.
    """
    try:
        return load_tokenizer(folder(model), **_source(model))
    except (OSError, ValueError) as error:
        raise _unusable(model, error) from None


def load_tokenizer(name: str, **source: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or a hub name; `source` is what transformers takes to load it.

    Raises:
        ValueError: the tokenizer knows no words; transformers makes such a one for a folder without its files.
        OSError: there is nothing to load.
    """
    loaded = AutoTokenizer.from_pretrained(name, **(networks.NO_CODE | source))
    if len(loaded) <= len(loaded.all_special_ids):
        raise ValueError("the tokenizer's files are missing")
    return loaded


def token_lengths(texts: Sequence[str], config: TrainConfig) -> dict[str, Any]:
    """Return percentiles of the number of tokens of texts, and the share of texts that are not read to the end.

    The keys are p5, p25, ..., p100, and truncated. Special tokens are counted.
    """
    if not texts:
        return {}
    plain = tokenizing.of(tokenizer(config.model))
    batches = (list(texts[start : start + tokenizing.AT_ONCE]) for start in range(0, len(texts), tokenizing.AT_ONCE))
    lengths = np.array([len(ids) for batch in batches for ids in plain.ids(batch)])
    percentiles = np.percentile(lengths, PERCENTILES, method="higher")
    return {f"p{p}": int(value) for p, value in zip(PERCENTILES, percentiles, strict=True)} | {
        "truncated": round(float((lengths > config.text.most_tokens).mean()), 6)
    }


def _unusable(model: ModelConfig, error: Exception) -> UserError:
    """Return one sentence for what transformers said of the base model."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"model.base {model.base!r}: expected an architecture of transformers, found a model that brings code of "
            "its own, which is never run (trust_remote_code is off); take another base model."
        )
    reason = " ".join(str(error).split())[:200]
    return UserError(f"model.base {model.base!r} cannot be loaded as a transformers encoder: {reason}")


def set_attention_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set the share of attention weights that a training step replaces by zero.

    Raises:
        UserError: the architecture has no such setting.
    """
    name = next((name for name in ATTENTION_DROPOUT if hasattr(config, name)), None)
    if name is None:
        raise UserError(
            "training.attention_dropout: expected an encoder that has it in its config.json as "
            f"{' or '.join(ATTENTION_DROPOUT)}, {config.model_type} has neither; remove the key."
        )
    setattr(config, name, dropout)


def set_head_bias(network: nn.Module, bias: float) -> None:
    """Set the logit from which every label starts, about log(p / (1 - p)) for labels of frequency p.

    Raises:
        UserError: the head has no bias.
    """
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]  # a head may have layers
    if last.bias is None:
        raise UserError("training.head_bias: expected a head with a bias, this base model's has none; remove the key.")
    nn.init.constant_(last.bias, bias)

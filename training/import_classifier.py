"""Imports a sequence-classification checkpoint as a trained model, and compares the logits of the two."""

import inspect
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from models import network as networks
from models import weights
from models.decision import Decision
from models.errors import UserError
from models.labels import LabelSchema, Task
from models.names import for_terminal
from models.text import TextRecipe
from models.trained_model import Manifest
from training import base_model
from training.config import message

PROBES = ("A text.", "Another text, somewhat longer than the first one, to be padded with.")
TOLERANCE = 1e-4  # largest difference between a logit of the checkpoint and of the trained model


@dataclass(frozen=True)
class Request:
    """A checkpoint to import, and what is known of its labels and texts."""

    checkpoint: str  # folder or hub name
    revision: str | None  # branch, tag or commit on the hub
    task: Task | None  # None: the task that the checkpoint says
    names: tuple[str, ...] | None  # label names; None: the checkpoint's own
    recipe: TextRecipe
    any_length: bool  # whether fewer tokens than the recipe's are fine if the checkpoint cannot read as many


def convert(request: Request, output: Path) -> None:
    """Write the checkpoint as a trained model, and print what it is.

    Raises:
        UserError: the checkpoint is no classifier, does not fit the request, or gives other logits once converted.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config, tokenizer, model = _load(request)
    labels = _labels(config, request)
    recipe = _recipe(request, min(weights.positions(config) or sys.maxsize, tokenizer.model_max_length))
    knows_task = request.task is not None or config.problem_type is not None
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    config.dtype = torch.float32  # the type of the written weights, whatever the checkpoint had
    manifest = Manifest(
        labels=labels,
        text=recipe,
        decision=Decision(thresholds=(0.5,) * labels.thresholds_needed),
        pooling="stock",
        base_model=request.checkpoint,
        base_revision=request.revision,
    )
    difference = _write(output.resolve(), model, config, tokenizer, manifest)
    print(for_terminal(f"{labels.task}: {', '.join(labels.names)}"))
    if not knows_task:
        print(
            f"The checkpoint does not say its task. {labels.task} is the usual one for its outputs, and --task changes "
            "it."
        )
    if all(re.fullmatch(r"LABEL_\d+", name) for name in labels.names):
        print("The checkpoint does not name its labels. --names A,B,... gives them names.")
    thresholds = "; thresholds are 0.5" if labels.thresholds_needed else ""
    print(f"the same logits as the checkpoint, within {difference:.1e}{thresholds}: {output}")


def _load(request: Request) -> tuple[PretrainedConfig, PreTrainedTokenizerBase, PreTrainedModel]:
    """Return the checkpoint in fp32. Weights come from safetensors, or from .bin files read with `weights_only`.

    Raises:
        UserError: there is no checkpoint, no tokenizer, or no trained classification head.
    """
    checkpoint, revision = request.checkpoint, request.revision
    if checkpoint.startswith(("/", "./", "../")) and not Path(checkpoint).is_dir():
        raise UserError(f"{checkpoint}: expected a checkpoint's folder or a hub name, found no folder; check the path.")
    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, **networks.NO_CODE)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            config=config,
            revision=revision,
            **networks.NO_CODE,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below with a sentence
        )
    except Exception as error:  # unsafe pickles, broken files and unknown architectures raise errors of many kinds
        raise UserError(f"{checkpoint} cannot be loaded as a sequence classifier: {_one_line(error)}") from None
    fresh = sorted({*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])})
    if fresh:
        raise UserError(
            f"{checkpoint}: expected the weights of a sequence classifier with {config.num_labels} outputs, found none "
            f"that fit for {', '.join(fresh[:4])}; an encoder without a head needs training.train."
        )
    try:
        tokenizer = base_model.load_tokenizer(checkpoint, revision=revision)
    except Exception as error:
        raise UserError(
            f"{checkpoint} has no tokenizer that can be loaded ({_one_line(error)}): copy the base model's tokenizer "
            "files into it."
        ) from None
    return config, tokenizer, model.eval()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _labels(config: PretrainedConfig, request: Request) -> LabelSchema:
    own = tuple(str(config.id2label.get(i, "")) for i in range(config.num_labels))
    names = request.names or own
    if len(names) != len(own):
        raise UserError(
            f"--names: expected {len(own)} names, one for each output, found {len(names)}: {', '.join(names)}."
        )
    if request.task is None and (config.problem_type == "regression" or len(own) == 1):
        raise UserError(
            "the checkpoint gives a number, as for regression: expected a score for each label; if its output is the "
            "logit of a label, say so with --task multi_label."
        )
    task = request.task or _task(config)
    try:
        return LabelSchema(task=task, names=names)
    except ValidationError as error:
        raise UserError(f"--task {task}: {message(error.errors()[0])}; give another --task or --names.") from None


def _task(config: PretrainedConfig) -> Task:
    if config.problem_type == "multi_label_classification":
        return Task.MULTI_LABEL
    return Task.BINARY if config.num_labels == 2 else Task.MULTI_CLASS


def _recipe(request: Request, positions: int) -> TextRecipe:
    """Return the text recipe, with no more tokens than the checkpoint has positions."""
    if request.recipe.max_tokens <= positions:
        return request.recipe
    if not request.any_length:
        raise UserError(
            f"--max_tokens {request.recipe.max_tokens}: the checkpoint reads {positions} at most; lower it."
        )
    return request.recipe.model_copy(update={"max_tokens": positions})


def _write(
    output: Path,
    model: PreTrainedModel,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
) -> float:
    """Write the trained model if it gives the checkpoint's logits. Return the largest difference between them.

    Raises:
        UserError: the logits differ, or texts cannot be padded; `output` did not change.
    """
    expected = _logits(model, tokenizer, manifest.text.max_tokens)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        staging = Path(folder) / output.name
        weights.save(staging, networks.StockClassifier(model), config, tokenizer, manifest)
        written = weights.load(staging)
        difference = float(
            (_logits(written.network, written.tokenizer, manifest.text.max_tokens) - expected).abs().max()
        )
        if not difference <= TOLERANCE:
            raise UserError(
                f"expected the checkpoint's logits from the trained model, found them {difference:.1e} apart: "
                f"{config.model_type} needs more than token ids and an attention mask; take another architecture."
            )
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    return difference


def _logits(network: nn.Module, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Tensor:
    """Return the logits (probes, labels). The network gets those outputs of the tokenizer that it takes."""
    try:
        encoded = tokenizer(list(PROBES), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        taken = inspect.signature(network.forward).parameters
        with torch.inference_mode():
            output = network(**{name: tensor for name, tensor in encoded.items() if name in taken})
    except ValueError as error:  # the tokenizer has no padding token
        raise UserError(f"the checkpoint cannot read texts of different lengths at once: {_one_line(error)}") from None
    return output if isinstance(output, Tensor) else output.logits

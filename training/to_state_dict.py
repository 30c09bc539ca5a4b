"""Turns a Hugging Face sequence-classification checkpoint into a trained model: public classifiers for the pipeline.

python -m training.to_state_dict cardiffnlp/twitter-roberta-base-irony --output models/trained/irony
"""

import inspect
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from models.errors import UserError, exit_code
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Manifest
from training import base_model, command

LONGEST = 512  # tokens read where the checkpoint would read more: what lies beyond rarely changes a label
PROBES = ("A text.", "Another text, somewhat longer than the first one, to be padded with.")
TOLERANCE = 1e-4  # largest difference of a logit between the checkpoint and what was written


def main(argv: Sequence[str] | None = None) -> int:
    """Converts what the flags say. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> command.Parser:
    """The parser of `training.to_state_dict`."""
    parser = command.Parser("training.to_state_dict", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or a hub name")
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the hub")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the trained model's directory")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    parser.add_argument("--task", choices=[task.value for task in Task], help="where the checkpoint does not tell it")
    parser.add_argument("--names", metavar="A,B", help="label names in the order of the outputs, instead of its own")
    parser.add_argument("--text_fields", default="text", metavar="A,B", help="fields of a record that are read (text)")
    parser.add_argument("--cleaning", default="nfc,whitespace", metavar="A,B", help="cleaning steps (nfc,whitespace)")
    parser.add_argument("--max_tokens", type=int, metavar="N", help=f"tokens read (all it can, at most {LONGEST})")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse_args(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    command.check_output(flags.output, flags.overwrite)
    config, tokenizer, model = _load(flags.checkpoint, flags.revision)
    labels = _labels(config, flags.task, flags.names)
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    config.dtype = torch.float32  # as the weights are written, whatever the checkpoint had
    manifest = Manifest(
        labels=labels,
        text=_recipe(flags, _positions(config, tokenizer)),
        decision=Decision(thresholds=(0.5,) * labels.thresholds_needed),
        pooling="stock",
        base_model=flags.checkpoint,
        base_revision=flags.revision,
    )
    difference = _write(flags.output.resolve(), model, config, tokenizer, manifest)
    print(f"{labels.task}: {', '.join(labels.names)}")
    if flags.task is None and config.problem_type is None:
        print(
            f"The checkpoint does not say its task, {labels.task} is the usual one for its outputs; --task changes it."
        )
    if all(re.fullmatch(r"LABEL_\d+", name) for name in labels.names):
        print("The checkpoint does not name its labels; --names A,B,... gives them names.")
    print(f"the same logits as the checkpoint, to {difference:.1e}; thresholds 0.5: {flags.output}")


def _load(checkpoint: str, revision: str | None) -> tuple[PretrainedConfig, PreTrainedTokenizerBase, PreTrainedModel]:
    """The checkpoint in fp32; weights from safetensors, or from .bin read with `weights_only`.

    Raises:
        UserError: no checkpoint, no tokenizer, or no trained classification head in it.
    """
    if checkpoint.startswith(("/", "./", "../")) and not Path(checkpoint).is_dir():
        raise UserError(f"{checkpoint}: expected a checkpoint's folder or a hub name, found no folder; check the path.")
    try:
        # Not None, with which transformers asks on the terminal whether to run the checkpoint's own code.
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            config=config,
            revision=revision,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, in a sentence
        )
    except Exception as error:  # pickles that would run code, broken files, unknown architectures: each its own kind
        raise UserError(f"{checkpoint} cannot be loaded as a sequence classifier: {_one_line(error)}") from None
    fresh = sorted({*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])})
    if fresh:
        raise UserError(
            f"{checkpoint}: expected the weights of a sequence classifier with {config.num_labels} outputs, found none "
            f"that fit for {', '.join(fresh[:4])}; an encoder without a head needs training.train."
        )
    try:
        tokenizer = base_model.load_tokenizer(checkpoint, revision)
    except Exception as error:
        raise UserError(
            f"{checkpoint} has no tokenizer that can be loaded ({_one_line(error)}): copy the base model's tokenizer "
            "files into it."
        ) from None
    return config, tokenizer, model.eval()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _labels(config: PretrainedConfig, task: str | None, names: str | None) -> LabelSchema:
    own = tuple(str(config.id2label.get(i, "")) for i in range(config.num_labels))
    chosen = _parts(names) if names else own
    if len(chosen) != len(own):
        raise UserError(f"--names: expected {len(own)} names, one an output, found {len(chosen)}: {', '.join(chosen)}.")
    if task is None and (config.problem_type == "regression" or len(own) == 1):
        raise UserError(
            "the checkpoint gives a number, as for regression: expected a score for each label; if its output is the "
            "logit of a label, say so with --task multi_label."
        )
    return _schema(Task(task) if task else _task(config), chosen)


def _task(config: PretrainedConfig) -> Task:
    if config.problem_type == "multi_label_classification":
        return Task.MULTI_LABEL
    return Task.BINARY if config.num_labels == 2 else Task.MULTI_CLASS


def _schema(task: Task, names: tuple[str, ...]) -> LabelSchema:
    try:
        return LabelSchema(task=task, names=names)
    except ValidationError as error:
        raise UserError(f"--task {task}: {_message(error)}; give another --task or --names.") from None


def _recipe(flags: Any, positions: int) -> TextRecipe:
    if flags.max_tokens is not None and flags.max_tokens > positions:
        raise UserError(f"--max_tokens {flags.max_tokens}: the checkpoint reads {positions} at most; lower it.")
    try:
        return TextRecipe(
            fields=_parts(flags.text_fields),
            cleaning=_parts(flags.cleaning),
            max_tokens=min(LONGEST, positions) if flags.max_tokens is None else flags.max_tokens,
        )
    except ValidationError as error:
        flag = str(error.errors()[0]["loc"][0]).replace("fields", "text_fields")
        raise UserError(f"--{flag}: {_message(error)}.") from None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _message(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def _positions(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    return min(weights.positions(config) or sys.maxsize, tokenizer.model_max_length)


def _write(
    output: Path,
    model: PreTrainedModel,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
) -> float:
    """Writes the trained model once it is seen to give the checkpoint's logits. Returns their largest difference.

    Raises:
        UserError: the logits differ, or texts cannot be padded; `output` is as it was.
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
    """Logits (probes, labels), from whatever the network takes of what the tokenizer gives."""
    try:
        encoded = tokenizer(list(PROBES), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        taken = inspect.signature(network.forward).parameters
        with torch.inference_mode():
            found = network(**{name: tensor for name, tensor in encoded.items() if name in taken})
    except ValueError as error:  # no padding token
        raise UserError(f"the checkpoint cannot read texts of different lengths at once: {_one_line(error)}") from None
    return found if isinstance(found, Tensor) else found.logits


if __name__ == "__main__":
    sys.exit(main())

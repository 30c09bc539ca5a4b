"""Turns a Hugging Face sequence-classification checkpoint into a trained model: public classifiers for the pipeline.

python -m training.to_state_dict cardiffnlp/twitter-roberta-base-irony --output models/trained/irony
"""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from models import network as networks
from models import trained_model
from models.decision import Decision
from models.errors import UserError
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from training import base_model, command

LONGEST = 512  # tokens read where the checkpoint would read more: what lies beyond rarely changes a label
PROBES = ("A text.", "Another text, somewhat longer than the first one, to be padded with.")
TOLERANCE = 1e-4  # largest difference of a logit between the checkpoint and what was written


def main(argv: Sequence[str] | None = None) -> int:
    """Converts what the flags say. Returns 0 done, 2 wrong use."""
    return command.exit_code(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
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
    flags = parser.parse_args(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    command.check_output(flags.output, flags.overwrite)
    config, tokenizer, model = _load(flags.checkpoint, flags.revision)
    labels = _labels(config, flags.task, flags.names)
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    manifest = trained_model.Manifest(
        labels=labels,
        text=_recipe(flags, _positions(config, tokenizer)),
        decision=Decision(thresholds=(0.5,) * labels.thresholds_needed),
        pooling="stock",
        base_model=flags.checkpoint,
        base_revision=flags.revision,
    )
    trained_model.save(flags.output, networks.StockClassifier(model), config, tokenizer, manifest)
    difference = _difference(model, tokenizer, flags.output)
    print(f"{labels.task}: {', '.join(labels.names)}")
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
        config = AutoConfig.from_pretrained(checkpoint, revision=revision)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, config=config, revision=revision, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # pickles that would run code, broken files, unknown architectures: each its own kind
        raise UserError(f"{checkpoint} cannot be loaded as a sequence classifier: {_one_line(error)}") from None
    if loaded["missing_keys"]:
        raise UserError(
            f"{checkpoint}: expected the weights of a sequence classifier, found none for "
            f"{', '.join(sorted(loaded['missing_keys'])[:4])}; an encoder without a head needs training.train."
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
    own = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    chosen = tuple(name.strip() for name in names.split(",")) if names else own
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
    except ValueError as error:
        raise UserError(f"--task {task}: {_message(error)}; give another --task or --names.") from None


def _recipe(flags: Any, positions: int) -> TextRecipe:
    if flags.max_tokens and flags.max_tokens > positions:
        raise UserError(f"--max_tokens {flags.max_tokens}: the checkpoint reads {positions} at most; lower it.")
    try:
        return TextRecipe(
            fields=tuple(flags.text_fields.split(",")),
            cleaning=tuple(step for step in flags.cleaning.split(",") if step),
            max_tokens=flags.max_tokens or min(LONGEST, positions),
        )
    except ValueError as error:
        raise UserError(f"--cleaning, --text_fields or --max_tokens: {_message(error)}.") from None


def _message(error: Any) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def _positions(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    return min(trained_model.positions(config) or sys.maxsize, tokenizer.model_max_length)


def _difference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> float:
    """Largest difference between the logits of the checkpoint and of the written model on two texts."""
    encoded = tokenizer(list(PROBES), padding=True, return_tensors="pt")
    inputs = encoded["input_ids"], encoded["attention_mask"]
    written = trained_model.load(output).network
    with torch.inference_mode():
        expected = model(input_ids=inputs[0], attention_mask=inputs[1]).logits
        difference = float((written(*inputs) - expected).abs().max())
    if not difference <= TOLERANCE:
        shutil.rmtree(output)
        raise UserError(
            f"{output}: expected the checkpoint's logits from what was written, found them {difference:.1e} apart and "
            "removed it; report this architecture."
        )
    return difference


if __name__ == "__main__":
    sys.exit(main())

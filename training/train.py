"""Trains a classifier and writes it as a trained model.

python -m training.train training/configs/demo.toml --data_dir data/demo --output models/trained/demo
"""

import argparse
import importlib.util
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from models import network as networks
from models import trained_model
from models.decision import Decision, probabilities
from models.errors import UserError
from models.labels import LabelSchema
from training import data, evaluate, fit
from training.config import ModelConfig, TrainConfig, TrainingConfig, load_config
from training.data import Examples, Splits


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what the configuration says. Returns 0 done, 2 wrong use."""
    parser = _Parser(
        prog="python -m training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="see training/configs/")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the trained model's directory")
    parser.add_argument("--data_dir", type=Path, default=Path(), metavar="DIR", help="where the data files lie (.)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as training.epochs=1")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    try:
        flags = parser.parse_args(argv)
        config = load_config(flags.config, flags.set)
        _check_output(flags.output, flags.overwrite)
        train(config, flags.data_dir, flags.output)
    except UserError as error:
        print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
        return 2
    return 0


def _check_output(output: Path, overwrite: bool) -> None:
    """A missing or empty directory is free; only a trained model is ever replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise UserError(f"--output {output} is there already: name another directory, or add --overwrite.")
    if not (output / trained_model.MANIFEST).is_file():
        raise UserError(f"--output {output}: --overwrite replaces trained models only, and this is none; name another.")


def train(config: TrainConfig, data_dir: Path, output: Path) -> dict[str, Any]:
    """Reads the data, fits the network, chooses thresholds on validation, measures, and writes the model.

    Returns:
        The metrics of the validation and the test split, as they stand in `model.json`.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # the bar of loading; training has its own
    datasets.disable_progress_bars()
    torch.manual_seed(config.training.seed)
    base = base_folder(config.model)
    schema, splits = data.load(config, data_dir)
    splits = _sample(splits, config.training)
    _print_counts(splits)
    model_config, tokenizer, network = _start(base, config, schema)
    began = time.monotonic()
    fit.fit(network, tokenizer, splits.train, config, schema)
    seconds = time.monotonic() - began
    decision, metrics = _measure(network, tokenizer, splits, config, schema)
    manifest = trained_model.Manifest(
        labels=schema,
        text=config.text,
        decision=decision,
        pooling=config.model.pooling,
        base_model=config.model.base,
        base_revision=config.model.revision,
        metrics=metrics,
        training={
            "config": config.model_dump(mode="json"),
            "documents": len(splits.train),
            "label_counts": dict(zip(schema.names, splits.train.targets.sum(axis=0).astype(int).tolist(), strict=True)),
            "data_sha256": splits.train.sha256(),
            "seconds": round(seconds, 1),
            "examples_per_second": round(len(splits.train) * config.training.epochs / seconds, 1),
        },
        versions=_versions(),
    )
    if tokenizer.is_fast:  # as loaded: without the truncation and padding that the last call left in it
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    trained_model.save(output, network, model_config, tokenizer, manifest)
    _print_metrics(metrics)
    print(f"{networks.num_parameters(network):,} parameters, trained in {seconds:,.0f} s: {output}")
    return metrics


def base_folder(model: ModelConfig) -> str:
    """Where the base model is loaded from: `package:NAME/FOLDER` becomes a folder of the installed package.

    Raises:
        UserError: the package or the folder is not there.
    """
    if model.base.startswith(("/", "./", "../")) and not Path(model.base).is_dir():
        raise UserError(f"model.base: expected a folder {model.base}, found none; check the path.")
    if not model.base.startswith("package:"):
        return model.base
    package, _, folder = model.base.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / folder if spec and spec.submodule_search_locations else None
    if path is None or not path.is_dir():
        raise UserError(f"model.base: expected a folder {folder!r} in the installed package {package!r}, found none.")
    return str(path)


def _sample(splits: Splits, training: TrainingConfig) -> Splits:
    limit = training.max_train_samples
    if limit is None or limit >= len(splits.train):
        return splits
    chosen = np.random.default_rng(training.seed).permutation(len(splits.train))[:limit]
    return Splits(splits.train.take(np.sort(chosen)), splits.validation, splits.test)


def _start(
    base: str, config: TrainConfig, schema: LabelSchema
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase, nn.Module]:
    names = dict(enumerate(schema.names))
    revision = config.model.revision
    try:
        model_config = AutoConfig.from_pretrained(
            base, revision=revision, id2label=names, label2id={name: i for i, name in names.items()}
        )
        tokenizer = AutoTokenizer.from_pretrained(base, revision=revision)
        network = networks.from_pretrained(base, config.model.pooling, model_config, revision).float()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model.base {config.model.base!r} cannot be loaded as a transformers encoder: {reason}"
        ) from None
    positions = min(getattr(model_config, "max_position_embeddings", None) or sys.maxsize, tokenizer.model_max_length)
    if config.text.max_tokens > positions:
        raise UserError(
            f"text.max_tokens is {config.text.max_tokens}, but {config.model.base} reads {positions} at most; lower it."
        )
    if config.training.head_bias is not None:
        fit.set_head_bias(network, config.training.head_bias)
    return model_config, tokenizer, network


def _measure(
    network: nn.Module, tokenizer: PreTrainedTokenizerBase, splits: Splits, config: TrainConfig, schema: LabelSchema
) -> tuple[Decision, dict[str, Any]]:
    def probs_of(examples: Examples) -> evaluate.Floats:
        logits = evaluate.score(network, tokenizer, examples.texts, config.text.max_tokens)
        return probabilities(logits, schema.task)

    probs = probs_of(splits.validation)
    thresholds = evaluate.choose_thresholds(probs, splits.validation.targets, schema)
    metrics = {"validation": _metrics(probs, splits.validation, schema, thresholds)}
    if len(splits.test):
        metrics["test"] = _metrics(probs_of(splits.test), splits.test, schema, thresholds)
    return Decision(thresholds=thresholds), metrics


def _metrics(
    probs: evaluate.Floats, examples: Examples, schema: LabelSchema, thresholds: tuple[float, ...]
) -> dict[str, Any]:
    found = evaluate.measure(probs, examples.targets, schema, thresholds)
    return {**found, "data_sha256": examples.sha256()}


def _versions() -> dict[str, str]:
    installed = {distribution.name for distribution in metadata.distributions()}
    return {"python": platform.python_version()} | {
        name: metadata.version(name)
        for name in ("labelbeam", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn")
        if name in installed  # a checkout that runs in place has no version of its own
    }


def _print_counts(splits: Splits) -> None:
    for name in ("train", "validation", "test"):
        examples: Examples = getattr(splits, name)
        skipped = "".join(f", {count:,} rows left out: {reason}" for reason, count in examples.skipped.items())
        print(f"{name}: {len(examples):,} documents{skipped}")


def _print_metrics(metrics: dict[str, Any]) -> None:
    split = "test" if "test" in metrics else "validation"
    found = metrics[split]
    table = Table(
        title=f"{split}: macro-F1 {found['macro_f1']:.3f}, micro-F1 {found['micro_f1']:.3f}", title_justify="left"
    )
    for heading in ("label", "precision", "recall", "F1", "support"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for name, values in found["labels"].items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in ("precision", "recall", "f1")), f"{values['support']:,}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

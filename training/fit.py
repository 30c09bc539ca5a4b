"""Fits a network's weights to examples: transformers' Trainer with our loss, optimizer and batches."""

import math
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from models import network as networks
from models.errors import UserError
from models.labels import LabelSchema
from training import objective
from training.config import TrainConfig, TrainingConfig
from training.data import Examples


def set_head_bias(network: nn.Module, bias: float) -> None:
    """Lets every label start from the same logit: about log(p / (1 - p)) for labels of frequency p.

    Raises:
        UserError: the head has no bias.
    """
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]  # in a head of any depth
    if last.bias is None:
        raise UserError("training.head_bias: expected a head with a bias, this base model's has none; remove the key.")
    nn.init.constant_(last.bias, bias)


def fit(
    network: nn.Module, tokenizer: PreTrainedTokenizerBase, examples: Examples, config: TrainConfig, schema: LabelSchema
) -> None:
    """Fits the network in place, with a progress bar; the seed of the configuration decides the order of the examples.

    Raises:
        UserError: the loss is no longer a number.
    """
    encoded = tokenizer(examples.texts, truncation=True, max_length=config.text.max_tokens)["input_ids"]
    rows = [{"input_ids": ids, "labels": target} for ids, target in zip(encoded, examples.targets, strict=True)]
    targets = objective.as_tensor(examples.targets)
    weights = objective.label_weights(targets, schema.task) if config.training.class_weights else None
    with tempfile.TemporaryDirectory(prefix="labelbeam_") as scratch:  # the Trainer wants one, though it saves nothing
        trainer = _Trainer(
            schema,
            weights,
            model=network,
            args=_arguments(config.training, scratch),
            train_dataset=rows,
            data_collator=lambda batch: _collate(batch, tokenizer),
            optimizers=(_optimizer(network, config.training), None),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            result = trainer.train()
    if not math.isfinite(result.training_loss):
        raise UserError(
            f"the training loss became {result.training_loss}: expected a finite number; lower training.learning_rate."
        )


class _Trainer(Trainer):
    """transformers' Trainer with our loss."""

    def __init__(self, schema: LabelSchema, weights: Tensor | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._task, self._weights = schema.task, weights

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """The loss of a batch, with its logits where they are wanted."""
        logits = model(inputs["input_ids"], inputs["attention_mask"])
        weights = self._weights.to(logits.device) if self._weights is not None else None
        value = objective.loss(logits.float(), inputs["labels"], self._task, weights)
        return (value, {"logits": logits}) if return_outputs else value


def _arguments(training: TrainingConfig, scratch: str) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    in_hardware = torch.cuda.is_bf16_supported() if cuda else torch.cpu._is_avx512_bf16_supported()
    bf16 = training.precision == "bf16" or (training.precision == "auto" and in_hardware)
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_ratio,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=bf16,
        use_cpu=bf16 and not cuda,  # otherwise bf16 is refused there
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # or a loss that is no number would be hidden
        disable_tqdm=False,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=cuda,
    )


def _optimizer(network: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW; the head may learn at its own rate, and biases and normalisation weights do not decay."""
    encoder = {id(parameter) for parameter in _encoder(network).parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) not in encoder, parameter.ndim >= 2), []).append(parameter)
    head_rate = training.head_learning_rate or training.learning_rate
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": head_rate if is_head else training.learning_rate,
                "weight_decay": training.weight_decay if decays else 0.0,
            }
            for (is_head, decays), parameters in groups.items()
        ]
    )


def _encoder(network: nn.Module) -> nn.Module:
    if isinstance(network, networks.StockClassifier):
        return cast(nn.Module, network.model.base_model)
    return cast(networks.PooledClassifier, network).encoder


def _collate(batch: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    padded = tokenizer.pad([{"input_ids": row["input_ids"]} for row in batch], return_tensors="pt")
    targets = objective.as_tensor(np.stack([row["labels"] for row in batch]))
    return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], "labels": targets}

"""Fits a network's weights to examples with transformers' Trainer, and our loss, optimizer, batches and checkpoints."""

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerBase,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import is_torch_xla_available, is_torch_xpu_available

from models import hardware
from models import network as networks
from models.decision import Decision, probabilities
from models.errors import UserError
from models.labels import LabelSchema, Task
from training import calibrate, callbacks, measurement, metrics, objective, trackers
from training.base_model import Network
from training.config import DecisionConfig, TrainConfig, TrainingConfig
from training.data_splits import Prepared
from training.examples import Examples
from training.token_file import TokenFile

LOGGED = 0.02  # share of all updates between two records of the training loss


@dataclass(frozen=True)
class Fitted:
    """The record of a training."""

    tokens: int  # tokens of the training split that the network reads, without padding
    passes: float  # passes over the training split that were made; an early stop makes fewer than were asked for
    seconds: float  # time of updates, evaluations and checkpoints, over all attempts
    history: list[dict[str, Any]]  # Trainer's log: loss and learning rate, or eval_ metrics, at a step
    best: float  # chosen metric of the weights that were kept
    epochs: Sequence[float]  # time of the updates of each epoch
    saving: float  # time of writing checkpoints


def fit(
    network: Network,
    prepared: Prepared,
    config: TrainConfig,
    checkpoints: Path,
    extra_callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Fit the network in place, and keep the weights of the evaluation with the best metric.

    It resumes from the last complete checkpoint if there is one, and the result is the same as without the break.

    Raises:
        DivergedError: the loss is infinite or not a number.
        UserError: a tracker is not installed, or class weights name an unknown label.
    """
    training = config.training
    trackers.check(training)
    schema, splits, tokenizer = prepared.schema, prepared.splits, network.tokenizer
    weights = _label_weights(splits.train, schema, training)
    arguments = _arguments(training, config.text.most_tokens, checkpoints)
    fused = arguments.device.type in ("cpu", "cuda")  # on a CPU, it takes a seventh of the default's time per update
    clock, progress = callbacks.Clock(), callbacks.Progress(training.metric)
    train = TokenFile(splits.train, tokenizer, config.text)
    if training.gradient_checkpointing:
        checkpoint_gradients(network.module)
    with _tensorboard_files(checkpoints):
        trainer = _Trainer(
            schema,
            weights,
            config,
            model=network.module,
            args=arguments,
            train_dataset=train,
            eval_dataset=TokenFile(splits.validation, tokenizer, config.text),
            data_collator=lambda batch: _collate(batch, tokenizer),
            compute_metrics=lambda prediction: _measure(prediction, schema, config.decision),
            optimizers=(_optimizer(network.module, training, fused=fused), None),
            callbacks=[callbacks.StopIfDiverged(), clock, *_early_stopping(training), *extra_callbacks],
        )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(progress)
    with warnings.catch_warnings(), contextlib.closing(progress), trackers.explained():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    # A resumed Trainer replaces the clock by one that continues the count.
    clock = next(one for one in trainer.callback_handler.callbacks if isinstance(one, callbacks.Clock))
    best = float(cast(float, trainer.state.best_metric))
    passes = float(trainer.state.epoch or 0)
    tokens = int(train.lengths.sum())
    return Fitted(tokens, passes, clock.seconds, trainer.state.log_history, best, clock.epochs, clock.saving)


def checkpoint_gradients(network: nn.Module) -> None:
    """Let the backward pass compute the activations of each layer again, so that they take no memory meanwhile.

    Raises:
        UserError: the encoder cannot do that.
    """
    encoder = networks.encoder(network)
    if not encoder.supports_gradient_checkpointing:
        raise UserError(
            "training.gradient_checkpointing: expected an encoder that supports it, "
            f"{encoder.config.model_type} does not; remove the key."
        )
    new_name = hasattr(encoder, "activation_checkpointing_enable")  # in later versions of transformers 5
    enable = encoder.activation_checkpointing_enable if new_name else encoder.gradient_checkpointing_enable
    enable()


@contextlib.contextmanager
def _tensorboard_files(checkpoints: Path) -> Iterator[None]:
    """Place TensorBoard's files beside the checkpoints, unless the user's environment names a folder.

    The Trainer's callback reads the variable when it is constructed.
    """
    name = "TENSORBOARD_LOGGING_DIR"
    given = os.environ.get(name)
    os.environ[name] = given or str(checkpoints.with_suffix(".tensorboard"))
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def all_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the checkpoints that there are, the oldest first."""
    return sorted(checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[-1]))


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest complete checkpoint, and remove newer ones that a kill left incomplete."""
    for path in reversed(all_checkpoints(checkpoints)):
        try:
            json.loads((path / "trainer_state.json").read_bytes())  # the last file that the Trainer writes
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)  # another process of this training may do so too
    return None


class _Trainer(Trainer):
    """transformers' Trainer with our loss, and an order of the examples that a resumed training repeats."""

    def __init__(self, schema: LabelSchema, weights: Tensor | None, config: TrainConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._task, self._weights, self._training = schema.task, weights, config.training
        self._reduction = {"windows_mean": "mean", "windows_max": "max"}.get(config.text.long)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the loss of a batch, with its logits if they are asked for."""
        logits = model(inputs["input_ids"], inputs["attention_mask"]).float()
        if self._reduction:  # each text has several rows
            logits = torch.segment_reduce(logits, self._reduction, lengths=inputs["parts"], unsafe=True)
        weights = self._weights.to(logits.device) if self._weights is not None else None
        value = objective.loss(logits, inputs["labels"], self._task, weights, self._training.label_smoothing)
        return (value, {"logits": logits}) if return_outputs else value

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        examples = cast(TokenFile, self.train_dataset if train_dataset is None else train_dataset)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _ByLength(self._training.seed, batch, lengths=examples.lengths.tolist())

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler[int]:
        return _LongestFirst(eval_dataset.lengths.tolist())


def tokens_of_updates(train: TokenFile, training: TrainingConfig, devices: int = 1) -> NDArray[np.int64]:
    """Return the tokens of each update of the first epoch, with padding, of all devices of this process together."""
    size = training.batch_size * devices
    order = list(_ByLength(training.seed, size * training.gradient_accumulation, train.lengths.tolist()))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    padded = np.array([train.parts[batch].sum() * train.longest[batch].max() for batch in batches])
    return np.add.reduceat(padded, np.arange(0, len(padded), training.gradient_accumulation))


class _LongestFirst(torch.utils.data.Sampler[int]):
    """Puts texts of similar length together for an evaluation, whose order does not matter."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._order = sorted(range(len(lengths)), key=lambda place: -lengths[place])

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _ByLength(LengthGroupedSampler):
    """Puts texts of similar length together, in an order that depends on seed and epoch alone."""

    def __init__(self, seed: int, batch_size: int, lengths: list[int]) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Seed the order of an epoch. The Trainer calls this before each epoch."""
        self.generator = torch.Generator().manual_seed(self._seed * 1000 + epoch)


def _arguments(training: TrainingConfig, max_tokens: int, checkpoints: Path) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    other = is_torch_xpu_available() or is_torch_xla_available()  # the Trainer takes such a device by itself
    device: Literal["cuda", "cpu"] = "cuda" if cuda else "cpu"
    bf16 = hardware.has_bf16(device) and not other  # which a processor's instructions say nothing of
    precision = hardware.floats(training.precision, "training.precision", device, bf16=bf16)
    strategy = "steps" if training.evaluate_every else "epoch"
    return TrainingArguments(
        output_dir=str(checkpoints),
        run_name=checkpoints.stem,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=max(measurement.BATCH_TOKENS // max_tokens, 1),
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_ratio,
        max_grad_norm=training.max_grad_norm,
        train_sampling_strategy="group_by_length",
        seed=training.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=precision == "bf16" and not cuda and not other,  # without it, transformers refuses bf16 on a CPU
        eval_strategy=strategy,
        eval_steps=training.evaluate_every,
        save_strategy=strategy,
        save_steps=training.evaluate_every or 1,
        save_total_limit=None if training.keep_epochs else 2,
        load_best_model_at_end=True,
        metric_for_best_model=training.metric,
        greater_is_better=training.metric != "loss",
        restore_callback_states_from_checkpoint=True,
        logging_steps=LOGGED,
        logging_nan_inf_filter=False,  # the filter would hide a loss that is not finite
        disable_tqdm=False,
        report_to=list(training.report_to) or "none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=cuda,
    )


def _early_stopping(training: TrainingConfig) -> list[TrainerCallback]:
    return [EarlyStoppingCallback(training.early_stopping)] if training.early_stopping else []


def _label_weights(examples: Examples, schema: LabelSchema, training: TrainingConfig) -> Tensor | None:
    given = training.class_weights
    if isinstance(given, dict):
        unknown = sorted(set(given) - set(schema.names))
        if unknown:
            raise UserError(f"training.class_weights: expected labels among {list(schema.names)}, found {unknown}.")
        return objective.as_tensor([given.get(name, 1.0) for name in schema.names])
    return objective.label_weights(objective.as_tensor(examples.targets), schema.task) if given else None


def _optimizer(network: nn.Module, training: TrainingConfig, *, fused: bool) -> torch.optim.Optimizer:
    """Return AdamW with a learning rate for the head, and no decay of biases and normalisation weights."""
    encoder = {id(parameter) for parameter in networks.encoder(network).parameters()}
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
        ],
        fused=fused,
    )


def _collate(batch: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    parts = [{"input_ids": ids.tolist()} for row in batch for ids in row["parts"]]
    padded = tokenizer.pad(parts, return_tensors="pt")
    return {
        "input_ids": padded["input_ids"],
        "attention_mask": padded["attention_mask"],
        "labels": objective.as_tensor(np.stack([row["labels"] for row in batch])),
        "parts": torch.tensor([len(row["parts"]) for row in batch]),
    }


def _measure(prediction: EvalPrediction, schema: LabelSchema, config: DecisionConfig) -> dict[str, float]:
    """Return the metrics that an evaluation logs, at the thresholds that suit its own scores."""
    targets = prediction.label_ids
    probs = probabilities(np.nan_to_num(prediction.predictions), schema.task)
    chosen = calibrate.choose_thresholds(probs, targets, schema, config)
    values = metrics.measure(probs, targets, schema, Decision(thresholds=chosen))
    precision = metrics.ranking(probs, targets, schema)["average_precision"]
    names = ["macro_f1", "micro_f1", "weighted_f1", "accuracy"]
    names += {Task.BINARY: ["f1"], Task.MULTI_CLASS: [], Task.MULTI_LABEL: ["samples_f1"]}[schema.task]
    return {name: values[name] for name in names} | {"average_precision": precision or 0.0}

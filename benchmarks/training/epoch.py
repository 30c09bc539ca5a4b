"""Times an epoch of labelbeam's training beside the Trainer as it comes; writes results/epoch.json.

    python -m benchmarks.training.epoch --data_dir DATA --documents 1600

All train the same network, from the same weights, on the same papers for one epoch, with the same batch size and
schedule. The Trainer as it comes has another order of the papers, another precision, one rate for encoder and head, and
attention dropout. `loss` is that of the validation papers, in fp32 and without dropout.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks import environment
from models import hardware
from training import base_model, data_splits, fit, measurement, objective, terminal
from training.base_model import Network
from training.config import TrainConfig
from training.config_file import load_config
from training.data_splits import Prepared
from training.token_file import TokenFile

RESULT = Path(__file__).parent / "results" / "epoch.json"
CONFIG = environment.ROOT / "training" / "configs" / "arxiv_subjects.toml"


Train = Callable[[Network, Prepared, TrainConfig], None]


class _Plain(Trainer):
    """The Trainer as it comes, with a loss for several labels."""

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Return the loss of a batch."""
        logits = model(inputs["input_ids"], inputs["attention_mask"]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, inputs["labels"])
        return (loss, {"logits": logits}) if return_outputs else loss


def main() -> None:
    """Take turns between the contestants, so that a machine whose speed drifts favours none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=1_600)
    parser.add_argument("--rounds", type=int, default=2)
    flags = parser.parse_args()
    terminal.quiet_libraries()
    overrides = ("training.epochs=1", f"training.max_train_samples={flags.documents}", "training.max_eval_samples=800")
    config = load_config(CONFIG, overrides)
    prepared = data_splits.limited(data_splits.prepare(config, flags.data_dir), config)
    result: dict[str, Any] = {
        **environment.describe(),
        "documents": flags.documents,
        "rounds": flags.rounds,
        "rows": {},
    }
    for _ in range(flags.rounds):
        for name, (train, dropout) in CONTESTANTS.items():
            training = config.training.model_copy(update={"attention_dropout": dropout})
            row = _timed(train, prepared, config.model_copy(update={"training": training}))
            result["rows"].setdefault(name, []).append(row)
            print(name, json.dumps(row), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _timed(train: Train, prepared: Prepared, config: TrainConfig) -> dict[str, float]:
    torch.manual_seed(0)
    network = base_model.start(config, prepared.schema)
    tokens = int(TokenFile(prepared.splits.train, network.tokenizer, config.text).lengths.sum())
    began = time.monotonic()
    train(network, prepared, config)
    seconds = time.monotonic() - began
    held_out = prepared.splits.validation
    logits = measurement.score(network.module, network.tokenizer, held_out.texts, config.text)
    loss = objective.loss(
        objective.as_tensor(logits), objective.as_tensor(held_out.targets), prepared.schema.task, None, 0.0
    )
    return {"seconds": round(seconds, 1), "tokens_per_second": round(tokens / seconds), "loss": round(float(loss), 4)}


def _ours(network: Network, prepared: Prepared, config: TrainConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fit.fit(network, prepared, config, Path(folder))


def _trainer(network: Network, prepared: Prepared, config: TrainConfig, *, bf16: bool) -> None:
    training = config.training
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=training.epochs,
            per_device_train_batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup_ratio,
            lr_scheduler_type=training.scheduler,
            seed=training.seed,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            eval_strategy="epoch",
            save_strategy="epoch",
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=False,
        )
        _Plain(
            model=network.module,
            args=arguments,
            train_dataset=TokenFile(prepared.splits.train, network.tokenizer, config.text),
            eval_dataset=TokenFile(prepared.splits.validation, network.tokenizer, config.text),
            data_collator=lambda batch: fit._collate(batch, network.tokenizer),
        ).train()


# The function that trains each contestant, and its attention dropout. None keeps the dropout of the encoder.
CONTESTANTS: dict[str, tuple[Train, float | None]] = {
    "labelbeam": (_ours, 0.0),
    "labelbeam, own dropout": (_ours, None),
    "Trainer": (partial(_trainer, bf16=False), None),
}
if hardware.has_bf16("cuda" if torch.cuda.is_available() else "cpu"):
    CONTESTANTS["Trainer, bf16"] = (partial(_trainer, bf16=True), None)


if __name__ == "__main__":
    main()

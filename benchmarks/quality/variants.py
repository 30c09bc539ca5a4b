"""Trains a configuration with other settings and losses, with several seeds each; writes results/variants_NAME.json.

    python -m benchmarks.quality.variants tweets_irony --data_dir DATA --seeds 5
    python -m benchmarks.quality.variants goemotions --data_dir DATA --seeds 2 --only base focal

All models of a seed have the same data and start, so that a variant is compared with `base` seed by seed. The losses
and the learning rates by layer are tried here alone. What helps belongs into the product.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import environment
from models import network as networks
from models import trained_model
from models.labels import Task
from training import fit, objective, terminal, train
from training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results"
CONFIGS = environment.ROOT / "training" / "configs"
FOCUS = 2.0  # gamma of the focal loss, as in its paper
EASY_NEGATIVES, MARGIN = 4.0, 0.05  # gamma of negatives, and the probability below which they count nothing
LAYER_DECAY = 0.9  # learning rate of a layer, as a share of that of the layer above


def main() -> None:
    """Train every variant with every seed, in turn, and write what is known after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in CONFIGS.glob("*.toml")))
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("build/variants"), help="where the models go, and stay")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--set", nargs="+", default=[], help="settings of all variants, such as labels.names_file=...")
    flags = parser.parse_args()
    terminal.quiet_libraries()
    where = environment.describe()
    for seed in range(flags.seeds):
        for name in flags.only:
            _train(name, seed, flags)
        rows = {name: _row(name, seed + 1, flags) for name in flags.only}
        for name, row in rows.items():
            print(name, json.dumps(row), flush=True)
        result = {"name": flags.name, **where, "seeds": seed + 1, "variants": rows}
        (RESULTS / f"variants_{flags.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _folder(name: str, seed: int, flags: argparse.Namespace) -> Path:
    return Path(flags.models / flags.name / name / str(seed))


def _train(name: str, seed: int, flags: argparse.Namespace) -> None:
    """Train one model, unless it is there already."""
    settings, patch = VARIANTS[name]
    command = [CONFIGS / f"{flags.name}.toml", "--data_dir", flags.data_dir, "--output", _folder(name, seed, flags)]
    given = ["--set", "data.seed=0", f"training.seed={seed}", *flags.set, *settings, "--resume"]
    with patch():
        if train.main(list(map(str, [*command, *given]))):
            sys.exit(2)


def _row(name: str, seeds: int, flags: argparse.Namespace) -> dict[str, Any]:
    """Return macro-F1 on test with thresholds and at 0.5, and the difference to `base`, with a 95 % interval by t."""
    of_seeds = [trained_model.read_manifest(_folder(name, seed, flags)) for seed in range(seeds)]
    found = [manifest.metrics["test"] for manifest in of_seeds]
    row: dict[str, Any] = {
        "macro_f1": [round(one["macro_f1"], 4) for one in found],
        "at_half": [round(one["at_half"]["macro_f1"], 4) for one in found],
        "average_precision": [round(one["average_precision"], 4) for one in found],
        "seconds": [manifest.training["seconds"] for manifest in of_seeds],
    }
    base = [trained_model.read_manifest(_folder("base", seed, flags)).metrics["test"] for seed in range(seeds)]
    return row | {"gain": _gain([a["macro_f1"] - b["macro_f1"] for a, b in zip(found, base, strict=True)])}


def _gain(differences: Sequence[float]) -> dict[str, float]:
    from scipy.stats import t

    values = np.array(differences)
    if len(values) < 2:
        return {"mean": round(float(values.mean()), 4)}
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def _focal(
    logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the focal loss (Lin et al., Focal Loss for Dense Object Detection, 2017)."""
    del weights, label_smoothing
    if task is Task.MULTI_LABEL:
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        losses = functional.cross_entropy(logits, targets, reduction="none")
    return ((1 - torch.exp(-losses)) ** FOCUS * losses).mean()


def _asymmetric(
    logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the asymmetric loss (Ridnik et al., Asymmetric Loss for Multi-Label Classification, 2021)."""
    del weights, label_smoothing
    if task is not Task.MULTI_LABEL:
        logits, targets = logits[:, 1:] - logits[:, :1], targets[:, 1:]
    shifted = (logits.sigmoid() - MARGIN).clamp(min=0)
    negatives = -(shifted**EASY_NEGATIVES) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return (-targets * functional.logsigmoid(logits) + (1 - targets) * negatives).mean()


def _slower_below(network: nn.Module, training: TrainingConfig, *, fused: bool) -> torch.optim.Optimizer:
    """Return AdamW whose learning rate falls from layer to layer, towards the embeddings."""
    encoder = networks.encoder(network)
    depth = encoder.config.num_hidden_layers
    head_rate = training.head_learning_rate or training.learning_rate
    inside = {id(parameter) for parameter in encoder.parameters()}
    groups = []
    for name, parameter in network.named_parameters():
        digits = [int(part) for part in name.split(".") if part.isdigit()]
        above = depth - 1 - digits[0] if digits else depth
        rate = training.learning_rate * LAYER_DECAY**above if id(parameter) in inside else head_rate
        decay = training.weight_decay if parameter.ndim >= 2 else 0.0
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=fused)


@contextlib.contextmanager
def _with(target: object, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    with mock.patch.object(target, name, replacement):
        yield


Patch = Callable[[], contextlib.AbstractContextManager[Any]]
VARIANTS: dict[str, tuple[tuple[str, ...], Patch]] = {
    "base": ((), contextlib.nullcontext),
    "class weights": (("training.class_weights=true",), contextlib.nullcontext),
    "label smoothing 0.1": (("training.label_smoothing=0.1",), contextlib.nullcontext),
    "focal": ((), lambda: _with(objective, "loss", _focal)),
    "asymmetric": ((), lambda: _with(objective, "loss", _asymmetric)),
    "layer decay 0.9": ((), lambda: _with(fit, "_optimizer", _slower_below)),
}


if __name__ == "__main__":
    main()

"""Experiment trackers: checks that they are installed, and tells Weights & Biases what a finished model is."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers.integrations import get_available_reporting_integrations

from models.errors import UserError
from models.trained_model import Manifest
from training.config import TrainingConfig
from training.output_folder import not_essential


def check(training: TrainingConfig) -> None:
    """Check that the trackers of the configuration are installed.

    Raises:
        UserError: names those that are not.
    """
    missing = sorted(set(training.report_to) - set(get_available_reporting_integrations()))
    if missing:
        raise UserError(
            f"training.report_to: expected installed trackers, found no {', '.join(missing)}; install it with pip, "
            "or remove it from the list."
        )


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of Weights & Biases, such as a missing login, into one sentence.

    Raises:
        UserError: says what W&B said.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("wandb"):
            raise
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"training.report_to: W&B cannot begin a run ({said}); log in with `wandb login`, set WANDB_MODE=offline, "
            "or remove wandb from the list."
        ) from None


def finish(training: TrainingConfig, manifest: Manifest | None = None) -> None:
    """End the run of Weights & Biases, so that the next model of this process has a run of its own.

    The run gets the base model, the data and the metrics of each split, if there is a model.
    """
    if "wandb" not in training.report_to:
        return
    with not_essential("the W&B run", "the model and its metrics are safe", step="finished"):
        wandb: Any = sys.modules.get("wandb")  # which the Trainer imported
        if wandb and wandb.run is not None:
            if manifest:
                wandb.run.config.update(_described(manifest), allow_val_change=True)
                wandb.run.summary.update(dict(_flat(manifest.metrics)))
            wandb.finish()


def _described(manifest: Manifest) -> dict[str, Any]:
    training = manifest.training
    return {
        "base_model": manifest.base_model,
        "labels": list(manifest.labels.names),
        "data": training["config"]["data"],
        "documents": {name: split["documents"] for name, split in training["card"]["splits"].items()},
        "data_sha256": training["data_sha256"],
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested metrics, with names such as test/labels/AI/f1."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value

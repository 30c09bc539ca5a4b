"""What the checks of a model look at: its manifest, and its measurements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.trained_model import Manifest
from training.config import DecisionConfig
from training.measurement import Measurement

Found = tuple[str, list[str]]  # what a check found: a sentence in which {labels} stands for the labels, and these


@dataclass(frozen=True)
class Evidence:
    """A model and its measurements, of which the last one is reported. That is test if there is one."""

    manifest: Manifest
    measurements: Sequence[Measurement]

    @property
    def main(self) -> Measurement:
        """The measurement that is reported."""
        return self.measurements[-1]

    @property
    def validation(self) -> Measurement | None:
        """The measurement of what the decision was fitted to, if it is here."""
        return next((one for one in self.measurements if one.split == "validation"), None)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the training; empty if the model was imported."""
        return dict(self.manifest.training.get("config", {}))

    @property
    def history(self) -> list[dict[str, Any]]:
        """The evaluations during the training, in order."""
        return [entry for entry in self.manifest.training.get("history", []) if "eval_loss" in entry]

    @property
    def learnt(self) -> dict[str, int]:
        """The documents of each label that were trained on; empty if the model was imported."""
        return dict(self.manifest.training.get("label_counts", {}))

    @property
    def of_training(self) -> bool:
        """Whether the measurements are of splits of the training, of which its data card tells."""
        known = {values.get("data_sha256") for values in self.manifest.metrics.values()}
        refitted = "refitted" in self.manifest.training
        return not refitted and {one.metrics["data_sha256"] for one in self.measurements} <= known

    @property
    def decision_config(self) -> DecisionConfig:
        """What the decision was fitted for."""
        refitted = self.manifest.training.get("refitted", {}).get("config")
        return DecisionConfig.model_validate(refitted or self.config.get("decision", {}))

    @cached_property
    def support(self) -> dict[str, int]:
        """The documents of each label in the main measurement."""
        return {name: values["support"] for name, values in self.main.metrics["labels"].items()}

    def duplicates(self, *splits: str) -> int:
        """Return the data card's number of exact and near duplicates between splits, such as `train-test`.

        It is 0 if other splits were measured than those of the card.
        """
        if not self.of_training:
            return 0
        return sum(count for kind, where, count in self._pairs() if kind != "conflict" and where in splits)

    @property
    def conflicts(self) -> int:
        """The data card's number of texts with contrary labels."""
        return sum(count for kind, _, count in self._pairs() if kind == "conflict")

    def _pairs(self) -> Iterator[tuple[str, str, int]]:
        counts: dict[str, int] = self.manifest.training.get("card", {}).get("duplicates", {})
        for name, count in counts.items():
            kind, _, where = name.partition(" ")
            yield kind, where, count

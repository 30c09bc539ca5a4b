"""What is said of a model and its measurements: its numbers, what checks find, and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from models.trained_model import Manifest
from training import checks, wrong_decisions
from training.checks import Checked
from training.examples import Examples
from training.measurement import Measurement
from training.output_folder import not_essential
from training.wrong_decisions import WrongDecision


@dataclass(frozen=True)
class Explanation:
    """A model and its measurements, of which the last one is reported in full. That is test if there is one."""

    manifest: Manifest
    measurements: Sequence[Measurement]
    sources: Mapping[str, str] = field(default_factory=dict)  # full paths of the data of each split
    train: Examples | None = None  # the training documents, if they are at hand
    again: str = "the model is safe"  # how what failed is made again, as the end of a sentence

    @property
    def main(self) -> Measurement:
        """The measurement that is reported."""
        return self.measurements[-1]

    @cached_property
    def checked(self) -> Checked:
        """What the checks have found."""
        return checks.run(self.manifest, self.measurements)

    @cached_property
    def wrong(self) -> dict[str, list[WrongDecision]]:
        """The errors that are worth reading, by label."""
        with not_essential("the errors of the model", self.again, step="listed"):
            return wrong_decisions.find(self.main, self.train)
        return {}

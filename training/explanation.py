"""Explains a model's numbers by CSV tables, report.json and report.html. Whatever fails here costs no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from models.trained_model import Manifest
from training import checks, label_tables, report
from training.checks import Finding
from training.measurement import Measurement
from training.output_folder import not_essential


@dataclass(frozen=True)
class Explanation:
    """What is said of a model and its measurements, of which the last one is reported in full."""

    manifest: Manifest
    measurements: Sequence[Measurement]
    sources: Mapping[str, str]  # full paths of the data of each split
    again: str  # how a file that could not be written is made again, as the end of a sentence

    @cached_property
    def findings(self) -> list[Finding]:
        """What the checks find."""
        with not_essential("the checks of the model", self.again, step="run"):
            return checks.run(self.manifest, self.measurements)
        return []

    def write(self, directory: Path, tables: Path) -> None:
        """Write report.html into a folder, and the tables and report.json into another one."""
        for one in self.measurements:
            with not_essential(f"a table of {one.split} in {tables}", self.again):
                run_id = self.manifest.training.get("run_id", "")
                label_tables.write(one, self.manifest.decision, tables, self.sources[one.split], run_id)
        with not_essential(tables / checks.FILE, self.again):
            checks.write(tables, self.manifest, self.measurements, self.findings)
        with not_essential(directory / report.FILE, self.again):
            report.write(directory, self.measurements, self.manifest, self.findings)

    def show(self) -> None:
        """Print the table of the last measurement, and the errors and warnings of the checks."""
        with not_essential("the table of results", self.again, step="printed"):
            label_tables.show(self.measurements[-1])
            checks.show(self.findings)

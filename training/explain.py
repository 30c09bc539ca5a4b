"""Writes what explains a model: CSV tables, report.json and report.html. Whatever fails here costs no model."""

from pathlib import Path

from training import checks, label_tables, report
from training.explanation import Explanation
from training.output_folder import not_essential


def write(explanation: Explanation, directory: Path, tables: Path) -> None:
    """Write report.html into a folder, and the tables and report.json into another one."""
    manifest, again = explanation.manifest, explanation.again
    for one in explanation.measurements:
        with not_essential(f"a table of {one.split} in {tables}", again):
            run_id = manifest.training.get("run_id", "")
            label_tables.write(one, manifest.decision, tables, explanation.sources[one.split], run_id)
    with not_essential(tables / checks.FILE, again):
        checks.write(tables, manifest, explanation.measurements, explanation.checked)
    with not_essential(directory / report.FILE, again):
        report.write(directory, explanation)


def show(explanation: Explanation) -> None:
    """Print the table of the main measurement, and the errors and warnings of the checks."""
    with not_essential("the table of results", explanation.again, step="printed"):
        label_tables.show(explanation.main)
        checks.show(explanation.checked.findings)

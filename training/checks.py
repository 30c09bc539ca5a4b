"""Runs the checks of a model and its data, and writes evaluation/report.json.

The file is for programs. Its `version` changes when a key changes its meaning or goes. `splits` holds the metrics, as
model.json does, `labels` those of each label in the reported split, `checks` what was found, and `checked` the codes of
all checks that have run.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from models.decision import calibration_of, thresholds_of
from models.names import for_terminal
from models.trained_model import Manifest
from training import data_checks, model_checks
from training.evidence import Evidence, Found
from training.measurement import Measurement
from training.output_folder import not_essential

FILE = "report.json"
VERSION = 1
PAGE = "docs/reference/checks.md"
MOST_NAMED = 5  # labels that a sentence names

Severity = Literal["error", "warning", "notice"]
Check = Callable[[Evidence], Iterable[Found]]
CHECKS: dict[Severity, tuple[Check, ...]] = {
    "error": (data_checks.leak, model_checks.no_better_than_chance),
    "warning": (
        data_checks.held_out_overlap,
        data_checks.contrary_labels,
        data_checks.none_to_measure,
        data_checks.few_to_learn,
        data_checks.small_split,
        data_checks.share_drift,
        data_checks.same_label,
        model_checks.never_predicted,
        model_checks.biased_count,
        model_checks.threshold_does_not_hold,
        model_checks.bound_missed,
        model_checks.miscalibrated,
        model_checks.calibration_at_bound,
        model_checks.falls_on_test,
    ),
    "notice": (
        data_checks.repeated_documents,
        data_checks.few_to_decide,
        data_checks.few_to_measure,
        data_checks.mostly_unknown,
        model_checks.threshold_at_edge,
        model_checks.overfitted,
        model_checks.still_learning,
    ),
}


@dataclass(frozen=True)
class Finding:
    """What a check has found."""

    code: str
    severity: Severity
    sentence: str
    labels: list[str]
    link: str  # of the section of the documentation that says what to do


@dataclass(frozen=True)
class Checked:
    """What the checks have found, and which of them have run."""

    findings: list[Finding]  # errors first
    codes: list[str]  # of the checks that did not fail


def run(manifest: Manifest, measurements: Sequence[Measurement]) -> Checked:
    """Return what the checks find. A check that fails is said to, and costs no other."""
    evidence = Evidence(manifest, measurements)
    checked = Checked([], [])
    for severity, checks in CHECKS.items():
        for check in checks:
            code = check.__name__
            with not_essential(f"the check {code}", "nothing else depends on it", step="run"):
                found = list(check(evidence))
                checked.findings.extend(
                    Finding(code, severity, sentence.replace("{labels}", _named(labels)), labels, f"{PAGE}#{code}")
                    for sentence, labels in found
                )
                checked.codes.append(code)
    return checked


def _named(labels: Sequence[str]) -> str:
    names = ", ".join(labels[:MOST_NAMED])
    return names if len(labels) <= MOST_NAMED else f"{names} and {len(labels) - MOST_NAMED:,} more"


def show(findings: Sequence[Finding]) -> None:
    """Print errors and warnings."""
    for finding in findings:
        if finding.severity != "notice":
            print(for_terminal(f"{finding.severity}: {finding.sentence} ({finding.code})."))


def write(directory: Path, manifest: Manifest, measurements: Sequence[Measurement], checked: Checked) -> None:
    """Write report.json into a folder."""
    main = measurements[-1]
    content = {
        "version": VERSION,
        "run_id": manifest.training.get("run_id"),
        "task": manifest.labels.task.value,
        "reported": main.split,
        "labels": _by_label(main, manifest),
        "splits": {one.split: one.metrics for one in measurements},
        "checks": [asdict(finding) for finding in checked.findings],
        "checked": checked.codes,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _by_label(main: Measurement, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return each label's metrics, intervals, threshold, temperature and bias."""
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    calibration = calibration_of(manifest.labels, manifest.decision)
    return {
        name: {
            **values,
            "intervals": main.metrics["intervals"]["labels"][name],
            "threshold": thresholds.get(name),
            "temperature": calibration[name][0],
            "bias": calibration[name][1],
        }
        for name, values in main.metrics["labels"].items()
    }

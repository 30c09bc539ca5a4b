"""Runs the checks of a model and its data, and writes evaluation/report.json.

The file is for programs. Its `version` changes when a key changes its meaning or goes. `splits` holds the metrics, as
model.json does, `labels` those of each label in the reported split, `checks` what was found, and `checked` all codes.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from models.decision import calibration_of, thresholds_of
from models.trained_model import Manifest
from training import data_checks, model_checks
from training.evidence import Evidence, Found
from training.measurement import Measurement

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


def run(manifest: Manifest, measurements: Sequence[Measurement]) -> list[Finding]:
    """Return what the checks find, errors first."""
    evidence = Evidence(manifest, measurements)
    return [
        Finding(
            check.__name__, severity, sentence.replace("{labels}", _named(labels)), labels, f"{PAGE}#{check.__name__}"
        )
        for severity, checks in CHECKS.items()
        for check in checks
        for sentence, labels in check(evidence)
    ]


def _named(labels: Sequence[str]) -> str:
    names = ", ".join(labels[:MOST_NAMED])
    return names if len(labels) <= MOST_NAMED else f"{names} and {len(labels) - MOST_NAMED:,} more"


def show(findings: Sequence[Finding]) -> None:
    """Print errors and warnings."""
    for finding in findings:
        if finding.severity != "notice":
            print(f"{finding.severity}: {finding.sentence} ({finding.code}).")


def write(
    directory: Path, manifest: Manifest, measurements: Sequence[Measurement], findings: Sequence[Finding]
) -> None:
    """Write report.json into a folder."""
    main = measurements[-1]
    content = {
        "version": VERSION,
        "run_id": manifest.training.get("run_id"),
        "task": manifest.labels.task.value,
        "reported": main.split,
        "labels": _by_label(main, manifest),
        "splits": {one.split: one.metrics for one in measurements},
        "checks": [asdict(finding) for finding in findings],
        "checked": [check.__name__ for checks in CHECKS.values() for check in checks],
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

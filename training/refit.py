"""Fits the decision of a trained model to other labelled files, and writes it with the metrics that belong to it."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from models import trained_model, weights
from models.decision import Decision, Floats
from models.errors import UserError
from models.trained_model import Manifest
from training import calibrate, explain, label_tables, measured_files, measurement, model_card, tables
from training.config import TrainConfig
from training.examples import Examples
from training.explanation import Explanation
from training.measurement import Measurement
from training.output_folder import not_essential

AGAIN = "the model is safe, and the same command writes it again"


def refit(directory: Path, config: TrainConfig, test: TrainConfig | None) -> None:
    """Fit the decision to the files of `config`, measure it there and on those of `test`, and write it.

    Raises:
        UserError: the model or a file cannot be used, there are no labelled rows, or the model was trained on them.
    """
    model = weights.load(directory)
    splits = {"validation": config} | ({"test": test} if test else {})
    examples: dict[str, Examples] = {}
    logits: dict[str, Floats] = {}
    for name, of in splits.items():
        flag = "--data" if of is config else "--test"
        examples[name], logits[name] = measured_files.scored(model, of, flag)
        _check_unseen(examples[name], model.manifest, f"{flag} {of.data.train[0]}")
    labels = model.manifest.labels
    decision = calibrate.fit(logits["validation"], examples["validation"].targets, labels, config.decision)
    measured = [
        measurement.measure_split(name, part, logits[name], labels, decision) for name, part in examples.items()
    ]
    manifest = _manifest(model.manifest, config, decision, measured)
    trained_model.write_manifest(directory, manifest)
    if any((directory / "runtimes").glob("int8-*")):
        print("notice: the int8 variant was proved with the former decision; prove it again with labelbeam optimize.")
    sources = {name: tables.source(of, "train", Path()) for name, of in splits.items()}
    _explain(directory, Explanation(manifest, measured, sources, again=AGAIN))
    _compare(model.manifest, measured[-1], logits[measured[-1].split])
    print(f"decision, metrics and report: {directory}")


def _check_unseen(examples: Examples, manifest: Manifest, source: str) -> None:
    """Refuse the training split as a whole. A part of it, or the file before duplicates were dropped, is not known."""
    if examples.sha256() == manifest.training.get("data_sha256"):
        raise UserError(
            f"{source}: expected documents that the model has not seen, found those that it was "
            "trained on, whose scores are too good to fit a decision to; give others."
        )


def _manifest(former: Manifest, config: TrainConfig, decision: Decision, measured: list[Measurement]) -> Manifest:
    """Return the manifest with the new decision and its metrics alone; the former ones hold no longer."""
    refitted = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": tables.source(config, "train", Path()),
        "config": config.decision.model_dump(mode="json"),
        "former": former.decision.model_dump(mode="json"),
    }
    update = {
        "decision": decision,
        "metrics": {one.split: one.metrics for one in measured},
        "training": {**former.training, "refitted": refitted},
    }
    return former.model_copy(update=update)


def _compare(former: Manifest, measured: Measurement, logits: Floats) -> None:
    """Print macro-F1 with the former decision and with the new one, on the same documents."""
    before = measurement.measure_split(
        measured.split, measured.examples, logits, former.labels, former.decision
    ).metrics["macro_f1"]
    print(f"macro-F1 {before:.3f} with the former decision, {measured.metrics['macro_f1']:.3f} with the new one")


def _explain(directory: Path, explanation: Explanation) -> None:
    """Write tables, report and model card in place of those of the former decision, and print the metrics."""
    folder = directory / label_tables.FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    explain.write(explanation, directory, folder)
    with not_essential(directory / model_card.FILE, AGAIN):
        model_card.write(directory, explanation.manifest)
    explain.show(explanation)

"""Measures a trained model on labelled files, and writes its metrics, tables and report."""

import json
from pathlib import Path

import torch

from models import weights
from models.decision import Floats
from models.errors import UserError
from models.trained_model import Manifest
from models.weights import TrainedModel
from training import data, label_tables, report, tables
from training.config import TrainConfig
from training.examples import Examples
from training.measurement import Measurement, measure_split, score
from training.output_folder import not_essential

AGAIN = "the metrics are safe, and the same command writes it again"


def measure(directory: Path, config: TrainConfig, output: Path | None) -> None:
    """Measure the model in a directory on the training files of the configuration. Print the metrics.

    They are also written to `output`, if there is one.

    Raises:
        UserError: the model or a file cannot be used, or there are no labelled rows.
    """
    model = weights.load(directory)
    examples, logits = scored(model, config, "--data")
    measurement = measure_split("test", examples, logits, model.manifest.labels, model.manifest.decision)
    with not_essential("the table of results", "--output writes the numbers to a folder", step="printed"):
        label_tables.show(measurement)
    if output:
        write(measurement, model.manifest, output, tables.source(config, "train", Path()))


def scored(model: TrainedModel, config: TrainConfig, flag: str) -> tuple[Examples, Floats]:
    """Return the labelled examples in the training files of the configuration, and their logits (documents, labels).

    Raises:
        UserError: a file cannot be used, or there are no labelled rows in the files, which the flag named.
    """
    examples = data.read(config, "train", Path(), model.manifest.labels)
    if examples is None or not len(examples):
        raise UserError(
            f"{flag} {config.data.train[0]}: expected labelled rows, found none; check the file and the columns."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return examples, score(model.network.to(device), model.tokenizer, examples.texts, model.manifest.text)


def write(measurement: Measurement, manifest: Manifest, output: Path, data_path: str) -> None:
    """Write metrics.json, the CSV tables and report.html into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(json.dumps(measurement.metrics, indent=2) + "\n", encoding="utf-8")
    with not_essential(f"a table in {output}", AGAIN):
        run_id = manifest.training.get("run_id", "")
        label_tables.write(measurement, manifest.decision, output, data_path, run_id)
    with not_essential(output / report.FILE, AGAIN):
        report.write(output, [measurement], manifest)
    print(f"metrics, report and tables: {output}")

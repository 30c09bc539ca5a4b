"""Measures a trained model on labelled files, and writes its metrics, tables and report."""

import json
from pathlib import Path

import torch

from models import names, weights
from models.decision import Floats
from models.errors import UserError
from models.weights import TrainedModel
from training import data, explain, subgroups, tables
from training.config import TrainConfig
from training.examples import Examples
from training.explanation import Explanation
from training.measurement import measure_split, score

AGAIN = "the model is as it was, and the same command with --output measures it again"


def measure(directory: Path, config: TrainConfig, output: Path | None) -> None:
    """Measure the model in a directory on the training files of the configuration. Print the metrics.

    They are also written to `output`, if there is one.

    Raises:
        UserError: the model or a file cannot be used, or there are no labelled rows.
    """
    model = weights.load(directory)
    examples, logits = scored(model, config, "--data")
    measurement = measure_split("test", examples, logits, model.manifest.labels, model.manifest.decision)
    sources = {"test": tables.source(config, "train", Path())}
    explanation = Explanation(model.manifest, [measurement], sources, again=AGAIN)
    explain.show(explanation)
    by = config.data.split_by
    compared = subgroups.compare(measurement) if by else []
    if by and not compared:
        print(f"--by {by}: too few documents, or no two values with {subgroups.FEWEST} documents each.")
    elif by:
        subgroups.show(compared, by)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "metrics.json").write_text(json.dumps(measurement.metrics, indent=2) + "\n", encoding="utf-8")
        explain.write(explanation, output, output)
        if by:
            subgroups.write(compared, output / f"by_{names.distinct([by], also='.-')[0]}.csv")
        print(f"metrics, report and tables: {output}")


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

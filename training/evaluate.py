"""Evaluates a trained model on labelled files.

python -m training.evaluate --model models/trained/demo --data data/demo/test.jsonl --output runs/demo_evaluation
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from models import weights
from models.errors import UserError, exit_code
from models.trained_model import Manifest
from training import command, data, report
from training.config import TrainConfig, parse_config
from training.evaluation import Evaluation, evaluate, score, show, write_tables


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates what the flags say. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _evaluate_files(argv))


def make_parser() -> command.Parser:
    """The parser of `training.evaluate`."""
    parser = command.Parser("training.evaluate", __doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a trained model")
    parser.add_argument("--data", action="append", required=True, metavar="FILE", help="labelled files; may repeat")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write metrics.json, report.html and CSV tables here"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="how the file names its labels, where it is not as in training: labels.column=sdg, labels.delimiter=;",
    )
    return parser


def _evaluate_files(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse_args(argv)
    model = weights.load(flags.model)
    config = _config(model.manifest, flags.data, flags.set)
    examples = data.read(config, "train", Path(), model.manifest.labels)
    if examples is None or not len(examples):
        raise UserError(f"--data {flags.data[0]}: expected labelled rows, found none; check the file and the columns.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits = score(model.network.to(device), model.tokenizer, examples.texts, model.manifest.text.max_tokens)
    evaluation = evaluate("test", examples, logits, model.manifest.labels, model.manifest.decision)
    show(evaluation)
    if flags.output:
        write(evaluation, model.manifest, flags.output, ", ".join(flags.data))


def write(evaluation: Evaluation, manifest: Manifest, output: Path, data_path: str) -> None:
    """Writes metrics.json, report.html and the CSV tables into a directory."""
    write_tables(evaluation, manifest.decision, output, data_path, manifest.training.get("run_id", ""))
    (output / "metrics.json").write_text(json.dumps(evaluation.metrics, indent=2) + "\n", encoding="utf-8")
    report.write(output, [evaluation], manifest)
    print(f"metrics, report and tables: {output}")


def _config(manifest: Manifest, files: Sequence[str], overrides: Sequence[str]) -> TrainConfig:
    """How to read the files: as the model's own training read its labels, or by names in a column `label`."""
    labels = dict(manifest.training.get("config", {}).get("labels", {}))
    labels = {key: value for key, value in labels.items() if value and key not in ("names_file", "task")}
    if "groups" not in labels and "columns" not in labels:
        labels["names"] = list(manifest.labels.names)
    content = {
        "data": {"train": list(files)},
        "labels": {"task": manifest.labels.task.value, **labels},
        "text": manifest.text.model_dump(),
        "model": {"base": "none"},
    }
    return parse_config(content, overrides, source="--set")


if __name__ == "__main__":
    sys.exit(main())

"""Evaluate a trained model on labelled files.

python -m training.evaluate --model models/trained/demo --data data/demo/test.jsonl --output runs/demo_evaluation
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from models import trained_model
from models.arguments import Parser
from models.errors import exit_code
from models.trained_model import Manifest
from training import output_folder
from training.config import TrainConfig
from training.config_file import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a model on files. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.evaluate`."""
    parser = Parser("python -m training.evaluate", __doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="directory of the trained model")
    parser.add_argument("--data", action="append", required=True, metavar="FILE", help="labelled file; may be repeated")
    parser.add_argument(
        "--output", type=output_folder.folder, metavar="DIR", help="folder for metrics.json, report.html and CSV tables"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="value for a key in [labels] if the files differ from the training files, such as labels.column=sdg; "
        "may be repeated",
    )
    parser.add_argument(
        "--by", metavar="COLUMN", help="compare F1 between the values of a column, such as year or language"
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    config = config_of(trained_model.read_manifest(flags.model), flags.data, flags.set, flags.by)

    from training import measured_files, terminal

    terminal.quiet_libraries()
    measured_files.measure(flags.model, config, flags.output)


def config_of(manifest: Manifest, files: Sequence[str], overrides: Sequence[str], by: str | None = None) -> TrainConfig:
    """Return how to read the files: as the model's training did, or by label names in a column `label`.

    The decision's settings are those of the training too. The values of the column `by` become the examples' groups.

    Raises:
        UserError: has a line for each wrong key or value of an override.
    """
    labels = dict(manifest.training.get("config", {}).get("labels", {}))
    labels = {key: value for key, value in labels.items() if value and key not in ("names_file", "task")}
    if not {"groups", "columns", "names", "min_documents"} & labels.keys():
        labels["names"] = list(manifest.labels.names)
    content = {
        "data": {"train": list(files)} | ({"split_by": by} if by else {}),
        "labels": {"task": manifest.labels.task.value, **labels},
        "text": manifest.text.model_dump(),
        "model": {"base": "none"},
        "decision": manifest.training.get("config", {}).get("decision", {}),
    }
    return parse_config(content, overrides, source="--set")


if __name__ == "__main__":
    sys.exit(main())

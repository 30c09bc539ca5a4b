"""Say whether one trained model is better than another on the same test documents.

    python -m training.compare models/trained/before models/trained/after

The scores come from the tables in each model's directory (evaluation/), so neither texts nor weights are needed.
Differences of F1 have intervals and p-values of a paired bootstrap over documents, or over the groups of data.split_by.
Of the labels that are named better or worse, at most one in twenty is expected to be neither.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models import trained_model
from models.arguments import Parser
from models.errors import UserError, exit_code
from models.trained_model import Manifest
from training import label_tables, paired
from training.label_tables import Scores


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two models. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.compare`."""
    parser = Parser("python -m training.compare", __doc__)
    parser.add_argument("first", type=Path, metavar="A", help="directory of a trained model")
    parser.add_argument("second", type=Path, metavar="B", help="directory of the other one")
    parser.add_argument("--split", choices=["test", "validation"], default="test", help="split (default: test)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the numbers")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    folders = [flags.first, flags.second]
    manifests = [trained_model.read_manifest(folder) for folder in folders]
    _check(manifests, folders, flags.split)
    scores = [_scores(folder, manifest, flags.split) for folder, manifest in zip(folders, manifests, strict=True)]
    _check_documents(scores, folders)
    names = manifests[0].labels.names
    macro, of_labels = paired.differences([one.predicted for one in scores], scores[0].targets, scores[0].groups)
    holds = paired.discoveries([one.p for one in of_labels])
    rows = [
        {"label": name, "holds": held, "difference": one.difference, **asdict(one)}
        for name, one, held in zip(names, of_labels, holds, strict=True)
    ]
    found = {"label": "macro-F1", "holds": macro.p <= 0.05, "difference": macro.difference, **asdict(macro)}
    _show(folders, len(scores[0].ids), found, rows)
    if flags.output:
        content = {"split": flags.split, "models": [str(folder) for folder in folders], "macro_f1": found}
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.write_text(json.dumps(content | {"labels": rows}, indent=2) + "\n", encoding="utf-8")


def _check(manifests: Sequence[Manifest], folders: Sequence[Path], split: str) -> None:
    """Check that the models have the same labels and were measured on the same documents."""
    labels = [manifest.labels for manifest in manifests]
    if labels[0] != labels[1]:
        raise UserError(f"expected two models with the same task and labels, found {labels[0].names} in {folders[0]}.")
    hashes = [manifest.metrics.get(split, {}).get("data_sha256") for manifest in manifests]
    for folder, digest in zip(folders, hashes, strict=True):
        if digest is None:
            raise UserError(
                f"{folder} was not measured on {split}: train it with such a split, or use labelbeam decide."
            )
    if hashes[0] != hashes[1]:
        raise UserError(
            f"expected two models that were measured on the same {split} documents, found others: train both on the "
            "same --prepared data, or fit both to the same --test files with labelbeam decide."
        )


def _scores(folder: Path, manifest: Manifest, split: str) -> Scores:
    try:
        return label_tables.read_scores(folder / label_tables.FOLDER, split, manifest.labels)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: expected the tables that a training writes to {label_tables.FOLDER}/, found some missing or "
            f"changed ({' '.join(str(error).split())[:100]}); train again, or use labelbeam decide."
        ) from None


def _check_documents(scores: Sequence[Scores], folders: Sequence[Path]) -> None:
    same_truth = np.array_equal(scores[0].targets, scores[1].targets, equal_nan=True)
    if scores[0].ids != scores[1].ids or not same_truth:
        raise UserError(f"{folders[1]}: expected the documents of {folders[0]} in the same order, found others.")


def _show(folders: Sequence[Path], documents: int, macro: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    from training import terminal

    table = terminal.new_table(f"F1 of B = {folders[1]} and A = {folders[0]}, {documents:,} documents")
    table.add_column("label")
    for heading in ("A", "B", "B - A (95 %)", "p", ""):
        table.add_column(heading, justify="right")
    for row in (*rows, macro):
        if row is macro:
            table.add_section()
        verdict = ("better" if row["difference"] > 0 else "worse") if row["holds"] else ""
        difference = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        values = (f"{row['first']:.3f}", f"{row['second']:.3f}", difference)
        table.add_row(row["label"], *values, f"{row['p']:.3f}", verdict)
    terminal.print_table(table)


if __name__ == "__main__":
    sys.exit(main())

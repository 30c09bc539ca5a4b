r"""Writes corpora whose labels are known, without the documents that a model was trained on.

    python -m benchmarks.audit.corpora arxiv --data_dir DATA --model models/trained/arxiv_subjects --output arxiv.jsonl
    python -m benchmarks.audit.corpora goemotions --data_dir DATA --model models/trained/goemotions --output test.jsonl

A row has an id, the text, the labels as `truth`, and in arXiv the month. `archive` are papers up to 2019, of which only
the labels robotics and NLP are known.
"""

import argparse
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models import trained_model
from models.text import TextRecipe
from training import data_splits
from training.config_file import parse_config


def main() -> None:
    """Write a corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("arxiv", "archive", "goemotions"))
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    manifest = trained_model.read_manifest(flags.model)
    content = {name: section for name, section in manifest.training["config"].items() if section is not None}
    config = parse_config(content, source=str(flags.model))
    if flags.corpus == "goemotions":
        rows = _goemotions(flags.data_dir)
    else:
        groups = {name: set(codes) for name, codes in config.labels.groups.items()}
        if flags.corpus == "archive":
            rows = _arxiv(
                flags.data_dir / "arxiv" / "archive.jsonl.xz", groups, {"robotics", "NLP"}, set(), manifest.text
            )
        else:
            prepared = data_splits.limited(data_splits.prepare(config, flags.data_dir), config)
            known = set(prepared.splits.train.texts)
            rows = _arxiv(flags.data_dir / "arxiv" / "recent.jsonl.xz", groups, set(groups), known, manifest.text)
    with flags.output.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _arxiv(
    path: Path, groups: dict[str, set[str]], labels: set[str], known: set[str], recipe: TextRecipe
) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if recipe.text_of(row) not in known:
                truth = [name for name in sorted(labels) if groups[name] & set(row["categories"])]
                kept = {name: row[name] for name in ("id", "title", "abstract")}
                yield kept | {"month": row["date"][:7], "truth": truth}


def _goemotions(data_dir: Path) -> Iterator[dict[str, Any]]:
    names = (data_dir / "goemotions" / "labels.txt").read_text(encoding="utf-8").split()
    for line in (data_dir / "goemotions" / "test.tsv").read_text(encoding="utf-8").splitlines():
        text, labels, identifier = line.split("\t")
        yield {"id": identifier, "text": text, "truth": [names[int(number)] for number in labels.split(",")]}


if __name__ == "__main__":
    main()

"""The data card: what is in the splits of a training, as JSON and as a page to read."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.labels import LabelSchema
from training import base_model, markdown
from training.config import TrainConfig
from training.data import SPLITS, Examples, Splits

FILE = "card.json"
PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


def counts(splits: Splits, schema: LabelSchema) -> dict[str, Any]:
    """Of each split: documents, hash, rows left out by reason, and its labels.

    Of each label: documents, share of all of them, and share of its documents that have another label too.
    """
    return {
        "task": schema.task.value,
        "labels": list(schema.names),
        "splits": {name: _counts(getattr(splits, name), schema) for name in SPLITS},
    }


def _counts(examples: Examples, schema: LabelSchema) -> dict[str, Any]:
    several = examples.targets.sum(axis=1) > 1
    labels = {}
    for i, name in enumerate(schema.names):
        held = examples.targets[:, i] > 0
        found = int(held.sum())
        labels[name] = {
            "documents": found,
            "share": round(found / len(examples), 6) if len(examples) else 0.0,
            "with_others": round(float(several[held].mean()), 6) if found else 0.0,
        }
    return {
        "documents": len(examples),
        "without_label": int((examples.targets.sum(axis=1) == 0).sum()),
        "sha256": examples.sha256(),
        "skipped": examples.skipped,
        "labels": labels,
    }


def twin_counts(twins: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Pairs by kind and splits, such as `near train-test`."""
    return dict(sorted(Counter(f"{t['kind']} {t['split']}-{t['other_split']}" for t in twins).items()))


def token_lengths(texts: Sequence[str], config: TrainConfig) -> dict[str, Any]:
    """Percentiles of the number of tokens, special ones included, and the share that is beyond `text.max_tokens`."""
    if not texts:
        return {}
    encoded = base_model.tokenizer(config.model)(list(texts), verbose=False)["input_ids"]
    lengths = np.array([len(ids) for ids in encoded])
    found = np.percentile(lengths, PERCENTILES, method="higher")
    return {f"p{p}": int(value) for p, value in zip(PERCENTILES, found, strict=True)} | {
        "truncated": round(float((lengths > config.text.max_tokens).mean()), 6)
    }


def write(directory: Path, card: dict[str, Any], splits: Splits, config: TrainConfig) -> None:
    """Writes card.json and card.md, with the lengths of the texts by the base model's tokenizer."""
    for name in SPLITS:
        card["splits"][name]["tokens"] = token_lengths(getattr(splits, name).texts, config)
    (directory / FILE).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / "card.md").write_text("\n".join(_page(card, config)) + "\n", encoding="utf-8")


def _page(card: dict[str, Any], config: TrainConfig) -> Iterable[str]:
    splits = card["splits"]
    yield "# Data card\n"
    yield f"Task {card['task']}, {len(card['labels'])} labels; seed {config.training.seed}.\n"
    yield from markdown.table(("split", "documents", "without a label", "left out"), _split_rows(splits))
    yield "\n## Labels\n"
    yield "Documents with the label, their share of the split, and how many of them have another label too.\n"
    yield from markdown.table(
        ("label", *(f"{name} {part}".strip() for name in SPLITS for part in ("", "share", "with others"))),
        _label_rows(card),
    )
    yield "\n## Length in tokens\n"
    yield f"By the tokenizer of {config.model.base}; texts are cut at {config.text.max_tokens}.\n"
    yield from markdown.table(("split", *(f"{p} %" for p in PERCENTILES), "cut"), _token_rows(splits))
    yield "\n## The same texts in two places\n"
    threshold = config.data.near_duplicate
    yield f"Near: a Jaccard similarity of three-word shingles of at least {threshold}. The pairs are in twins.jsonl.\n"
    yield from markdown.table(("pairs", "found"), card["twins"].items())


def _split_rows(splits: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for name in SPLITS:
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in splits[name]["skipped"].items())
        yield name, f"{splits[name]['documents']:,}", f"{splits[name]['without_label']:,}", skipped or "none"


def _label_rows(card: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for label in card["labels"]:
        found = (card["splits"][name]["labels"][label] for name in SPLITS)
        yield (
            label,
            *(cell for f in found for cell in (f"{f['documents']:,}", f"{f['share']:.1%}", f"{f['with_others']:.1%}")),
        )


def _token_rows(splits: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for name in SPLITS:
        if tokens := splits[name]["tokens"]:
            yield name, *(f"{tokens[f'p{p}']:,}" for p in PERCENTILES), f"{tokens['truncated']:.1%}"


def show(card: dict[str, Any]) -> None:
    """Prints the counts of each label and split, and the pairs that stand in two places."""
    table = Table(title="documents", title_justify="left")
    table.add_column("label")
    for name in SPLITS:
        table.add_column(name, justify="right")
    for label in card["labels"]:
        table.add_row(label, *(f"{card['splits'][name]['labels'][label]['documents']:,}" for name in SPLITS))
    table.add_section()
    table.add_row("all documents", *(f"{card['splits'][name]['documents']:,}" for name in SPLITS))
    console = Console()
    console.print(table)
    for name in SPLITS:
        for reason, count in card["splits"][name]["skipped"].items():
            print(f"{name}: {count:,} rows left out: {reason}")
    for pairs, count in card["twins"].items():
        print(f"{count:,} pairs: {pairs}")

"""Writes the data card, which says what the splits of a training hold: as JSON, and as a page to read."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from models.labels import LabelSchema
from training import markdown, terminal
from training.config import TrainConfig
from training.examples import SPLITS, Examples, Splits

FILE = "card.json"
PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


def counts(splits: Splits, schema: LabelSchema) -> dict[str, Any]:
    """Return the task, the labels, and the counts of each split.

    A split has its number of documents, a hash, and the rows left out by reason. A label has its number of documents,
    its share of the split, the share of its documents that have another label too, and the number of documents of which
    nobody knows whether it applies.
    """
    return {
        "task": schema.task.value,
        "labels": list(schema.names),
        "splits": {name: _counts(examples, schema) for name, examples in splits.items()},
    }


def _counts(examples: Examples, schema: LabelSchema) -> dict[str, Any]:
    several = examples.positive.sum(axis=1) > 1
    labels = {}
    for i, name in enumerate(schema.names):
        labelled = examples.positive[:, i]
        documents = int(labelled.sum())
        labels[name] = {
            "documents": documents,
            "share": round(documents / len(examples), 6) if len(examples) else 0.0,
            "with_others": round(float(several[labelled].mean()), 6) if documents else 0.0,
            "unknown": int((~examples.known[:, i]).sum()),
        }
    return {
        "documents": len(examples),
        "without_label": int((~examples.positive.any(axis=1)).sum()),
        "sha256": examples.sha256(),
        "skipped": examples.skipped,
        "labels": labels,
    }


def write(directory: Path, card: dict[str, Any], config: TrainConfig) -> None:
    """Write card.json and card.md. `card` holds the lengths of the texts as `tokens` of each split."""
    (directory / FILE).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / "card.md").write_text("\n".join(_page(card, config)) + "\n", encoding="utf-8")


def _page(card: dict[str, Any], config: TrainConfig) -> Iterable[str]:
    splits = card["splits"]
    yield "# Data card\n"
    yield f"The task is {card['task']} with {len(card['labels'])} labels. The seed is {config.data_seed}.\n"
    yield from markdown.table(("split", "documents", "without a label", "left out"), _split_rows(splits))
    yield "\n## Labels\n"
    yield "The table shows the documents with each label, their share of the split, and the share with other labels.\n"
    yield from markdown.table(
        ("label", *(f"{name} {part}".strip() for name in SPLITS for part in ("", "share", "with others"))),
        _label_rows(card),
    )
    if any(_unknown(card, label) for label in card["labels"]):
        yield "\nWhether a label applies is unknown for some documents, which are neither learnt nor measured for it.\n"
        yield from markdown.table(
            ("label", *(f"{name} unknown" for name in SPLITS)),
            ((label, *(f"{count:,}" for count in _unknown(card, label))) for label in card["labels"]),
        )
    yield "\n## Length in tokens\n"
    yield (
        f"The tokenizer of {config.model.base} counts the tokens. Of a text, up to {config.text.most_tokens} are read "
        f"({config.text.long}).\n"
    )
    yield from markdown.table(("split", *(f"{p} %" for p in PERCENTILES), "truncated"), _token_rows(splits))
    yield "\n## Duplicates\n"
    yield (
        "The pairs are in duplicates.jsonl. Near duplicates have a Jaccard similarity of three-word shingles of at "
        f"least {config.data.near_duplicate}. A conflict is the same text with different labels.\n"
    )
    yield from markdown.table(("kind and splits", "pairs"), card["duplicates"].items())


def _split_rows(splits: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for name in SPLITS:
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in splits[name]["skipped"].items())
        yield name, f"{splits[name]['documents']:,}", f"{splits[name]['without_label']:,}", skipped or "none"


def _label_rows(card: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for label in card["labels"]:
        rows = (card["splits"][name]["labels"][label] for name in SPLITS)
        yield (
            label,
            *(cell for r in rows for cell in (f"{r['documents']:,}", f"{r['share']:.1%}", f"{r['with_others']:.1%}")),
        )


def _unknown(card: dict[str, Any], label: str) -> list[int]:
    """Return the number of documents of each split whose label is unknown; an empty list if there is none."""
    found = [card["splits"][name]["labels"][label].get("unknown", 0) for name in SPLITS]  # older cards have none
    return found if any(found) else []


def _token_rows(splits: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for name in SPLITS:
        if tokens := splits[name]["tokens"]:
            yield name, *(f"{tokens[f'p{p}']:,}" for p in PERCENTILES), f"{tokens['truncated']:.1%}"


def show(card: dict[str, Any]) -> None:
    """Print the documents of each label and split, the rows left out, and the pairs of duplicates."""
    table = terminal.new_table("documents")
    table.add_column("label")
    for name in SPLITS:
        table.add_column(name, justify="right")
    for label in card["labels"]:
        table.add_row(label, *(f"{card['splits'][name]['labels'][label]['documents']:,}" for name in SPLITS))
    table.add_section()
    table.add_row("all documents", *(f"{card['splits'][name]['documents']:,}" for name in SPLITS))
    terminal.print_table(table)
    for name in SPLITS:
        for reason, count in card["splits"][name]["skipped"].items():
            print(f"{name}: {terminal.counted(count, 'row')} left out: {reason}")
    for pairs, count in card["duplicates"].items():
        print(f"{terminal.counted(count, 'pair')}: {pairs}")

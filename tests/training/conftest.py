"""Fixtures of the training tests: a toy problem that is easy to learn, in a folder with its base model."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_base
from training import train

LABELS = {
    "multi_label": 'column = "colours"\nnames = ["red", "green", "blue"]',
    "multi_class": 'column = "colour"\nnames = ["red", "green", "blue"]',
    "binary": 'column = "has_red"\nnames = ["other", "red"]',
}
TRAINING = """
epochs = 12
batch_size = 16
learning_rate = 5e-3
"""
COLOURS = ("red", "green", "blue")
FILLERS = ("the sky is of a", "in the grass and", "a rose is", "of the", "sky and grass in the")


def toy_rows(count: int = 240) -> list[dict[str, Any]]:
    """Return texts with the words of their colours, none to three, among other words and a number."""
    chance = random.Random(0)
    rows = []
    for number in range(count):
        colours = [colour for colour in COLOURS if chance.random() < 0.5]
        words = " ".join(colours)
        text = f"{chance.choice(FILLERS)} {words} {chance.choice(FILLERS)} {chance.randrange(10**6)}"
        rows.append({"id": f"d{number}", "text": text, "colours": colours, "has_red": "red" in colours})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines. Return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny random encoder that knows the words of the toy problem."""
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny", [row["text"] for row in toy_rows(8)])


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a configuration, with TOML lines for each section, and returns its path."""

    def write(name: str = "config.toml", **sections: str) -> Path:
        lines = (f"[{section}]\n{content}\n" for section, content in sections.items())
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def start(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Return a function that trains on the toy problem and returns the exit code."""

    def run(task: str, output: Path, *flags: str, pooling: str = "mean", training: str = TRAINING) -> int:
        rows = toy_rows()
        if task == "multi_class":
            rows = [{**row, "colour": row["colours"][0]} for row in rows if len(row["colours"]) == 1] * 2
        write_rows(tmp_path / "rows.jsonl", rows)
        config = write_config(
            data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}',
            labels=f'task = "{task}"\n{LABELS[task]}',
            text="max_tokens = 32",
            model=f'base = "{base}"\npooling = "{pooling}"',
            training=training,
        )
        return train.main([str(config), "--data_dir", str(tmp_path), "--output", str(output), *flags])

    return run

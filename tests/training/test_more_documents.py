"""Tests of `data.more`: documents that were labelled later join the training documents alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import UserError
from training import data_splits
from training.config import TrainConfig
from training.config_file import parse_config


def config(task: str, names: list[str], **data: Any) -> TrainConfig:
    """Return a configuration of labelled JSON lines."""
    return parse_config(
        {
            "data": {"train": ["train.jsonl"], "split": {"validation": 0.2, "test": 0.2}, **data},
            "labels": {"task": task, "column": "label", "names": names},
            "text": {"fields": ["text"], "cleaning": ["whitespace"]},
            "model": {"base": "unused"},
        },
        source="test",
    )


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_train(folder: Path) -> None:
    """Write training documents with one label each."""
    write(folder / "train.jsonl", [{"text": f"text {n} {'ab'[n % 2]}", "label": "ab"[n % 2]} for n in range(60)])


def test_they_join_train_alone_with_unknown_labels(tmp_path: Path) -> None:
    write_train(tmp_path)
    rows = [
        {"id": "1", "text": "one  new\ntext", "labels": ["a"], "asked": ["a"]},
        {"id": "2", "text": "another one", "labels": [], "asked": ["a", "b"]},
        {"id": "3", "text": "one new text", "labels": ["b"], "asked": ["a", "b"]},
    ]
    write(tmp_path / "more.jsonl", rows)
    without = data_splits.prepare(config("multi_label", ["a", "b"]), tmp_path).splits
    prepared = data_splits.prepare(config("multi_label", ["a", "b"], more=["more.jsonl"]), tmp_path)
    splits = prepared.splits
    assert list(splits.test.texts) == list(without.test.texts)
    assert list(splits.validation.texts) == list(without.validation.texts)
    assert list(splits.train.texts) == [*without.train.texts, "one new text", "another one"]
    np.testing.assert_array_equal(splits.train.targets[-2:], [[1, np.nan], [0, 0]])
    assert splits.train.ids[-2:] == ["more.jsonl:1", "more.jsonl:2"]
    assert splits.train.skipped["in train already"] == 1
    assert prepared.card["splits"]["train"]["skipped"]["in train already"] == 1


def test_a_document_of_test_is_left_out(tmp_path: Path) -> None:
    write_train(tmp_path)
    held_out = data_splits.prepare(config("multi_label", ["a", "b"]), tmp_path).splits.test.texts[0]
    write(tmp_path / "more.jsonl", [{"id": "1", "text": held_out, "labels": ["a"], "asked": ["a", "b"]}])
    splits = data_splits.prepare(config("multi_label", ["a", "b"], more=["more.jsonl"]), tmp_path).splits
    assert held_out not in list(splits.train.texts)
    assert splits.train.skipped["leak"] >= 1


def test_a_binary_document_has_one_label(tmp_path: Path) -> None:
    write_train(tmp_path)
    rows = [
        {"id": "1", "text": "first", "labels": ["b"], "asked": ["a", "b"]},
        {"id": "2", "text": "second", "labels": ["a"], "asked": ["a", "b"]},
        {"id": "3", "text": "third", "labels": [], "asked": ["b"]},
    ]
    write(tmp_path / "more.jsonl", rows)
    train = data_splits.prepare(config("binary", ["a", "b"], more=["more.jsonl"]), tmp_path).splits.train
    np.testing.assert_array_equal(train.targets[-2:], [[0, 1], [1, 0]])
    assert train.skipped["label unknown"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x", "label": "a"}], "expected the columns id, text, labels, asked, found no id"),
        (
            [{"id": "1", "text": "x", "labels": ["c"], "asked": ["c"]}],
            "row 1: expected a row that was asked for one of a, b, found one for c",
        ),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_train(tmp_path)
    write(tmp_path / "more.jsonl", rows)
    with pytest.raises(UserError, match=message):
        data_splits.prepare(config("multi_label", ["a", "b"], more=["more.jsonl"]), tmp_path)

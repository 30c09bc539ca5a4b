"""Later labels and other columns are measured on the test documents of before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.training.conftest import toy_rows, write_rows
from training import prepare

ID = 'id_column = "id"'


@pytest.fixture
def command(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Return a function that prepares rows into a folder and returns the exit code."""

    def run(output: str, rows: list[dict[str, Any]], *flags: str, data: str = ID, text: str = "max_tokens = 16") -> int:
        write_rows(tmp_path / "rows.jsonl", rows)
        write_rows(tmp_path / "test.jsonl", [{**row, "id": f"test{row['id']}"} for row in toy_rows()])
        config = write_config(
            data=f'train = "rows.jsonl"\nnear_duplicate = 1.0\n{data}',
            labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
            text=text,
            model=f'base = "{base}"',
        )
        return prepare.main([str(config), "--data_dir", str(tmp_path), "--output", str(tmp_path / output), *flags])

    return run


def ids(folder: Path, split: str) -> set[str]:
    return set(pq.read_table(folder / f"{split}.parquet")["id"].to_pylist())


def test_new_labels_join_the_training_split_alone(tmp_path: Path, command: Callable[..., int]) -> None:
    rows = toy_rows()
    assert command("old", rows[:200]) == 0
    new = [*rows[200:], *({**row, "colours": ["red"]} for row in rows[:200])]  # in another order, and corrected
    assert command("new", new, "--splits", str(tmp_path / "old")) == 0
    for split in ("validation", "test"):
        assert ids(tmp_path / "new", split) == ids(tmp_path / "old", split)
        labels = pq.read_table(tmp_path / "new" / f"{split}.parquet")["labels"].to_pylist()
        assert labels == [["red"]] * len(labels)
    added = ids(tmp_path / "new", "train") - ids(tmp_path / "old", "train")
    assert added <= {row["id"] for row in rows[200:]}
    assert len(added) > 30


def test_another_column_is_read_of_the_same_documents(tmp_path: Path, command: Callable[..., int]) -> None:
    rows = [{**row, "title": f"title {number}"} for number, row in enumerate(toy_rows())]
    assert command("old", rows) == 0
    text = 'fields = ["title", "text"]\nmax_tokens = 16'
    assert command("new", rows, "--splits", str(tmp_path / "old"), text=text) == 0
    for split in ("validation", "test"):
        assert ids(tmp_path / "new", split) == ids(tmp_path / "old", split)
    texts = pq.read_table(tmp_path / "new" / "test.parquet")["text"].to_pylist()
    assert all(text.startswith("title") for text in texts)


@pytest.mark.parametrize(
    ("rows", "data", "sentence"),
    [
        (toy_rows()[:240], "", "expected data.id_column"),
        (toy_rows()[:100], ID, "are missing, such as 'd"),
        ([*toy_rows(), *toy_rows()], ID, "data.id_column 'id': expected ids that are all different, found 'd0' twice"),
        (toy_rows(), f'{ID}\ntest = "test.jsonl"', "expected all files under data.train"),
    ],
)
def test_splits_that_cannot_be_kept(
    rows: list[dict[str, Any]],
    data: str,
    sentence: str,
    tmp_path: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("old", toy_rows()) == 0
    assert command("new", rows, "--splits", str(tmp_path / "old"), data=data) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_without_splits(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("new", toy_rows(), "--splits", str(tmp_path)) == 2
    assert "expected a folder that training.prepare wrote" in capsys.readouterr().err


def test_documents_of_a_held_out_group_do_not_join_training(tmp_path: Path, command: Callable[..., int]) -> None:
    rows = [{**row, "author": f"a{number // 4}"} for number, row in enumerate(toy_rows())]
    by_author = f'{ID}\nsplit_by = "author"'
    assert command("old", rows, data=by_author) == 0
    new = [{**row, "id": f"new{row['id']}", "text": f"{row['text']} again"} for row in rows]
    assert command("new", [*rows, *new], "--splits", str(tmp_path / "old"), data=by_author) == 0
    authors = {row["id"]: row["author"] for row in (*rows, *new)}
    held_out = {authors[one] for split in ("validation", "test") for one in ids(tmp_path / "new", split)}
    assert held_out
    assert held_out.isdisjoint({authors[one] for one in ids(tmp_path / "new", "train")})

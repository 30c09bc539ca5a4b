"""Reading: every format, every encoding of labels, splits that stay put, and every row accounted for."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from models.errors import UserError
from training import data
from training.config import TrainConfig
from training.data import Examples

ROWS = [
    {"id": "007", "text": 'He said "no', "label": "red"},
    {"id": "2", "text": "NA", "label": "green"},
    {"id": "3", "text": "null, or\u2028not; naïve 🙂", "label": "red"},
    {"id": "4", "text": "2020", "label": "green"},
]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


def settings(labels: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any) -> TrainConfig:
    """A configuration whose files serve as all three splits, unless `more` says otherwise."""
    files = more.pop("files", "rows.jsonl")
    return TrainConfig.model_validate(
        {
            "data": {"train": files, "validation": files, "test": files, **more.pop("data", {})},
            "labels": labels or {"task": "multi_class", "names": ["red", "green"]},
            "text": text or {},
            "model": {"base": "tiny"},
            **more,
        }
    )


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def targets(tmp_path: Path, cells: list[Any], labels: dict[str, Any]) -> list[list[int]]:
    rows = [{"text": f"text {number}", "label": cell} for number, cell in enumerate(cells)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    _, splits = data.load(settings(labels), tmp_path)
    found: list[list[int]] = splits.train.targets.astype(int).tolist()
    return found


def encode(suffix: str) -> bytes:
    if suffix in (".jsonl", ".ndjson"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if suffix == ".json":
        return json.dumps(ROWS, indent=1).encode()
    if suffix == ".csv":
        quoted = [[str(value).replace('"', '""') for value in row.values()] for row in ROWS]
        return ("id,text,label\n" + "".join(f'{i},"{t}",{label}\n' for i, t, label in quoted)).encode()
    return ("id\ttext\tlabel\n" + "".join("\t".join(row.values()) + "\n" for row in ROWS)).encode()


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, compression: str) -> None:
    name = f"my.rows{suffix}{compression}"
    (tmp_path / name).write_bytes(COMPRESS[compression](encode(suffix)))
    _, splits = data.load(settings(files=name, text={"cleaning": []}), tmp_path)
    assert splits.train.texts == [row["text"] for row in ROWS]
    assert splits.train.targets.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert splits.train.targets.dtype == np.float32
    assert splits.train.skipped == {}


def test_parquet_and_columns_without_a_header(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    _, splits = data.load(settings(files="rows.parquet"), tmp_path)
    assert splits.train.texts[1] == "NA"
    (tmp_path / "bare.tsv").write_bytes(encode(".tsv").split(b"\n", 1)[1])
    bare = settings(files="bare.tsv", data={"columns": ["id", "text", "label"]}, text={"cleaning": []})
    _, splits = data.load(bare, tmp_path)
    assert splits.train.texts == [row["text"] for row in ROWS]


def test_several_files_and_globs_in_order_whatever_their_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [{"text": "three", "label": "red", "extra": 1}])
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one", "label": "red"}, {"text": "two", "label": "green", "late": []}])
    _, splits = data.load(settings(files="*.jsonl"), tmp_path)
    assert splits.train.texts == ["one", "two", "three"]
    _, splits = data.load(settings(files=["b.jsonl", "a.jsonl"]), tmp_path)
    assert splits.train.texts == ["three", "one", "two"]


def test_nothing_is_left_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    data.load(settings(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("cells", "labels", "expected"),
    [
        (["no", "yes"], {"task": "binary", "names": ["no", "yes"]}, [[1, 0], [0, 1]]),
        ([0, 1], {"task": "binary", "names": ["no", "yes"]}, [[1, 0], [0, 1]]),
        ([False, True], {"task": "binary", "names": ["no", "yes"]}, [[1, 0], [0, 1]]),
        (["False", "true"], {"task": "binary", "names": ["no", "yes"]}, [[1, 0], [0, 1]]),
        (["1", "0"], {"task": "binary", "names": ["1", "0"]}, [[1, 0], [0, 1]]),
        ([["x.A"], ["y"], []], {"task": "binary", "groups": {"x": "x.*"}}, [[0, 1], [1, 0], [1, 0]]),
        (["b", "a", " c "], {"task": "multi_class", "names": ["a", "b", "c"]}, [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        ([1, 0], {"task": "multi_class", "names": ["a", "b"]}, [[0, 1], [1, 0]]),
        ([1.0, 0.0], {"task": "multi_class", "names": ["a", "b"]}, [[0, 1], [1, 0]]),
        ([["b"], ["a"]], {"task": "multi_class", "names": ["a", "b"]}, [[0, 1], [1, 0]]),
        ([["b"], ["a", "b"], []], {"task": "multi_label", "names": ["a", "b"]}, [[0, 1], [1, 1], [0, 0]]),
        ([[1], [0, 1], []], {"task": "multi_label", "names": ["a", "b"]}, [[0, 1], [1, 1], [0, 0]]),
        (["b", "a; b", ""], {"task": "multi_label", "names": ["a", "b"], "delimiter": ";"}, [[0, 1], [1, 1], [0, 0]]),
        (["1", "0,1", ""], {"task": "multi_label", "names": ["a", "b"], "delimiter": ","}, [[0, 1], [1, 1], [0, 0]]),
        (
            [["cs.CV", "cs.LG"], ["math.GT"], ["cs.RO"]],
            {"task": "multi_label", "groups": {"AI": ["cs.CV", "cs.[LR]?"], "CV": "cs.CV"}},
            [[1, 1], [0, 0], [1, 0]],
        ),
        (
            ["cs.CV cs.LG", "math.GT"],
            {"task": "multi_class", "groups": {"cs": "cs.*", "math": "math.*"}, "delimiter": " "},
            [[1, 0], [0, 1]],
        ),
    ],
)
def test_every_encoding_of_labels(
    tmp_path: Path, cells: list[Any], labels: dict[str, Any], expected: list[list[int]]
) -> None:
    assert targets(tmp_path, cells, labels) == expected


def test_rows_without_text_or_label_are_counted(tmp_path: Path) -> None:
    rows = [
        {"text": "good", "label": "red"},
        {"text": " ", "label": "red"},
        {"text": None, "label": "red"},
        {"text": "no label", "label": None},
        {"text": "no label", "label": ""},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    _, splits = data.load(settings(), tmp_path)
    assert splits.train.texts == ["good"]
    assert splits.train.skipped == {"empty_text": 1, "no_text": 1, "no_label": 2}


def test_integers_in_a_csv_stay_what_they_are_even_where_a_late_row_holds_several(tmp_path: Path) -> None:
    lines = [f"text {number}\t{number % 2}\n" for number in range(12_000)] + ["both\t0,1\n"]
    (tmp_path / "rows.tsv").write_text("".join(lines))
    labels = {"task": "multi_label", "names": ["a", "b"], "delimiter": ","}
    _, splits = data.load(settings(labels, files="rows.tsv", data={"columns": ["text", "label"]}), tmp_path)
    assert splits.train.targets.sum(axis=0).tolist() == [6001, 6001]


def cut(tmp_path: Path, rows: list[dict[str, Any]], seed: int = 0, **more: Any) -> dict[str, set[str]]:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    config = settings(data={"validation": [], "test": [], **more}, training={"seed": seed})
    _, splits = data.load(config, tmp_path)
    return {name: set(getattr(splits, name).texts) for name in ("train", "validation", "test")}


def test_splits_are_cut_by_hash_and_stay_when_rows_are_added(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "red", "id": number} for number in range(2000)]
    parts = cut(tmp_path, rows)
    assert sum(map(len, parts.values())) == 2000
    assert 0.12 < len(parts["validation"]) / 2000 < 0.18
    assert 0.12 < len(parts["test"]) / 2000 < 0.18
    assert cut(tmp_path, rows[::-1]) == parts
    fewer = cut(tmp_path, rows[:1000])
    assert all(fewer[name] <= parts[name] for name in parts)
    assert cut(tmp_path, rows, seed=1) != parts


def test_equal_texts_and_equal_split_keys_land_on_one_side(tmp_path: Path) -> None:
    twice = [{"text": f"text {n % 300}", "label": "red", "id": n} for n in range(600)]
    parts = cut(tmp_path, twice)
    assert not parts["train"] & (parts["validation"] | parts["test"])
    authors = [{"text": f"author {n % 40} text {n}", "label": "red", "author": n % 40} for n in range(800)]
    parts = cut(tmp_path, authors, split_by="author")
    sides = {name: {text.split()[1] for text in texts} for name, texts in parts.items()}
    assert sum(map(len, sides.values())) == 40
    assert all(sides.values())


def test_no_test_split_is_fine_where_none_is_asked_for(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "red"} for number in range(100)]
    parts = cut(tmp_path, rows, split={"validation": 0.5, "test": 0})
    assert parts["test"] == set()
    assert parts["train"]
    assert parts["validation"]


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        (ROWS, {"files": "nowhere.jsonl"}, "data.train: expected files at"),
        (ROWS, {"text": {"fields": ["title"]}}, "expected columns ['title'], found ['id', 'label', 'text']"),
        (ROWS, {"data": {"validation": [], "split_by": "author"}}, "data.split_by: expected a column 'author'"),
        (
            [{"text": "a", "label": "red"}, {"text": "b", "label": "violet"}],
            {},
            "data.train, row 2, column 'label': expected one of the labels red, green or its number, found 'violet'",
        ),
        (
            [{"text": "a", "label": ["red", "green"]}],
            {},
            "row 1, column 'label': a multi_class row has exactly one label, found ['red', 'green']",
        ),
        ([{"text": "a", "label": 2}], {}, "found 2"),
        ([{"text": "", "label": "red"}], {}, "data.train: expected at least one row with a text and a label"),
    ],
)
def test_what_is_wrong_with_the_data_is_one_sentence(
    tmp_path: Path, rows: list[Any], more: dict[str, Any], sentence: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        data.load(settings(**more), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"text": "a", "label": '),
        ("rows.jsonl", b""),
        ("rows.jsonl.gz", b"not compressed"),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 2000)[:40]),
        ("rows.jsonl.xz", b"not compressed"),
        ("rows.csv", b"text,label\na,red,more,cells\n"),
        ("rows.csv", b""),
        ("rows.tsv", b"text\tlabel\n\xff\xfe\tred\n"),
        ("rows.parquet", b"not parquet"),
        ("rows.xlsx", b""),
        ("rows", b""),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        data.load(settings(files=name), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_hash_of_examples_depends_on_texts_targets_and_their_order() -> None:
    one = Examples(["a", "b"], np.array([[1, 0], [0, 1]], np.float32))
    assert one.sha256() == Examples(list(one.texts), one.targets.copy()).sha256()
    others = [
        one.take(np.array([1, 0])),
        one.take(np.array([0])),
        Examples(["a", "c"], one.targets),
        Examples(one.texts, one.targets[::-1].copy()),
        Examples(["ab", ""], one.targets),
    ]
    assert len({one.sha256(), *(other.sha256() for other in others)}) == 6

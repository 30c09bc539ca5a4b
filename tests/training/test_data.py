"""Labelled data is read from every format, with every encoding of labels, and every row is accounted for."""

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from models.errors import UserError
from training import data, tables
from training.config import TrainConfig
from training.examples import Examples

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
    """Return a configuration whose files serve as all three splits, unless `more` says otherwise."""
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


def read(config: TrainConfig, folder: Path) -> Examples:
    examples = data.read(config, "train", folder, data.schema_in(config, folder))
    assert examples is not None
    return examples


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def targets(tmp_path: Path, cells: list[Any], labels: dict[str, Any]) -> list[list[int]]:
    rows = [{"text": f"text {number}", "label": cell} for number, cell in enumerate(cells)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    examples = read(settings(labels), tmp_path)
    found: list[list[int]] = examples.targets.astype(int).tolist()
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
    examples = read(settings(files=name, text={"cleaning": []}), tmp_path)
    assert [*examples.texts] == [row["text"] for row in ROWS]
    assert examples.targets.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert examples.targets.dtype == np.float32
    assert examples.skipped == {}


@pytest.mark.parametrize("compression", list(COMPRESS))
def test_parquet(tmp_path: Path, compression: str) -> None:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), content)
    name = f"rows.parquet{compression}"
    (tmp_path / name).write_bytes(COMPRESS[compression](content.getvalue()))
    examples = read(settings(files=name, text={"cleaning": []}), tmp_path)
    assert [*examples.texts] == [row["text"] for row in ROWS]
    assert examples.targets.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_columns_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "bare.tsv").write_bytes(encode(".tsv").split(b"\n", 1)[1])
    bare = settings(files="bare.tsv", data={"columns": ["id", "text", "label"]}, text={"cleaning": []})
    examples = read(bare, tmp_path)
    assert [*examples.texts] == [row["text"] for row in ROWS]


def test_several_files_and_globs_in_order_whatever_their_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [{"text": "three", "label": "red", "extra": 1}])
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one", "label": "red"}, {"text": "two", "label": "green", "late": []}])
    examples = read(settings(files="*.jsonl"), tmp_path)
    assert [*examples.texts] == ["one", "two", "three"]
    examples = read(settings(files=["b.jsonl", "a.jsonl"]), tmp_path)
    assert [*examples.texts] == ["three", "one", "two"]


def test_nothing_is_left_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    read(settings(), tmp_path)
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
    examples = read(settings(), tmp_path)
    assert [*examples.texts] == ["good"]
    assert examples.skipped == {"empty_text": 1, "no_text": 1, "no_label": 2}


def test_integers_in_a_csv_stay_what_they_are_even_where_a_late_row_holds_several(tmp_path: Path) -> None:
    lines = [f"text {number}\t{number % 2}\n" for number in range(12_000)] + ["both\t0,1\n"]
    (tmp_path / "rows.tsv").write_text("".join(lines))
    labels = {"task": "multi_label", "names": ["a", "b"], "delimiter": ","}
    examples = read(settings(labels, files="rows.tsv", data={"columns": ["text", "label"]}), tmp_path)
    assert examples.targets.sum(axis=0).tolist() == [6001, 6001]


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        (ROWS, {"files": "nowhere.jsonl"}, "data.train: expected files at"),
        (ROWS, {"text": {"fields": ["title"]}}, "expected columns ['title'], found ['id', 'label', 'text']"),
        (ROWS, {"data": {"split_by": "author"}}, "expected columns ['author'], found ['id', 'label', 'text']"),
        (
            [{"text": "a", "label": "red"}, {"text": "b", "label": "violet"}],
            {},
            "data.train, rows.jsonl, row 2, column 'label': expected one of the labels red, green or its number, found",
        ),
        (
            [{"text": "a", "label": ["red", "green"]}],
            {},
            "row 1, column 'label': a multi_class row has exactly one label, found ['red', 'green']",
        ),
        ([{"text": "a", "label": 2}], {}, "found 2"),
    ],
)
def test_what_is_wrong_with_the_data_is_one_sentence(
    tmp_path: Path, rows: list[Any], more: dict[str, Any], sentence: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read(settings(**more), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"text": "a", "label": '),
        ("rows.jsonl", b""),
        ("rows.jsonl.gz", b"not compressed"),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 2000, mtime=0)[:40]),
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
        read(settings(files=name), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", ["", ".gz"])
def test_line_files_keep_every_line_and_only_a_line_feed_ends_one(tmp_path: Path, compression: str) -> None:
    lines = ["one\u2028still one", "", 'he said "two"', "three\r"]
    content = COMPRESS[compression]("\n".join([*lines, ""]).encode())
    (tmp_path / f"text.txt{compression}").write_bytes(content)
    (tmp_path / "labels.txt").write_text("0\n1\n1\n0\n")
    labelled = {"label_files": {"train": "labels.txt"}}
    config = settings(files=f"text.txt{compression}", data=labelled, text={"cleaning": []})
    examples = read(config, tmp_path)
    assert [*examples.texts] == ["one\u2028still one", 'he said "two"', "three"]
    assert examples.targets.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert examples.ids == [f"text.txt{compression}:{row}" for row in (1, 3, 4)]
    assert examples.skipped == {"empty_text": 1}
    (tmp_path / "labels.txt").write_text("\ufeff0\n1\n1\n0\n")
    assert (
        read(config, tmp_path).targets.tolist() == examples.targets.tolist()
    )  # the labels now start with a byte order mark
    (tmp_path / "labels.txt").write_text("0\n1\n1\n")
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(UserError, match="expected line files .* beside label files, found .*rows.jsonl, which has a"):
        read(settings(files="rows.jsonl", data=labelled), tmp_path)
    with pytest.raises(UserError, match=r"labels.txt: expected 4 lines, a label for each line of .*, found 3"):
        read(config, tmp_path)


@pytest.mark.parametrize("saved", [True, False])
def test_hugging_face_datasets_from_a_folder_with_their_own_label_names(tmp_path: Path, saved: bool) -> None:
    names = datasets.ClassLabel(names=["green", "red"])  # another order than in the configuration
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    if saved:
        datasets.DatasetDict({"train": table, "dev": table}).save_to_disk(str(tmp_path / "set"))
    else:
        (tmp_path / "set").mkdir()
        for split in ("train", "dev"):
            table.to_parquet(str(tmp_path / "set" / f"{split}.parquet"))
            (tmp_path / "set" / "README.md").write_text(
                "---\nconfigs:\n- config_name: default\n  data_files:\n"
                "  - {split: train, path: train.parquet}\n  - {split: dev, path: dev.parquet}\n---\n"
            )
    config = settings(files=["dev"], data={"dataset": "set"})
    examples = read(config, tmp_path)
    assert examples.targets.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert examples.ids == ["set/dev:1", "set/dev:2", "set/dev:3"]
    with pytest.raises(UserError, match="data.dataset 'set'.*'nowhere'"):
        read(settings(files=["nowhere"], data={"dataset": "set"}), tmp_path)


@pytest.mark.parametrize("several", [True, False])
def test_the_label_names_that_a_parquet_file_or_a_saved_table_brings_along(tmp_path: Path, several: bool) -> None:
    names = datasets.ClassLabel(names=["green", "red"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(names) if several else names}
    )
    cells: list[Any] = [[1], [0, 1], []] if several else [1, 0, -1]
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": cells}, features=features)
    table.to_parquet(str(tmp_path / "rows.parquet"))
    table.save_to_disk(str(tmp_path / "set"))
    labels = {"task": "multi_label" if several else "multi_class", "names": ["red", "green"]}
    for config in (settings(labels, files="rows.parquet"), settings(labels, files="train", data={"dataset": "set"})):
        examples = read(config, tmp_path)
        assert examples.targets.tolist() == ([[1, 0], [1, 1], [0, 0]] if several else [[1, 0], [0, 1]])
        assert examples.skipped == ({} if several else {"no_label": 1})
    with pytest.raises(UserError, match="data.dataset 'set': expected a split 'dev', found none"):
        read(settings(labels, files="dev", data={"dataset": "set"}), tmp_path)


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="data.dataset 'me/nowhere', split 'train', cannot be read"):
        read(settings(files=["train"], data={"dataset": "me/nowhere"}), tmp_path)


def test_a_column_for_each_label(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,hired,lost_job\na,1,0\nb,0.0,True\nc,TRUE,0\nd,,1\n")
    labels = {"task": "multi_label", "columns": ["hired", "lost_job"]}
    examples = read(settings(labels, files="rows.csv"), tmp_path)
    np.testing.assert_array_equal(examples.targets, [[1, 0], [0, 1], [1, 0], [np.nan, 1]])
    assert examples.skipped == {}
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "hired": 1, "lost_job": False}])
    assert read(settings(labels), tmp_path).targets.tolist() == [[1, 0]]
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "hired": "perhaps", "lost_job": "1"}])
    with pytest.raises(UserError, match="row 1, column 'hired': expected 0, 1, true or false, found 'perhaps'"):
        read(settings(labels), tmp_path)


def test_the_hash_of_examples_depends_on_texts_targets_and_their_order() -> None:
    def examples(texts: Sequence[str], targets: Any) -> Examples:
        return Examples.of(texts, np.array(targets, np.float32), [*texts])

    one = examples(["a", "b"], [[1, 0], [0, 1]])
    assert one.sha256() == examples(["a", "b"], [[1, 0], [0, 1]]).sha256()
    others = [
        one.take(np.array([1, 0])),
        one.take(np.array([0])),
        examples(["a", "c"], one.targets),
        examples(one.texts, one.targets[::-1]),
        examples(["ab", ""], one.targets),
    ]
    assert len({one.sha256(), *(other.sha256() for other in others)}) == 6


def test_a_field_that_first_appears_after_the_first_chunk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file is parsed again in a larger chunk."""
    rows: list[dict[str, Any]] = [{"text": f"{n} " + "x" * 100, "label": "red"} for n in range(2_000)]
    rows += [{"text": "late", "label": "green", "votes": "3"}, {"text": "none", "label": "red"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(tables, "JSON_CHUNKS", (20_000, 1 << 29))
    examples = read(settings(data={"where": "votes == 3"}), tmp_path)
    assert [*examples.texts] == ["late"]
    monkeypatch.setattr(tables, "JSON_CHUNKS", (20_000, 20_000))
    with pytest.raises(UserError, match="rows.jsonl cannot be read as json"):
        read(settings(), tmp_path)


def test_rows_can_be_read_at_once_from_several_places(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n, "text": str(n)} for n in range(2_500)])
    rows = tables.read(str(tmp_path / "rows.jsonl"), settings())
    assert not list(tmp_path.glob("**/*.arrow"))
    one, other = rows.of(["n"]), rows.of(["text", "gone"])
    pairs = [(next(one), next(other)) for _ in range(2_500)]
    assert pairs[2_400] == ({"n": 2_400}, {"text": "2400"})
    assert next(one, None) is None
    assert len(list(rows.of(["n"]))) == 2_500


def test_rows_are_read_whatever_the_library_keeps_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "IN_MEMORY_MAX_SIZE", 10**9)
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert len(read(settings(), tmp_path)) == len(ROWS)


def test_a_group_that_is_missing_is_no_text(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "red", "author": author} for text, author in (("a", "x"), ("b", None), ("b", None))]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    groups = read(settings(data={"split_by": "author"}), tmp_path).groups
    assert groups is not None
    assert groups[0] == "x"
    assert groups[1] == groups[2] != "b"

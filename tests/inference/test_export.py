"""Test what people do with a finished run: join it with its input, and read it in DuckDB and pandas."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import export, verify
from inference.corpus import gcs, kept_fields
from inference.corpus.files import zstd
from inference.runs import tables
from inference.runs.joined import Row
from tests.cloud_storage import CloudStorage
from tests.inference.conftest import BUCKET, rows_of, texts
from tests.inference.test_formats import WRITE
from tests.tiny import tiny_model

Label = Callable[..., Path]
LINES: list[dict[str, Any]] = [
    *({"id": f"d{i}", "text": text, "year": 2000 + i % 3, "tags": ["a", {"b": i}]} for i, text in enumerate(texts(90))),
    {"id": "no text", "year": 1999},
    {"id": "last", "text": "the sky is blue", "year": None, "share": 0.5},
]
CONTENT = "".join(json.dumps(line) + "\n" for line in LINES) + "\n  \nno JSON\n"


def exported(run: Path, to: Path, *flags: str) -> int:
    return export.main([str(run), "--to", str(to), *flags])


def query(sql: str, *files: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql.format(*(f"read_parquet('{file}')" for file in files))).fetchall()


@pytest.fixture(params=["corpus.jsonl", "corpus.jsonl.gz"])
def run(request: pytest.FixtureRequest, tmp_path: Path, colours: Path, label: Label) -> Path:
    """Label LINES in several slices."""
    content = CONTENT.encode()
    path = tmp_path / str(request.param)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    flags = ("--input", path, "--slice_mb", 0.002, "--max_failure_rate", 1, "--scores", "all")
    return label("--model", colours, *flags)


def test_an_export_holds_each_line_with_its_labels_in_order(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list((run / "receipts").iterdir())) > 2
    capsys.readouterr()
    to = tmp_path / "labelled.parquet"
    assert exported(run, to) == 0
    assert capsys.readouterr().out == f"93 rows = 91 predicted + 2 failed: {to}\n"
    rows = pq.read_table(to).to_pylist()
    predicted = {row["id"]: row["colours"] for row in rows_of(run)}
    assert [row["id"] for row in rows] == [*(f"d{i}" for i in range(90)), "no text", "last", None]
    for row in rows:
        if labelling := predicted.get(row["id"]):
            assert (row["colours_labels"], row["colours_scores"]) == (labelling["labels"], labelling["scores"])
            assert row["failure"] is None
        else:
            assert (row["colours_labels"], row["colours_scores"]) == (None, None)
    assert [row["failure"] for row in rows if row["failure"]] == ["no_text", "not_json"]
    assert query("SELECT typeof(year), typeof(share), typeof(tags) FROM {} LIMIT 1", to) == [
        ("BIGINT", "DOUBLE", "VARCHAR")
    ]
    assert json.loads(rows[7]["tags"]) == ["a", {"b": 7}]


def test_labels_as_columns_are_counted_in_duckdb_and_pandas(run: Path, tmp_path: Path) -> None:
    to = tmp_path / "labelled.parquet"
    assert exported(run, to, "--layout", "columns", "--fields", "year") == 0
    frame = pd.read_parquet(to)
    assert [*frame.columns[:3], frame.columns[-1]] == ["year", "colours_red", "colours_red_score", "failure"]
    predictions = rows_of(run)
    for name in ("red", "green", "blue"):
        expected = sum(name in row["colours"]["labels"] for row in predictions)
        assert frame[f"colours_{name}"].sum() == expected
        assert query(f"SELECT count(*) FROM {{}} WHERE colours_{name}", to) == [(expected,)]
        scores = [s["score"] for row in predictions for s in row["colours"]["scores"] if s["label"] == name]
        assert frame[f"colours_{name}_score"].dropna().tolist() == scores


def test_json_lines_and_csv_hold_the_same_rows(run: Path, tmp_path: Path) -> None:
    parquet, lines, table = (tmp_path / f"labelled.{suffix}" for suffix in ("parquet", "jsonl", "csv"))
    for to in (parquet, lines, table):
        assert exported(run, to, "--layout", "columns") == 0
    expected = pq.read_table(parquet).to_pylist()
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert written[7] == {name: value for name, value in expected[7].items() if name != "share"} | {
        "tags": ["a", {"b": 7}]
    }
    assert [row["failure"] for row in written] == [row["failure"] for row in expected]
    frame = pd.read_csv(table)
    assert frame["id"].isna().tolist() == [row["id"] is None for row in expected]
    assert frame["tags"].dropna().map(json.loads).tolist() == [line["tags"] for line in LINES if "tags" in line]
    assert frame["colours_red_score"].dropna().tolist() == [
        row["colours_red_score"] for row in expected if row["colours_red_score"] is not None
    ]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_tables_are_exported_with_all_their_columns(suffix: str, tmp_path: Path, colours: Path, label: Label) -> None:
    rows = [{"id": f"d{i}", "text": text, "note": f"a\n{i}"} for i, text in enumerate(texts(60))]
    path = tmp_path / f"corpus.{suffix}"
    path.write_bytes(WRITE[suffix](rows))
    labelled = label("--model", colours, "--input", path, "--slice_mb", 0.001)
    to = tmp_path / "labelled.jsonl"
    assert exported(labelled, to, "--fields", "note") == 0
    written = [json.loads(line) for line in to.read_text().splitlines()]
    assert [row["note"] for row in written] == [row["note"] for row in rows]
    assert [row["colours_labels"] for row in written] == [row["colours"]["labels"] for row in rows_of(labelled)]


def test_wrong_use_is_one_sentence_and_writes_nothing(
    tmp_path: Path, corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = label("--model", colours, "--input", corpus)
    there = tmp_path / "there.csv"
    there.touch()
    before = set(tmp_path.iterdir())
    for to, flags, expected in (
        (tmp_path / "t.xlsx", (), "expected a name that ends in .parquet, .jsonl, .csv"),
        (there, (), "expected a new file, found one"),
        (
            tmp_path / "t.csv",
            ("--fields", "date"),
            "--fields date: no record has this field; `labelbeam peek FILE` shows",
        ),
    ):
        capsys.readouterr()
        assert exported(labelled, to, *flags) == 2
        assert expected in capsys.readouterr().err
    corpus.write_text(corpus.read_text().replace("sky", "SKY"))
    assert exported(labelled, tmp_path / "t.csv") == 2
    assert "expected the bytes that were counted when the run began" in capsys.readouterr().err
    assert exported(tmp_path, tmp_path / "t.csv") == 2
    assert set(tmp_path.iterdir()) == before


def test_a_field_with_the_name_of_a_label_column_is_refused(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "text": "red rose", "Colours_labels": 1}\n')
    labelled = label("--model", colours, "--input", path)
    capsys.readouterr()
    assert exported(labelled, tmp_path / "t.csv") == 2
    assert "two columns would have the name Colours_labels; name the fields to write, such as --fields id,text." in (
        capsys.readouterr().err
    )
    assert exported(labelled, tmp_path / "t.csv", "--fields", "text") == 0


def test_a_run_without_one_of_its_files_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((run / "failures").iterdir()).unlink()
    assert exported(run, tmp_path / "t.csv") == 2
    assert "expected this file, as its run or delta wrote it, found none" in capsys.readouterr().err


def test_labels_that_would_share_a_column_are_refused(
    tmp_path: Path, corpus: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (("a", "a_score", "b"), ("AI", "ai", "b")):
        model = tiny_model(tmp_path / f"m{names[0]}", names=names)
        labelled = label("--model", model, "--input", corpus, "--scores", "all")
        capsys.readouterr()
        assert exported(labelled, tmp_path / "t.csv", "--layout", "columns") == 2
        assert "use --layout lists." in capsys.readouterr().err
        assert exported(labelled, tmp_path / f"{names[0]}.jsonl", "--fields", "year") == 0


def test_nothing_that_the_table_is_made_of_is_replaced(
    tmp_path: Path, corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = label("--model", colours, "--input", corpus)
    rows, before = next((labelled / "predictions").iterdir()), corpus.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(corpus)
    for to, expected in (
        (corpus, "found an input of the run"),
        (tmp_path / "link.jsonl", "found an input of the run"),
        (rows, "expected a file outside the run's folder"),
        (labelled / "t.csv", "expected a file outside the run's folder"),
        (corpus / "t.csv", "cannot be written"),
    ):
        capsys.readouterr()
        assert exported(labelled, to, "--overwrite") == 2
        assert expected in capsys.readouterr().err
    (tmp_path / "folder.csv").mkdir()
    assert exported(labelled, tmp_path / "folder.csv", "--overwrite") == 2
    assert corpus.read_bytes() == before
    assert verify.main([str(labelled)]) == 0


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zst"])
def test_a_compressed_input_that_was_cut_since_is_one_sentence(
    suffix: str, tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"corpus.jsonl.{suffix}"
    compressions: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "bz2": bz2.compress,
        "zst": zstd.compress,
    }
    path.write_bytes(compressions[suffix](CONTENT.encode() * 9))
    labelled = label("--model", colours, "--input", path, "--max_failure_rate", 1, "--slice_mb", 0.01)
    for content in (path.read_bytes()[: path.stat().st_size // 2], b"something else"):
        path.write_bytes(content)
        capsys.readouterr()
        assert exported(labelled, tmp_path / "t.csv") == 2
        assert "expected the bytes that were counted when the run began" in capsys.readouterr().err
    assert not list(tmp_path.glob("t.csv*"))


def test_a_column_that_was_not_read_can_be_bad(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    columns = {"id": ["a", "b"], "text": ["red rose", "the sky is blue"], "note": notes}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    labelled = label("--model", colours, "--input", tmp_path / "c.parquet")
    capsys.readouterr()
    assert exported(labelled, tmp_path / "t.csv") == 2
    assert (
        "row 2 has a field that cannot be written (a string of the row is not UTF-8); name" in capsys.readouterr().err
    )
    assert exported(labelled, tmp_path / "t.csv", "--fields", "text") == 0


def test_deep_values_and_special_numbers_are_written(tmp_path: Path, colours: Path, label: Label) -> None:
    deep = "[" * 600 + "]" * 600
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "text": "red rose", "x": ' + deep + "}\n")
    labelled = label("--model", colours, "--input", path)
    for suffix in ("csv", "jsonl", "parquet"):
        assert exported(labelled, tmp_path / f"t.{suffix}") == 0
    assert pq.read_table(tmp_path / "t.parquet")["x"].to_pylist() == [deep]
    numbers = pa.table({"id": ["a", "b", "c"], "text": ["red"] * 3, "x": [1.5, float("nan"), None]})
    pq.write_table(numbers, tmp_path / "n.parquet")
    labelled = label("--model", colours, "--input", tmp_path / "n.parquet")
    assert exported(labelled, tmp_path / "n.csv", "--fields", "x") == 0
    assert [row.split(",")[0] for row in (tmp_path / "n.csv").read_text().splitlines()] == ["x", "1.5", "nan", ""]


def test_a_group_of_rows_holds_little_text() -> None:
    rows = [Row({}, None, None, tables.BYTES_AT_ONCE // 3) for _ in range(8)]
    assert [len(chunk) for chunk in tables._chunks(rows, 100)] == [4, 4]
    assert [len(chunk) for chunk in tables._chunks(rows, 3)] == [3, 3, 2]


def test_a_redacted_failure_does_not_quote_a_value(tmp_path: Path, colours: Path, label: Label) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "text": "my SECRET words"}\n')
    flags = ("--keep_fields", "text:int", "--redact_failures", "--max_failure_rate", 1)
    labelled = label("--model", colours, "--input", path, *flags)
    failed = next((labelled / "failures").iterdir()).read_text()
    assert "wrong_type" in failed
    assert "SECRET" not in failed


def test_few_rows_of_many_labels_are_in_memory_together() -> None:
    assert tables.Labels({"m": ["a", "b"]}, "lists").rows_at_once == tables.MOST_ROWS
    assert tables.Labels({"m": [str(number) for number in range(1_212)]}, "columns").rows_at_once == 412


def test_types_of_fields() -> None:
    big, huge = 2**60, 2**63
    expected: dict[str, list[Any]] = {
        "int64": [1, None, big],
        "double": [1, 2.5],
        "bool": [True, None],
        "string": ["a", None],
    }
    for column in ([1, "a"], [big, 0.5], [huge, 1], [[1]], [None], [True, 1]):
        assert tables.field_types([{"field": value} for value in column]) == {"field": pa.string()}
    records = [{name: column[i] for name, column in expected.items() if i < len(column)} for i in range(3)]
    assert {name: str(kind) for name, kind in tables.field_types(records).items()} == {name: name for name in expected}


READABLE: dict[str, list[tuple[Any, Any]]] = {
    "int": [
        (3, 3),
        ("3", 3),
        (" 3 ", 3),
        (3.0, 3),
        ("3.0", 3),
        (2**63 - 1, 2**63 - 1),
        ("9007199254740993.0", 2**53 + 1),
    ],
    "float": [(0.5, 0.5), ("0.5", 0.5), ("5e-1", 0.5), (2, 2.0)],
    "bool": [(True, True), ("true", True), ("FALSE", False)],
}
UNREADABLE: dict[str, list[Any]] = {
    "int": ["n.d.", 3.5, True, [3], "1_000", 2**63, "1e400", "nan"],
    "float": ["inf", "nan", {}, False, "1_0.5"],
    "bool": [1, "yes", []],
}


@pytest.mark.parametrize("kind", kept_fields.TYPES)
def test_a_value_is_read_as_its_declared_type_or_refused(kind: str) -> None:
    for value, expected in [*READABLE[kind], (None, None), ("", None), (" ", None)]:
        found = kept_fields.read(value, kept_fields.TYPES[kind])
        assert (found, type(found)) == (expected, type(expected))
    for value in UNREADABLE[kind]:
        with pytest.raises(ValueError, match="."):
            kept_fields.read(value, kept_fields.TYPES[kind])


def test_a_run_in_parquet_is_one_data_set_with_typed_fields(tmp_path: Path, colours: Path, label: Label) -> None:
    path = tmp_path / "corpus.jsonl"
    rows = [{"id": f"d{i}", "text": text, "year": 2000 + i, "venue": [i]} for i, text in enumerate(texts(80))]
    rows[3]["year"] = "n.d."
    path.write_bytes(WRITE["jsonl"](rows))
    flags = ("--format", "parquet", "--keep_fields", "year:int,venue", "--slice_mb", 0.001, "--max_failure_rate", 1)
    labelled = label("--model", colours, "--input", path, *flags)
    folder = labelled / "predictions"
    files = sorted(folder.iterdir())
    assert len(files) > 3
    assert len({pq.read_schema(file) for file in files}) == 1
    every = folder / "*.parquet"
    assert query("SELECT sum(year), count(*) FROM {}", every) == [(sum(range(2000, 2080)) - 2003, 79)]
    counted = query(
        "SELECT label, count(*) FROM (SELECT unnest(colours.labels) AS label FROM {}) GROUP BY label", every
    )
    frame = pd.read_parquet(folder)
    assert str(frame["year"].dtype) == "int64"
    assert dict(counted) == frame["colours"].map(lambda value: value["labels"]).explode().value_counts().to_dict()
    failed = json.loads(next(iter((labelled / "failures").iterdir())).read_text())
    assert (failed["id"], failed["reason"]) == ("d3", "wrong_type")
    assert failed["detail"] == "field 'year' holds 'n.d.', which is not of its type"
    schema = {column["name"]: column["type"] for column in json.loads((labelled / "schema.json").read_text())}
    assert (schema["year"], schema["venue"]) == ("INTEGER", "STRING")


def test_a_storage_that_refuses_the_table_is_one_sentence(
    cloud: CloudStorage,
    corpus: Path,
    colours: Path,
    label: Label,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled = label("--model", colours, "--input", corpus)

    def refuse(*_: object) -> None:
        raise OSError("the storage is full")

    monkeypatch.setattr(gcs, "upload", refuse)
    capsys.readouterr()
    to = f"gs://{BUCKET}/t.csv"
    assert export.main([str(labelled), "--to", to]) == 2
    assert f"error: {to} cannot be reached: the storage is full" in capsys.readouterr().err
    assert not cloud.contents(BUCKET, "")

"""Test that one corpus gives the same labels in every format, with the same accounting."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import beam_runner, delta, estimate_cost, run, verify
from tests.inference.conftest import rows_of, texts

Label = Callable[..., Path]
ROWS: list[dict[str, Any]] = [
    {"id": f"d{i}", "text": f'{text}, "quoted"\nand a second line', "year": str(2000 + i % 20)}
    for i, text in enumerate(texts(200))
]


def table(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    """Return rows as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as Parquet, with a column that nobody needs."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{**row, "vector": [0.5] * 8} for row in rows]), sink, row_group_size=30)
    return bytes(sink.getvalue().to_pybytes())


WRITE: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "jsonl": lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    "csv": table,
    "tsv": lambda rows: table(rows, "\t"),
    "csv.gz": lambda rows: gzip.compress(table(rows)),
    "parquet": parquet,
}


@pytest.fixture
def whole(tmp_path: Path, colours: Path, label: Label) -> list[dict[str, Any]]:
    """Return the predictions of ROWS as JSON lines."""
    (tmp_path / "whole.jsonl").write_bytes(WRITE["jsonl"](ROWS))
    return rows_of(label("--model", colours, "--input", tmp_path / "whole.jsonl", "--keep_fields", "year"))


def test_a_folder_of_mixed_formats_is_one_corpus(
    tmp_path: Path, colours: Path, label: Label, whole: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, (suffix, write) in enumerate(WRITE.items()):
        (folder / f"{number}.{suffix}").write_bytes(write(ROWS[number * 40 : number * 40 + 40]))
    flags = ("--model", colours, "--input", folder / "*", "--keep_fields", "year", "--slice_mb", 0.002)
    labelled = label(*flags)
    assert rows_of(labelled) == whole
    assert len(list((labelled / "receipts").iterdir())) > 10
    assert verify.main([str(labelled), "--input"]) == 0
    for receipt in sorted((labelled / "receipts").iterdir())[::2]:
        receipt.unlink()
    assert rows_of(label(*flags, output=labelled)) == whole
    limited = label(*flags, "--limit", 130)
    assert [row["id"] for row in rows_of(limited)] == [f"d{i}" for i in range(130)]
    assert verify.main([str(limited), "--input"]) == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_fails_in_a_table_is_counted_like_lines(tmp_path: Path, colours: Path, label: Label, suffix: str) -> None:
    rows = [*ROWS[:30], {"id": "none", "text": "", "year": "1"}, {"id": "", "text": "red", "year": "1"}]
    (tmp_path / f"a.{suffix}").write_bytes(WRITE[suffix](rows))
    labelled = label("--model", colours, "--input", tmp_path / f"a.{suffix}", "--max_failure_rate", 1)
    failures = rows_of(labelled, "failures")
    assert [(row["line"], row["reason"]) for row in failures] == [(31, "empty_text"), (32, "no_id")]
    assert json.loads(failures[0]["raw"]).items() >= {"id": "none", "text": ""}.items()
    assert json.loads((labelled / "summary.json").read_bytes())["predicted"] == 30


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_format_can_be_set_and_a_wrong_one_is_a_sentence(
    tmp_path: Path, colours: Path, label: Label, whole: list[dict[str, Any]], suffix: str, capsys: Any
) -> None:
    path = tmp_path / "part-0"
    path.write_bytes(WRITE[suffix](ROWS))
    flags = ("--model", colours, "--input", path, "--keep_fields", "year")
    label(*flags, expect=2)
    assert "rename it, or set --input_format" in capsys.readouterr().err
    assert rows_of(label(*flags, "--input_format", suffix)) == whole
    other = "parquet" if suffix != "parquet" else "csv"
    label(*flags, "--input_format", other, expect=2)
    error = capsys.readouterr().err
    assert f"{path}: expected" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("suffix", WRITE)
def test_plan_estimate_stream_and_delta_read_it(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path, model = tmp_path / f"a.{suffix}", ["--model", str(colours)]
    path.write_bytes(WRITE[suffix](ROWS))
    given = [*model, "--input", str(path)]
    assert beam_runner.main([*given, "--output", str(tmp_path / "planned"), "--plan"]) == 0
    assert "200" in capsys.readouterr().out
    assert estimate_cost.main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["corpus"]["documents"]["value"] == pytest.approx(200, rel=0.2)
    assert run.main([*given, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 200
    labelled = label(*given)
    later = tmp_path / f"b.{suffix}"
    later.write_bytes(WRITE[suffix]([*ROWS[1:], {**ROWS[0], "text": "red"}]))
    made = tmp_path / "made"
    assert delta.main(["--input", str(later), "--previous", str(labelled), "--output", str(made)]) == 0
    (file,) = (made / "documents").iterdir()
    (document,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (document["id"], document["text"]) == ("d0", "red")
    assert not (made / "text").exists()


def test_no_copy_of_a_text_is_left_when_a_run_is_finished(tmp_path: Path, colours: Path, label: Label) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(WRITE["jsonl"](ROWS)))
    flags = ("--model", colours, "--input", path, "--slice_mb", 0.002)
    labelled = label(*flags)
    assert not (labelled / "text").exists()
    (labelled / "summary.json").unlink()
    min((labelled / "receipts").iterdir()).unlink()
    (labelled / "text").mkdir()
    (labelled / "text" / f"{'0' * 32}-{0:015d}.zst").write_bytes(b"left by a killed worker")
    label(*flags, output=labelled)
    assert not (labelled / "text").exists()

"""Tests labelling without Beam: it gives the same rows as the pipeline."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import run
from tests.inference.conftest import rows_of

Label = Callable[..., Path]


def test_rows_equal_the_pipelines(tmp_path: Path, corpus: Path, colours: Path, offensive: Path, label: Label) -> None:
    flags = ["--model", colours, "--model", offensive, "--scores", "all", "--keep_fields", "year", "--input", corpus]
    assert run.main([*map(str, flags), "--output", str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == rows_of(label(*flags))


def test_a_pipe(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    piped = b"\n".join([*corpus.read_bytes().splitlines()[:3], b"broken", b""])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    assert run.main(["--model", str(colours)]) == 3
    captured = capsysbinary.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == ["d0", "d1", "d2"]
    failure, counts = captured.err.splitlines()
    assert json.loads(failure)["reason"] == "not_json"
    assert json.loads(failure)["line"] == 4
    assert counts == b"3 predicted, 1 failed"


def test_compressed_and_truncated_input_with_failures_in_a_file(tmp_path: Path, corpus: Path, colours: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(corpus.read_bytes())[:-100])
    flags = ["--model", colours, "--input", path, "--failures", tmp_path / "failures", "--output", tmp_path / "rows"]
    mine = tmp_path / "rows.part"
    mine.write_text("years of work")
    assert run.main([*map(str, flags), "--max_failure_rate", "1"]) == 3
    assert run.main([*map(str, flags), "--max_failure_rate", "1", "--allow_damaged_files"]) == 0
    (failure,) = [json.loads(line) for line in (tmp_path / "failures").read_text().splitlines()]
    assert failure["reason"] == "damaged_file"
    assert failure["line"] == len((tmp_path / "rows").read_text().splitlines()) + 1 > 10
    assert list(tmp_path.glob("*.part")) == [mine]
    assert mine.read_text() == "years of work"


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--model", "/nowhere/m", "--input", "/nowhere/x.jsonl"]) == 2
    errors = capsys.readouterr().err
    assert all(part in errors for part in ("/nowhere/m", "/nowhere/x.jsonl"))
    assert run.main(["--model", "/nowhere/m", "--runner", "DirectRunner"]) == 2
    assert "unknown flag --runner" in capsys.readouterr().err

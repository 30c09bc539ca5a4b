"""Test the look at a sample of a corpus."""

import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import peek
from tests.inference.conftest import texts, write_corpus
from tests.inference.test_formats import WRITE


def content(capsys: pytest.CaptureFixture[str], *flags: object) -> dict[str, Any]:
    capsys.readouterr()
    assert peek.main([*map(str, flags), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one corpus in several formats."""
    rows = [{"id": f"d{i // 2}", "text": text, "year": i} for i, text in enumerate(texts(100))]
    rows[3] = rows[2]
    rows[7]["year"] = None
    for suffix, write in WRITE.items():
        (tmp_path / f"corpus.{suffix}").write_bytes(write(rows))
    (tmp_path / "broken.jsonl").write_text('no JSON\n\n{"id": 5, "tags": []}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "corpus.parquet").read_bytes()[:-100])
    return tmp_path


def test_a_small_corpus_is_described_exactly(folder: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = content(capsys, folder / "*", "--model", colours)
    assert found["formats"] == {"csv": 1, "csv.gz": 1, "jsonl": 2, "parquet": 2, "tsv": 1}
    assert found["lines"] == pytest.approx({"value": 503, "low": 503, "high": 503})
    assert found["sampled"] == 503
    fields = {field["name"]: field for field in found["fields"]}
    assert fields["year"]["types"] == {"string": 297, "integer": 198}
    assert fields["year"]["filled"] == pytest.approx(495 / 501)
    assert fields["tags"]["types"] == {"list": 1}
    lengths = sorted(len(text) for text in [*texts(3), texts(3)[2], *texts(100)[4:]])
    assert fields["text"]["characters"]["longest"] == lengths[-1]
    assert fields["text"]["characters"]["median"] in lengths[49:51]
    assert found["repeated_ids"] == 501 - 51
    assert found["failures"] == {"damaged_file": 1, "not_json": 1}
    assert found["texts"]["failures"] == {"damaged_file": 1, "not_json": 1, "no_text": 1}
    assert found["texts"]["repeated_texts"] >= 400
    assert found["texts"]["tokens"]["longest"] == 42  # 40 words and two special tokens
    assert len(found["documents"]) == 2


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_large_corpus_is_sampled_from_all_its_parts(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_corpus(tmp_path / "corpus.jsonl", 20_000).read_bytes()
    path = tmp_path / f"large.jsonl{suffix}"
    compressions: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
    path.write_bytes(compressions[suffix](plain))
    monkeypatch.setattr(peek, "HEAD_BYTES", 500_000)
    found = content(capsys, path, "--documents", 300)
    assert 200 < found["sampled"] < 600
    assert found["lines"]["low"] <= 20_000 <= found["lines"]["high"]
    assert found["documents"][0]["id"] != found["documents"][1]["id"]


@pytest.mark.parametrize("documents", [1_100, 1_200, 2_000, 5_000])
def test_no_line_is_looked_at_twice(documents: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = content(capsys, write_corpus(tmp_path / "corpus.jsonl", documents))
    assert found["repeated_ids"] == 0


def test_a_large_table_is_sampled_from_all_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts(10_000))]
    for suffix in ("parquet", "csv"):
        (tmp_path / f"corpus.{suffix}").write_bytes(WRITE[suffix](rows))
        found = content(capsys, tmp_path / f"corpus.{suffix}", "--documents", 300)
        assert 200 < found["sampled"] < 600
        assert found["repeated_ids"] == 0
        assert found["lines"]["value"] == pytest.approx(10_000, rel=0.1)
    assert int(content(capsys, tmp_path / "corpus.parquet")["documents"][1]["id"][1:]) > 3_000
    (tmp_path / "broken.csv").write_bytes(b"a,a\n" + b"1,2\n" * 300_000)
    assert content(capsys, tmp_path / "*.csv", "--documents", 300)["failures"] == {"damaged_file": 1}


def test_a_corpus_of_nothing_has_no_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"id,text\n"))
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "c.parquet")
    for path in [*tmp_path.iterdir()]:
        assert content(capsys, path)["sampled"] == 0
        assert peek.main([str(path)]) == 0


def test_deep_values_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = "[" * 600 + "]" * 600
    (tmp_path / "c.jsonl").write_text('{"id": "a", "x": ' + deep + "}\n")
    assert content(capsys, tmp_path / "c.jsonl")["fields"][1]["example"] == deep
    assert peek.main([str(tmp_path / "c.jsonl")]) == 0


def test_a_person_sees_a_table_and_documents(folder: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.jsonl").write_text(
        'no JSON\n{"id": "\\u001b[31mred", "text": "the sky", "tags": [1], "none": null}\n'
    )
    assert peek.main([str(folder / "broken.jsonl"), "--model", str(colours), "--show", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1 file (1 jsonl), 0.0 MB: about 2 documents\nlooked at 2 of them, from 1 file\n" in printed
    assert "lines that hold no record: not_json 1\n" in printed
    assert "half have at most 4 tokens" in printed
    assert printed.endswith("\nid: \\x1b[31mred\ntext: the sky\ntags: [1]\nnone: null\n")
    assert re.search(r"│ tags +│ list +│ 100.0% │ +│ \[1\] +│", printed)
    assert re.search(r"│ none +│ null +│ +0.0% │", printed)


def test_wrong_use_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, expected in (
        ([folder / "empty.jsonl"], "expected files with documents, found only empty ones"),
        ([folder / "nothing*"], "expected at least one file, found none"),
        ([folder / "corpus.jsonl", "--model", folder], "model.json is missing from this directory"),
    ):
        capsys.readouterr()
        assert peek.main([*map(str, flags)]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert "Traceback" not in error

"""Test that a corpus is refused before anything runs if next to nothing of it can be labelled, and only then."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import beam_runner
from inference.corpus import look
from inference.corpus.files import InputFile, find_files
from inference.corpus.records import DocumentRecipe
from models.text import TextRecipe
from tests.cloud_storage import CloudStorage
from tests.dataflow import Service
from tests.inference.conftest import BUCKET, jsonl, launch_flags

RECIPE = DocumentRecipe((TextRecipe(),))
PAPERS = [{"id": i, "title": "On a sky", "abstract": "It is blue.", "lang": "en", "year": 2000 + i} for i in range(50)]
ROWS = [{"id": i, "text": f"the sky is {i}"} for i in range(50)]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


GOOD = lines(ROWS)
CSV = b"id,title,abstract\n" + b"1,a sky,blue\n" * 50
TEXT = GOOD.decode()
ONE = "expected one JSON object a line, found "
FIELD = "expected a field 'text', found the fields id, title, abstract, lang, year; name the text with --text_fields "
ID = "expected a field 'id', found the fields paper_id, text; name the id with --id_field paper_id, or add --id_field="
ARRAY = f"{ONE}a JSON array; convert it with `jq -c '.[]' FILE > NEW.jsonl`."
OBJECT = f"{ONE}one object over several lines; convert it with `jq -c . FILE > NEW.jsonl`, or with `jq -c '.NAME[]'`"
TABLE = "end its name with .{0}, or add --input_format {0}."
PLAIN = "expected no compression by its name, found .gz; rename it to {folder}/a.jsonl.gz."
PACKED = "expected .gz by its name, found no compression; rename it to {folder}/a.jsonl."
OTHER = "expected .bz2 by its name, found .xz; rename it to {folder}/a.jsonl.xz."


def iconv(name: str) -> str:
    return f"expected UTF-8, found {name}; convert it with `iconv -f {name} -t UTF-8 FILE > NEW.jsonl`"


CASES: dict[str, tuple[str, bytes, str]] = {
    "field": ("a.jsonl", lines(PAPERS), FIELD + "title,abstract."),
    "id": ("a.jsonl", lines([{"paper_id": 1, "text": "x"}] * 30), ID),
    "array": ("a.jsonl", json.dumps(ROWS).encode(), ARRAY),
    "large array": ("a.json", json.dumps(ROWS * 1000).encode(), ARRAY),
    "indented array": ("a.json", json.dumps(ROWS, indent=2).encode(), ARRAY),
    "indented object": ("a.json", json.dumps({"rows": ROWS}, indent=2).encode(), OBJECT),
    "utf-16 with BOM": ("a.jsonl", TEXT.encode("utf-16"), iconv("UTF-16")),
    "utf-16-le": ("a.jsonl", TEXT.encode("utf-16-le"), iconv("UTF-16LE")),
    "utf-16-be": ("a.jsonl", TEXT.encode("utf-16-be"), iconv("UTF-16BE")),
    "utf-32 with BOM": ("a.jsonl", TEXT.encode("utf-32"), iconv("UTF-32")),
    "utf-32-be": ("a.jsonl", TEXT.encode("utf-32-be"), iconv("UTF-32BE")),
    "csv": ("a.jsonl", CSV, f"{ONE}CSV; {TABLE.format('csv')}"),
    "tsv": ("a.jsonl", CSV.replace(b",", b"\t"), f"{ONE}TSV; {TABLE.format('tsv')}"),
    "parquet": (
        "a.jsonl",
        b"PAR1" + bytes(range(256)) * 20,
        "expected JSON lines, found a Parquet file; end its name with .parquet",
    ),
    "gzip as plain": ("a.jsonl", gzip.compress(GOOD), PLAIN),
    "plain as gzip": ("a.jsonl.gz", GOOD, PACKED),
    "xz as bzip2": ("a.jsonl.bz2", lzma.compress(GOOD), OTHER),
    "compressed array": ("a.jsonl.bz2", bz2.compress(json.dumps(ROWS).encode()), ARRAY),
    "numbers": ("a.jsonl", b"1\n" * 30, "line 1: expected a JSON object, found int."),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_labelled_is_refused_and_named(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, content, sentence = CASES[case]
    (tmp_path / name).write_bytes(content)
    output = tmp_path / "run"
    assert beam_runner.main(["--model", str(colours), "--input", str(tmp_path / name), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path / name}: " in error
    assert sentence.format(folder=tmp_path) in error
    assert "Traceback" not in error
    assert error.startswith("error: --input: expected documents, found 0 in ")
    assert not output.exists()


def test_the_message_has_counts_and_a_way_to_go_on(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(PAPERS))
    flags = ["--model", str(colours), "--input", f"{tmp_path}/*.jsonl", "--output", str(tmp_path / "run")]
    assert beam_runner.main(flags) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "error: --input: expected documents, found 0 in 50 lines from the beginning of 1 file; mend what follows, or "
        "add --max_failure_rate 1 to write these lines as failures."
    )
    assert beam_runner.main([*flags, "--max_failure_rate", "1"]) == 0
    assert beam_runner.main([*flags, "--output", str(tmp_path / "other"), "--text_fields", "title,abstract"]) == 0


GOING_ON: dict[str, Callable[[], bytes]] = {
    "few lines": lambda: b"broken\n" * 19,
    "half of them": lambda: (b"broken\n" + GOOD.splitlines()[0] + b"\n") * 30,
    "empty": lambda: b"",
    "blank": lambda: b"\n \n" * 30,
    "texts that are absent here": lambda: lines([{"id": 1, "text": None}, {"id": 2, "text": ""}] * 30),
    "one long line": lambda: lines([{"id": 1, "text": "the sky " * 100_000}]),
    "lists": lambda: b'["a", "b"]\n' * 3,
    "byte order mark": lambda: b"\xef\xbb\xbf" + GOOD,
    "windows": lambda: GOOD.replace(b"\n", b"\r\n"),
    "bad beginning": lambda: b"broken\n" * 40 + GOOD * 2,
    "chinese": lambda: lines([{"id": 1, "text": "天空是蓝色的"}] * 30).decode("unicode-escape").encode(),
}


@pytest.mark.parametrize("case", GOING_ON)
def test_what_can_be_labelled_goes_on(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOING_ON[case]())
    assert look.problems(find_files([f"{tmp_path}/*"]), RECIPE) == []


def test_one_bad_file_of_many_goes_on_and_many_bad_files_do_not(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.jsonl").write_bytes(GOOD)
    (tmp_path / "0.jsonl").write_bytes(json.dumps(ROWS).encode())
    files = find_files([f"{tmp_path}/*"])
    assert look.problems(files, RECIPE) == []
    for number in range(1, 9):
        (tmp_path / f"{number}.jsonl").write_bytes(lines(PAPERS))
    (tmp_path / "8.jsonl").write_bytes(b"")
    found = look.problems(find_files([f"{tmp_path}/*"]), RECIPE)
    assert [sentence.split(":")[0] for sentence in found] == ["--input", f"{tmp_path}/0.jsonl", f"{tmp_path}/2.jsonl"]
    assert "found 0 in 201 lines from the beginning of 5 files" in found[0]


def test_only_the_lines_that_a_limit_leaves_are_looked_at(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + lines(PAPERS))
    (file,) = find_files([f"{tmp_path}/*"])
    assert look.problems([InputFile(file.path, file.size, max_lines=50)], RECIPE) == []
    assert look.problems([file], RECIPE, allowed=0.3)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_cloud_storage_is_looked_at_on_dataflow_too(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The model is in the image, so its text fields are unknown here unless a flag names them."""
    pack = gzip.compress if name.endswith(".gz") else bytes
    cloud.upload(BUCKET, name, pack(lines(PAPERS)))
    path = f"gs://{BUCKET}/{name}"
    assert beam_runner.main(launch_flags(service, plan="", input=path)) == 0
    assert beam_runner.main(launch_flags(service, plan="", input=path, text_fields="body")) == 2
    assert f"{path}: expected a field 'body', found the fields id, title" in capsys.readouterr().err
    assert beam_runner.main(launch_flags(service, plan="", input=path, id_field="doi")) == 2
    cloud.upload(BUCKET, name, pack(jsonl(50)))
    assert beam_runner.main(launch_flags(service, plan="", input=path, text_fields="text")) == 0
    assert service.jobs == []

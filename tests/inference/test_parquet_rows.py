"""Test that rows of Parquet are read once with the columns that are needed, and that damage is a failure."""

import datetime
import decimal
import hashlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.corpus import counting, files, parquet_rows, slices
from inference.corpus.files import InputFile, SourceError
from inference.corpus.parquet_rows import LayoutError
from inference.corpus.records import Line
from inference.corpus.slices import Part
from models.errors import UserError


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> InputFile:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return InputFile(str(path), path.stat().st_size, format="parquet")


def parts_of(file: InputFile, slice_bytes: int) -> list[Part]:
    return [part for piece in counting.count_all([file], slice_bytes) for part in piece.parts]


def read(file: InputFile, slice_bytes: int = 10**9, fields: tuple[str, ...] | None = None) -> list[Line]:
    return [line for part in parts_of(file, slice_bytes) for line in slices.read_lines(part, "", fields)]


ROWS = [{"id": number, "text": f"text {number} " * 20, "vector": [0.5] * 9} for number in range(500)]


@pytest.mark.parametrize("group", [7, 100, 10_000])
@pytest.mark.parametrize("slice_bytes", [1, 1_000, 10**9])
def test_every_row_is_read_once_with_its_number(tmp_path: Path, group: int, slice_bytes: int) -> None:
    file = write(tmp_path / "a.parquet", ROWS, row_group_size=group)
    lines = read(file, slice_bytes, ("id", "text", "absent"))
    assert [line.number for line in lines] == list(range(1, 501))
    assert [line.record for line in lines] == [{"id": row["id"], "text": row["text"]} for row in ROWS]
    assert sum(part.source_bytes for part in parts_of(file, slice_bytes)) == file.size


def test_values_become_what_json_can_hold(tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
    values = {
        "large": 2**63 - 1,
        "real": 0.5,
        "yes": True,
        "none": None,
        "list": [{"a": 1}, {"a": None}],
        "day": moment.date(),
        "moment": moment,
        "price": decimal.Decimal("1.10"),
        "utf8": b"text",
        "bytes": b"\xff\x00",
    }
    (line,) = read(write(tmp_path / "a.parquet", [values]))
    assert line.record == {
        **values,
        "day": "2026-05-04",
        "moment": "2026-05-04T03:02:01+00:00",
        "price": "1.10",
        "utf8": "text",
        "bytes": "/wA=",
    }
    assert line.size == len(line.json)


def test_a_file_without_rows_or_without_the_columns(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    file = InputFile(str(tmp_path / "a.parquet"), (tmp_path / "a.parquet").stat().st_size, format="parquet")
    assert read(file) == []
    assert [part.source_bytes for part in parts_of(file, 10)] == [file.size]
    assert [line.record for line in read(write(tmp_path / "b.parquet", ROWS[:2]), 10**9, ("other",))] == [{}, {}]


def test_a_file_that_changed_since_it_was_counted_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", ROWS)
    (part,) = parts_of(file, 10**9)
    write(tmp_path / "a.parquet", [{**ROWS[0], "text": "another"}, *ROWS[1:]])
    with pytest.raises(SourceError, match="expected the bytes that were counted"):
        list(slices.read_lines(part))


def test_a_storage_that_fails_does_not_make_a_file_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", ROWS, row_group_size=100)
    (part,) = parts_of(file, 10**9)
    lines = slices.read_lines(part)
    next(lines)  # of the first of five row groups
    monkeypatch.setattr(files._StorageReader, "readinto", Mock(side_effect=SourceError("503")))
    with pytest.raises(SourceError, match="503"):
        list(lines)


def test_a_value_that_cannot_be_read_fails_its_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    file = InputFile(str(tmp_path / "a.parquet"), (tmp_path / "a.parquet").stat().st_size, format="parquet")
    lines = read(file)
    assert [line.problem and line.problem[0] for line in lines] == [None, "not_utf8", None]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "one without its end"),
        (b"PAR1" + bytes(20), "one without its end"),
        (b"PARE" + bytes(20) + b"PARE", "an encrypted one"),
        (b"PAR1" + bytes(20) + (8).to_bytes(4, "little") + b"PAR1", "a damaged one"),
    ],
)
def test_a_file_without_a_footer_is_a_sentence_and_in_a_run_a_failure(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    (line,) = read(InputFile(str(path), len(content), format="parquet"))
    assert line.problem
    assert line.problem[0] == "damaged_file"
    with path.open("rb") as stream, pytest.raises(LayoutError, match=f"expected a whole Parquet file, found {found}"):
        parquet_rows.layout(stream, str(path))


def test_a_corrupt_page_is_a_failure_for_each_row_that_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = write(path, ROWS, row_group_size=100, use_dictionary=False, write_page_checksum=True, compression="none")
    content = bytearray(path.read_bytes())
    place = content.index(b"text 250 text")
    content[place : place + 8] = b"TEXT 250"
    path.write_bytes(content)
    lines = read(file, 10**9, ("id", "text"))
    assert [line.number for line in lines] == list(range(1, 501))
    failed = [line.number for line in lines if line.problem]
    assert failed == list(range(201, 301))
    assert all(line.problem and line.problem[0] == "damaged_file" for line in lines if line.number in failed)


SEED = pa.BufferOutputStream()
pq.write_table(pa.Table.from_pylist(ROWS[:40]), SEED, row_group_size=10, write_page_checksum=True)
CONTENT = SEED.getvalue().to_pybytes()


@settings(max_examples=60)
@given(
    flips=st.lists(st.tuples(st.integers(4, len(CONTENT) - 1), st.integers(1, 255)), max_size=3),
    end=st.just(len(CONTENT)) | st.integers(0, len(CONTENT)),
)
def test_any_bytes_end_as_lines_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], end: int
) -> None:
    damaged = bytearray(CONTENT)
    for place, change in flips:
        damaged[place] ^= change
    path = tmp_path_factory.mktemp("p") / f"{hashlib.sha256(damaged[:end]).hexdigest()[:8]}.parquet"
    path.write_bytes(damaged[:end])
    file = InputFile(str(path), end, format="parquet")
    try:
        for part in parts_of(file, 200):
            lines = list(slices.read_lines(part, "", ("id", "text")))
            assert len(lines) == part.lines + (part.damage is not None)
    except UserError:
        pass

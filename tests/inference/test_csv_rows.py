"""Test that rows of CSV are those of Python's csv module, however the file is cut, and that faults are failures."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.corpus import counting, csv_rows, slices
from inference.corpus.csv_rows import NamesError, Row
from inference.corpus.files import Format, InputFile
from inference.corpus.records import MAX_LINE_BYTES, Line
from inference.corpus.slices import Part

PIECES = ["a", "é", '"', ",", "\t", "\r\n", "\n", "\r", " ", '""', '",', '\n"', "\x00"]
HEADER = b"id,text\n"


def chunks(content: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into chunks of these sizes, and one for the rest."""
    cut, start = [], 0
    for size in sizes:
        cut.append(content[start : start + size])
        start += size
    return [*cut, content[start:]]


def rows_of(content: bytes, sizes: list[int] | None = None) -> list[Row]:
    return list(csv_rows.split_rows(chunks(content, sizes or []), 0, ","))


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    sizes=st.lists(st.integers(0, 9), max_size=9),
)
def test_rows_are_those_of_the_csv_module_however_the_chunks_are_cut(text: str, sizes: list[int]) -> None:
    content = text.encode()
    rows = rows_of(content, sizes)
    assert rows == rows_of(content)
    assert b"".join(content[row.start : row.start + row.size] for row in rows) == content
    expected = list(csv.reader(io.StringIO(text, newline="")))
    assert [[cell.encode("latin-1").decode() for cell in row.cells] for row in rows] == expected


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    slice_bytes=st.integers(1, 30),
    packed=st.booleans(),
)
def test_every_row_is_read_once_for_any_slice_size(
    tmp_path_factory: pytest.TempPathFactory, text: str, slice_bytes: int, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("c") / ("a.csv.gz" if packed else "a.csv")
    content = HEADER + text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    whole = list(slices.all_lines(file := InputFile(str(path), path.stat().st_size, format="csv")))
    parts = parts_of(file, slice_bytes, str(path.parent / "text"))
    lines = [line for part in parts for line in slices.read_lines(part, str(path.parent / "text"))]
    assert lines == whole
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert sum(part.source_bytes for part in parts) == file.size


def parts_of(file: InputFile, slice_bytes: int, copies: str = "") -> list[Part]:
    return [part for piece in counting.count_all([file], slice_bytes, copies) for part in piece.parts]


def read(path: Path, content: bytes, file_format: Format = "csv", slice_bytes: int = 100) -> list[Line]:
    path.write_bytes(content)
    file = InputFile(str(path), len(content), format=file_format)
    return [line for part in parts_of(file, slice_bytes) for line in slices.read_lines(part)]


def test_cells_become_a_record(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,na\xc3\xafve\r\n'
    first, blank, last = read(tmp_path / "a.csv", content)
    assert first.record == {"id": "1", "text": 'two\r\nlines, "quoted"'}
    assert (blank.record, blank.data, blank.problem) == (None, b"", None)
    assert (last.number, last.record) == (3, {"id": "2", "text": "naïve"})
    (row,) = read(tmp_path / "a.tsv", b"id\ttext\n1\ta, b\n", "tsv")
    assert row.record == {"id": "1", "text": "a, b"}


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (b"1,a,b", "wrong_cells", "expected 2 cells, found 3"),
        (b"1", "wrong_cells", "expected 2 cells, found 1"),
        (b"1,\xff", "not_utf8", "byte 0 of a cell is not UTF-8"),
    ],
)
def test_a_faulty_row_is_one_failure(tmp_path: Path, row: bytes, reason: str, detail: str) -> None:
    faulty, good = read(tmp_path / "a.csv", HEADER + row + b"\n2,good\n")
    assert faulty.problem
    assert faulty.problem[0] == reason
    assert detail in faulty.problem[1]
    assert faulty.json == row
    assert good.record == {"id": "2", "text": "good"}


def test_a_quote_that_never_ends_takes_a_bounded_part_of_the_file(tmp_path: Path) -> None:
    line = b"2," + b"good " * 200 + b"\n"
    lines = read(tmp_path / "a.csv", HEADER + b'1,"bad\n' + line * 22_000, slice_bytes=10**6)
    assert lines[0].problem
    assert lines[0].problem[0] == "line_too_long"
    assert MAX_LINE_BYTES < lines[0].size < 1.1 * MAX_LINE_BYTES
    assert 10_000 < len([line for line in lines if line.record]) == len(lines) - 1


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"id,id\n1,2\n", "'id', 'id'"),
        (b"id,\n1,2\n", "'id', ''"),
        (b"id;text\n1;2\n", "one column 'id;text', as with another separator"),
        (b"\xff,a\n", "bytes that are not UTF-8"),
        (b"\n1,2\n", "none"),
    ],
)
def test_a_first_row_without_names_is_a_sentence_and_in_a_run_a_failure(
    tmp_path: Path, header: bytes, found: str
) -> None:
    path = tmp_path / "a.csv"
    (line,) = read(path, header)
    assert line.problem
    assert line.problem[0] == "damaged_file"
    with pytest.raises(NamesError, match=f"separated by ',', found {found}; put the file right"):
        list(slices.all_lines(InputFile(str(path), len(header), format="csv")))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("slice_bytes", [500, 10**6])
def test_what_a_truncated_file_still_gives_is_read(tmp_path: Path, share: float, slice_bytes: int) -> None:
    content = HEADER + b"".join(b'%d,"a ""row"", %d"\n' % (i, i * i * 7919) for i in range(2_000))
    packed = gzip.compress(content)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed[: int(len(packed) * share)])
    file = InputFile(str(path), path.stat().st_size, format="csv")
    *good, broken = [line for part in parts_of(file, slice_bytes) for line in slices.read_lines(part)]
    assert [line.record for line in good] == [
        {"id": str(i), "text": f'a "row", {i * i * 7919}'} for i in range(len(good))
    ]
    assert len(good) > 200 * share
    assert broken.problem
    assert broken.problem[0] == "damaged_file"

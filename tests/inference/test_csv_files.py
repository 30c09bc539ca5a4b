"""Test that files of CSV and TSV are cut at the ends of rows, and read once, whole or damaged."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.corpus import counting, slices
from inference.corpus.csv_rows import HeaderError
from inference.corpus.files import Format, InputFile, SourceError
from inference.corpus.records import Line
from inference.corpus.slices import Part

PIECES = ["a", "é", '"', ",", "\t", "\r\n", "\n", "\r", " ", '""', '",', '\n"', "\x00"]
HEADER = b"id,text\n"


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


def test_a_first_row_without_names_is_a_sentence_and_in_a_run_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    (line,) = read(path, b"id,id\n1,2\n")
    assert line.problem
    assert line.problem[0] == "damaged_file"
    with pytest.raises(HeaderError, match=f"^{path}: expected the names of the columns in the first row, found the"):
        list(slices.all_lines(InputFile(str(path), 10, format="csv")))


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


def test_names_of_columns_that_change_after_they_were_counted_label_no_other_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content = b"id,text\n" + b"".join(b"%d,row %d\n" % (i, i) for i in range(100))
    path.write_bytes(content)
    file = InputFile(str(path), len(content), format="csv")
    first, *others = parts_of(file, 100)
    path.write_bytes(content.replace(b"id,text", b"text,id"))
    with pytest.raises(SourceError, match="expected the bytes that were counted"):
        list(slices.read_lines(first))
    assert others
    records = [line.record for part in others for line in slices.read_lines(part)]
    assert records[-1] == {"id": "99", "text": "row 99"}
    whole = [line.record for line in slices.all_lines(file)]
    assert whole[-1] == {"text": "99", "id": "row 99"}

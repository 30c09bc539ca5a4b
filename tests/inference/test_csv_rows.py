"""Test that rows of CSV are those of Python's csv module, however the file is cut, and that faults are problems."""

import csv
import io
import itertools
import tracemalloc
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.corpus import csv_rows
from inference.corpus.csv_rows import HEADER_BYTES, Dialect, read_header, split_rows, to_line
from inference.corpus.records import MAX_LINE_BYTES, Line
from models.errors import UserError

PIECES = [b"a", b" ", "é".encode(), b'"', b'""', b'"""', b",", b"\t", b'",', b',"', b"\r", b"\n", b"\r\n", b'\n"']
PIECES += [b"\x00", b"\xff", b"|", b"\x0b", b"\xe2\x80\xa8"]
CONTENTS = st.lists(st.sampled_from(PIECES), max_size=50).map(b"".join) | st.binary(max_size=50)
CUTS = st.lists(st.integers(0, 9), max_size=20)
SEPARATORS = st.sampled_from([",", "\t", "|", " "])

Row = tuple[int, bytes, int]


def chunks(content: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into chunks of these sizes, and one for the rest."""
    bounds = [0, *itertools.accumulate(sizes), None]
    return [content[start:end] for start, end in itertools.pairwise(bounds)]


def rows_of(content: bytes, separator: str = ",", sizes: list[int] | None = None) -> list[Row]:
    return list(split_rows(chunks(content, sizes or []), 7, Dialect(separator, ())))


def lines_of(content: bytes, separator: str = ",") -> list[Line]:
    dialect, start = read_header(content, separator)
    rows = split_rows([content[start:]], start, dialect)
    return [to_line(number, data, size, dialect) for number, (_, data, size) in enumerate(rows, 1)]


def expected_rows(content: bytes, separator: str, most_bytes: int) -> list[tuple[int, list[str] | None]]:
    """Return the size and the cells of each row as the csv module reads them; no cells for a row that is too long."""
    lines = list(io.StringIO(content.decode("latin-1"), newline=""))
    rows: list[tuple[int, list[str] | None]] = []
    while lines:
        reader = csv.reader(lines, delimiter=separator)
        cells: list[str] | None = next(reader)
        sizes = list(itertools.accumulate(map(len, lines[: reader.line_num])))
        taken = next((number for number, size in enumerate(sizes, 1) if size > most_bytes), len(sizes))
        rows.append((sizes[taken - 1], cells if sizes[-1] <= most_bytes else None))
        lines = lines[taken:]
    return rows


@given(CONTENTS, SEPARATORS, CUTS, st.sampled_from([3, 20, MAX_LINE_BYTES]))
def test_rows_are_those_of_the_csv_module_however_the_chunks_are_cut(
    content: bytes, separator: str, sizes: list[int], most_bytes: int
) -> None:
    with patch.object(csv_rows, "MAX_LINE_BYTES", most_bytes):
        rows = rows_of(content, separator, sizes)
    offset = 7
    found: list[tuple[int, list[str] | None]] = []
    for start, data, size in rows:
        assert start == offset
        offset += size
        cells = next(csv.reader([data.decode("latin-1")], delimiter=separator)) if size <= most_bytes else None
        assert content[start - 7 :].startswith(data)
        assert len(data) <= most_bytes or size <= most_bytes
        found.append((size, cells))
    assert found == expected_rows(content, separator, most_bytes)
    assert offset == 7 + len(content)


@given(CONTENTS, SEPARATORS, CUTS)
def test_any_bytes_become_lines_or_a_sentence(content: bytes, separator: str, sizes: list[int]) -> None:
    try:
        dialect, start = read_header(content, separator)
    except UserError:
        dialect, start = Dialect(separator, ("a", "b")), 0
    rows = list(split_rows(chunks(content[start:], sizes), start, dialect))
    assert rows == list(split_rows([content[start:]], start, dialect))
    for number, (_, data, size) in enumerate(rows, 1):
        line = to_line(number, data, size, dialect)
        assert (line.number, line.data, line.size) == (number, data, size)
        assert (line.record is not None) == (line.problem is None and data != b"")
        assert line.record is None or tuple(line.record) == dialect.columns


def test_cells_become_a_record() -> None:
    content = b'\xef\xbb\xbfid,"text"\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,na\xc3\xafve\n,"'
    first, blank, second, last = lines_of(content + b'"\r')
    assert first == Line(1, b'1,"two\r\nlines, ""quoted"""', None, 28, {"id": "1", "text": 'two\r\nlines, "quoted"'})
    assert blank == Line(2, b"", None, 2)
    assert second.record == {"id": "2", "text": "naïve"}
    assert last.record == {"id": "", "text": ""}
    (row,) = lines_of(b"id\ttext\n1\ta, b\n", "\t")
    assert row.record == {"id": "1", "text": "a, b"}


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (b"1,a,b", "wrong_cells", "expected 2 cells, found 3"),
        (b"1", "wrong_cells", "expected 2 cells, found 1"),
        (b" ", "wrong_cells", "expected 2 cells, found 1"),
        (b"1,\xff", "not_utf8", "byte 2 of the row is not UTF-8"),
        (b"1,\x00", "not_csv", "the row holds NUL bytes"),
    ],
)
def test_a_faulty_row_is_one_line_with_a_problem(row: bytes, reason: str, detail: str) -> None:
    faulty, good = lines_of(b"id,text\n" + row + b"\n2,good\n")
    assert faulty.problem
    assert faulty.problem[0] == reason
    assert detail in faulty.problem[1]
    assert (faulty.data, faulty.record) == (row, None)
    assert good.record == {"id": "2", "text": "good"}


@pytest.mark.parametrize("rest", [b"", b"\n", b"\n2,good\n3,good\n"])
def test_a_quote_that_does_not_close_before_the_file_ends_is_a_problem(rest: bytes) -> None:
    good, faulty = lines_of(b'id,text\n0,"closes\n"\n1,"bad' + rest)
    assert good.record == {"id": "0", "text": "closes\n"}
    assert faulty.problem == ("not_csv", "the quote that opens cell 2 does not close before the file ends")


def test_after_a_quote_that_does_not_close_the_file_is_read_on_at_the_next_line_that_is_too_far_away() -> None:
    with patch.object(csv_rows, "MAX_LINE_BYTES", 100):
        broken, *lines = lines_of(b'id,text\n1,"bad\n' + b"2,good\n" * 50)
    assert broken.problem
    assert broken.problem[0] == "line_too_long"
    assert (len(broken.data), broken.size) == (100, 105)
    assert [line.record for line in lines] == [{"id": "2", "text": "good"}] * 36


@pytest.mark.parametrize("line", [b"text, ", b"short\n", b'""', b"\r", b'"\n"'])
def test_a_row_that_is_too_long_takes_bounded_memory(line: bytes) -> None:
    def endless(number: int) -> Iterator[bytes]:
        yield b'1,"'
        for _ in range(number):
            yield line * 1_000

    with patch.object(csv_rows, "MAX_LINE_BYTES", 10_000):
        tracemalloc.start()
        size = sum(size for _, _, size in split_rows(endless(200), 0, Dialect(",", ())))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert size == 3 + 200_000 * len(line)
    assert peak < 150_000


def test_a_row_may_take_as_many_bytes_as_a_line() -> None:
    text = b"t" * (MAX_LINE_BYTES - 5)
    for content, reason in ((text, None), (text + b"t", "line_too_long")):
        (line,) = lines_of(b'id,text\n1,"' + content + b'"\n')
        assert (line.problem and line.problem[0]) == reason


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"", "no names; add"),
        (b"\n1,2\n", "no names; add"),
        (b",,\n", "no names; add"),
        (b"id,id\n1,2\n", "the name 'id' more than once; rename one column."),
        (b"id,,text\n", "no name for column 2 of 3; name it."),
        (b"id;text\n1;2\n", "one column 'id;text'; separate the cells by ',' instead of ';'."),
        (b"id\ttext\n", r"one column 'id\\ttext'; separate the cells by ',' instead of '\\t'."),
        (b"\xff\xfei\x00d\x00", "bytes that are not UTF-8; convert the file to UTF-8."),
        (b"i\x00d\x00", "NUL bytes; convert the file to UTF-8."),
        (b'id,"text\n1,2\n', "a quote that does not close; close it."),
        (b'id,"text\n' + b"1,2\n" * HEADER_BYTES, "a row of more than 1,048,576 bytes; close its quotes"),
    ],
)
def test_a_first_row_without_names_is_a_sentence(header: bytes, found: str) -> None:
    with pytest.raises(UserError, match=f"^expected the names of the columns in the first row, found {found}"):
        read_header(header[:HEADER_BYTES], ",")

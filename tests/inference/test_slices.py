"""Test that every line is read exactly once with its number, for any slice size, compression or damage."""

import bz2
import gzip
import lzma
import os
import re
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from inference.corpus import counting, slices
from inference.corpus.files import InputFile, SourceError, find_files
from inference.corpus.records import MAX_LINE_BYTES, Line
from inference.corpus.slices import Part, Slice
from models.errors import UserError

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
COMPRESSED = [suffix for suffix in COMPRESS if suffix]


def write(folder: Path, content: bytes, suffix: str = "") -> InputFile:
    path = folder / f"corpus.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](content))
    return InputFile(str(path), path.stat().st_size)


def cut(file: InputFile, slice_bytes: int, copies: str = "") -> list[Part]:
    return [part for piece in counting.count_all([file], slice_bytes, copies) for part in piece.parts]


def read(file: InputFile, slice_bytes: int) -> list[Line]:
    return [line for part in cut(file, slice_bytes) for line in slices.read_lines(part)]


def lines_of(content: bytes) -> list[bytes]:
    lines = content.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


@pytest.mark.parametrize("suffix", COMPRESS)
@given(
    content=st.binary(max_size=200).map(lambda b: bytes(b"\nab\r "[x % 5] for x in b)), slice_bytes=st.integers(1, 60)
)
def test_every_line_is_read_once_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes, slice_bytes: int
) -> None:
    file = write(tmp_path_factory.mktemp("s"), content, suffix)
    lines = read(file, slice_bytes)
    assert [line.data for line in lines] == lines_of(content)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert sum(piece.source_bytes for piece in cut(file, slice_bytes)) == file.size


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("slice_bytes", [100, 5_000, 10**7])
def test_what_a_truncated_file_still_gives_is_read_and_the_rest_is_one_problem(
    tmp_path: Path, suffix: str, share: float, slice_bytes: int
) -> None:
    content = b"".join(b'{"id": "%d", "text": "%d"}\n' % (i, i * i * 7919) for i in range(2_000))
    whole = write(tmp_path, content, suffix)
    data = Path(whole.path).read_bytes()
    Path(whole.path).write_bytes(data[: max(int(len(data) * share), 12)])
    file = InputFile(whole.path, Path(whole.path).stat().st_size)
    *good, broken = read(file, slice_bytes)
    assert [line.data for line in good] == lines_of(content)[: len(good)]
    assert all(line.problem is None for line in good)
    assert broken.problem is not None
    assert broken.problem[0] == "damaged_file"
    assert file.path in broken.problem[1]
    assert "at byte" in broken.problem[1]
    assert broken.number == len(good) + 1
    assert sum(piece.source_bytes for piece in cut(file, slice_bytes)) == file.size


def test_corrupt_bytes_in_the_middle_are_reported(tmp_path: Path) -> None:
    file = write(tmp_path, b"".join(b'{"id": "%d"}\n' % (i * 7919) for i in range(100_000)), ".gz")
    data = bytearray(Path(file.path).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    Path(file.path).write_bytes(data)
    lines = read(file, 50_000)
    assert 1_000 < len(lines) < 100_000
    assert [line.number for line in lines if line.problem] == [len(lines)]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert [line.data for line in read(write(tmp_path, b"\xef\xbb\xbfone\ntwo"), 100)] == [b"one", b"two"]


def test_a_line_over_the_limit_is_one_problem_and_kept_out_of_memory(tmp_path: Path) -> None:
    content = b"first\n" + b"x" * (MAX_LINE_BYTES + 5_000_000) + b"\nlast\n"
    first, long, last = read(write(tmp_path, content), 3_000_000)
    assert (first.data, last.data, last.number) == (b"first", b"last", 3)
    assert long.problem is not None
    assert long.problem[0] == "line_too_long"
    assert f"{MAX_LINE_BYTES + 5_000_000:,}" in long.problem[1]
    assert len(long.data) <= MAX_LINE_BYTES


def test_an_empty_file_is_one_slice_without_lines(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".xz"):
        path = tmp_path / f"empty.jsonl{suffix}"
        path.write_bytes(b"")
        (piece,) = cut(InputFile(str(path), 0), 100)
        assert list(slices.read_lines(piece)) == []


def test_names_sort_in_the_order_of_the_input(tmp_path: Path) -> None:
    file = write(tmp_path, b"12345\n" * 100)
    names = [piece.name for piece in counting.count_all([file], 50)]
    assert names == sorted(names)
    assert len(set(names)) == 12


def test_a_file_that_lost_lines_since_it_was_counted_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, b"1\n2\n3\n")
    (piece,) = cut(file, 100)
    Path(file.path).write_bytes(b"1\n")
    with pytest.raises(SourceError, match="expected the bytes that were counted"):
        list(slices.read_lines(piece))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("byte", [0, 13, 20, 29])
def test_a_byte_that_changed_since_it_was_counted_is_an_error_in_its_slice(
    tmp_path: Path, suffix: str, byte: int
) -> None:
    """The slices are those of bytes 0 to 9, 10 to 19 and so on. Lines cross their bounds."""
    content = bytearray(b"one, 1\ntwo, 22\nthree, 333\nfour\n")
    file = write(tmp_path, bytes(content), suffix)
    pieces = cut(file, 10)
    assert [line.data for piece in pieces for line in slices.read_lines(piece)] == lines_of(bytes(content))
    content[byte] ^= 1
    write(tmp_path, bytes(content), suffix)
    changed = []
    for number, piece in enumerate(pieces):
        try:
            list(slices.read_lines(piece))
        except SourceError:
            changed.append(number)
    assert changed == [{0: 0, 13: 0, 20: 1, 29: 2}[byte]]


def test_the_checksum_is_of_all_bytes_of_a_slice_also_if_fewer_lines_are_read(tmp_path: Path) -> None:
    file = write(tmp_path, b"1\n2\n3\n")
    (piece,) = cut(InputFile(file.path, file.size, max_lines=1), 100)
    assert [line.data for line in slices.read_lines(piece)] == [b"1"]
    Path(file.path).write_bytes(b"1\n2\n4\n")
    with pytest.raises(SourceError, match="expected the bytes that were counted"):
        list(slices.read_lines(piece))


def test_names_are_safe() -> None:
    strange = Slice(17, (Part(InputFile("/corpus/\x1b[31m" + "é*?/" + "x" * 255, 9), 0, 9, 1, 1, "", 9),))
    assert strange.name == "0000017-" + "x" * 80
    assert re.fullmatch(slices.NAME, strange.name)


def test_small_files_share_slices_in_the_order_of_the_input(tmp_path: Path) -> None:
    files = []
    for number in range(100):
        path = tmp_path / f"{number:03d}.jsonl"
        path.write_bytes(b"%d\n" % number * (number % 4))  # every fourth one is empty
        files.append(InputFile(str(path), path.stat().st_size))
    pieces = counting.count_all(files, 50)
    assert [part.file for piece in pieces for part in piece.parts] == files
    assert all(piece.text_bytes <= 50 for piece in pieces)
    assert len(pieces) < 20
    lines = [line for piece in pieces for part in piece.parts for line in slices.read_lines(part)]
    assert [line.data for line in lines] == [b"%d" % number for number in range(100) for _ in range(number % 4)]
    assert [piece.number for piece in pieces] == list(range(len(pieces)))


def test_the_last_slices_of_a_corpus_are_smaller(tmp_path: Path) -> None:
    size = 4 * slices.MIB
    units = list(counting.units([InputFile("a", 50 * size), InputFile("b", 50 * size)], size))
    lengths = [(unit.end or 0) - unit.start for unit in units]
    assert set(lengths[:84]) == {size}
    assert lengths[-1] <= size / 8
    assert sum(lengths) == 100 * size


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_compressed_file_is_read_from_copies_and_without_them_from_itself(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b"line %d\n" % i for i in range(1_000))
    file, copies = write(tmp_path, content, suffix), tmp_path / "text"
    parts = cut(file, 500, str(copies))
    assert all(part.has_copy for part in parts)
    assert len(parts) == len(list(copies.iterdir())) > 10

    def read_all() -> list[bytes]:
        return [line.data for part in parts for line in slices.read_lines(part, str(copies))]

    os.rename(file.path, tmp_path / "away")  # the copies are enough
    assert read_all() == lines_of(content)
    os.rename(tmp_path / "away", file.path)
    damaged, gone, *_ = sorted(copies.iterdir())
    damaged.write_bytes(zstd.compress(b"another text\n"))
    gone.unlink()
    assert read_all() == lines_of(content)


def test_a_compressed_file_of_one_slice_is_not_copied(tmp_path: Path) -> None:
    (part,) = cut(write(tmp_path, b"one\ntwo\n", ".gz"), 500, str(tmp_path / "text"))
    assert not part.has_copy
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_limit_takes_the_first_lines_of_the_input_in_order(tmp_path: Path, suffix: str) -> None:
    files = []
    for name, count in (("a", 5), ("b", 0), ("c", 5), ("d", 5)):
        path = tmp_path / f"{name}.jsonl{suffix}"
        path.write_bytes(COMPRESS[suffix](b"".join(b"%s%d\n" % (name.encode(), i) for i in range(count))))
        files.append(InputFile(str(path), path.stat().st_size))
    limited = slices.limit_lines(files, 7)
    lines = [line.data for file in limited for line in read(file, 4)]
    assert lines == [b"a0", b"a1", b"a2", b"a3", b"a4", b"c0", b"c1"]


def test_find_files_reports_every_pattern_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "b.jsonl").write_text("{}")
    (tmp_path / "a.ndjson.zst").write_text("{}")
    with pytest.raises(UserError) as error:
        find_files([f"{tmp_path}/*.txt", f"{tmp_path}/nothing*.jsonl"])
    assert "expected only files that end in .jsonl, .json, .ndjson, .csv, .tsv, .parquet (also with .gz" in str(
        error.value
    )
    assert f"found {tmp_path}/notes.txt; narrow the glob, or set --input_format." in str(error.value)
    assert "nothing*.jsonl: expected at least one file, found none" in str(error.value)
    files = find_files([f"{tmp_path}/b.jsonl", f"{tmp_path}/*.zst", f"{tmp_path}/*.jsonl"])
    assert [Path(file.path).name for file in files] == ["a.ndjson.zst", "b.jsonl"]

"""Finds the input files, opens them with or without compression, and splits their bytes into lines."""

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, cast

from inference.corpus import storage
from inference.corpus.records import MAX_LINE_BYTES
from models.errors import UserError
from models.names import is_utf8

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

Format = Literal["jsonl", "csv", "tsv", "parquet"]
SUFFIXES: dict[str, Format] = {
    **{".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"},
    **{".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"},
}
DECOMPRESSORS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open}
DAMAGE_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)  # a damaged file raises one of these
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class InputFile:
    """One file of the corpus."""

    path: str
    size: int  # bytes as stored
    max_lines: int | None = None  # most lines that the run reads of it (`--limit`); None for all
    format: Format = "jsonl"


class SourceError(UserError):
    """A file is gone or has changed, or its storage failed. A retry may help, unlike with a damaged file."""


def find_files(arguments: Iterable[str], input_format: Format | None = None, flag: str = "--input ") -> list[InputFile]:
    """Return the files that the arguments name, sorted by path, each once even if it has several local names.

    An argument that names an existing file is that file, whatever characters its name holds. Any other is a glob. The
    end of a file's name tells its format, unless `input_format` is given. `flag` is what stands before an argument in
    messages.

    Raises:
        UserError: an argument names no file, a folder, or a file whose name is not UTF-8 or tells no known format; has
            a line for each problem.
    """
    files: dict[str, InputFile] = {}
    problems = []
    for argument in arguments:
        try:
            file = find_file(argument)
            found = [file] if file else _matches(argument)
            is_folder = not found and _is_folder(argument)
        except Exception as error:  # each storage raises its own exceptions
            problems.append(f"{flag}{storage.explanation(argument, error)}")
            continue
        if is_folder:
            problems.append(
                f"{flag}{argument}: expected files, found a folder; name the files in it, such as "
                f"'{argument.rstrip('/')}/*.jsonl'."
            )
        elif not found:
            none = f"{argument}: expected at least one file, found none; check the path and the glob."
            problems.append(f"{flag}{storage.bucket_problem(argument) or none}")
        for file in sorted(found, key=lambda file: file.path):
            if not is_utf8(file.path):
                problems.append(f"{flag}{argument}: expected names in UTF-8, found {file.path!r}; rename it.")
            elif found_format := input_format or _format_of(file.path):
                file = replace(file, format=found_format)
                files.setdefault(file.path if storage.is_remote(file.path) else os.path.realpath(file.path), file)
            else:
                remedy = "rename it" if file.path == argument else "narrow the glob"
                problems.append(
                    f"{flag}{argument}: expected only files that end in {', '.join(SUFFIXES)} (also with "
                    f"{', '.join(DECOMPRESSORS)}), found {file.path}; {remedy}, or set --input_format."
                )
    if problems:
        raise UserError("\n".join(problems))
    return sorted(files.values(), key=lambda file: file.path)


def find_file(path: str) -> InputFile | None:
    """Return the file with exactly this path, in which no character is a wildcard; None if there is no such file."""
    if path.endswith("/") or os.path.isdir(path) or not storage.exists(path):
        return None
    return InputFile(path, storage.size(path))


def _matches(pattern: str) -> list[InputFile]:
    if pattern.endswith("/") or os.path.isdir(pattern):
        return []
    here = "" if storage.is_remote(pattern) or os.path.dirname(pattern) else "./"  # Beam needs the name of a folder
    found = storage.match(here + pattern)
    return [InputFile(metadata.path.removeprefix(here), metadata.size_in_bytes) for metadata in found]


def _is_folder(path: str) -> bool:
    """Return whether a path that names no file is a folder, or a prefix of remote objects."""
    if path.endswith("/") or not storage.is_remote(path):
        return path.endswith("/") or os.path.isdir(path)
    return bool(storage.match(f"{path}/**", 1))


def _format_of(path: str) -> Format | None:
    stem = path.removesuffix(compression_of(path) or "")
    return next((known for suffix, known in SUFFIXES.items() if stem.endswith(suffix)), None)


def compression_of(path: str) -> str | None:
    """Return the suffix of a compressed file, such as `.gz`; None if the file is not compressed."""
    return next((suffix for suffix in DECOMPRESSORS if path.endswith(suffix)), None)


def read_bytes(file: InputFile, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield chunks of the decompressed bytes from `start` to `end`, or to the end of the file.

    A compressed file is always read from its beginning in chunks of the same size. The chunk size decides how many
    bytes a truncated file yields before it raises, and every pass must see the same bytes. `read` would lose the bytes
    before the damage; `read1` returns them.

    Raises:
        SourceError: the file cannot be opened, or storage fails below a decompressor.
        Exception: one of DAMAGE_ERRORS, if the compressed data is truncated or corrupt.
    """
    compressed = compression_of(file.path) is not None
    with open_file(file) as stream:
        position = 0 if compressed else stream.seek(start)
        while end is None or position < end:
            chunk = stream.read1(CHUNK_BYTES if compressed or end is None else min(CHUNK_BYTES, end - position))
            if not chunk:
                return
            if position + len(chunk) > start:
                yield chunk[max(start - position, 0) : None if end is None else end - position]
            position += len(chunk)


def read_stored(file: InputFile, max_bytes: int) -> bytes:
    """Return the first bytes of a file as they are stored, without decompression.

    Raises:
        SourceError: the file cannot be read.
    """
    with _opened(file.path) as raw:
        return io.BufferedReader(_StorageReader(raw)).read(max_bytes)


def read_beginning(file: InputFile, max_bytes: int) -> tuple[bytes, int]:
    """Return the first `max_bytes` decompressed bytes of a compressed file, and roughly their size as stored."""
    with _opened(file.path) as raw:
        source = _StorageReader(raw, 4_096)  # small reads keep the position close to the bytes that were needed
        content = bytearray()
        with DECOMPRESSORS[compression_of(file.path) or ""](source) as expanded:
            try:
                while len(content) < max_bytes and (chunk := expanded.read1(max_bytes - len(content))):
                    content += chunk
                position = source.tell() if expanded.read1(1) else file.size
            except DAMAGE_ERRORS:
                position = file.size
    return bytes(content), position


@contextmanager
def open_file(file: InputFile) -> Iterator[io.BufferedReader]:
    """Open a local or remote file to read its decompressed bytes.

    Raises:
        SourceError: the file cannot be opened.
    """
    suffix = compression_of(file.path)
    with _opened(file.path) as raw:
        if file.format == "parquet":  # its reader must tell a failing storage from a damaged file
            yield io.BufferedReader(_StorageReader(raw))
        elif suffix is None or file.size == 0:
            yield cast(io.BufferedReader, raw)
        else:
            with DECOMPRESSORS[suffix](_StorageReader(raw)) as expanded:
                yield cast(io.BufferedReader, expanded)


def _opened(path: str) -> BinaryIO:
    try:
        return storage.open_file(path)
    except Exception as error:  # each storage raises its own exceptions
        raise SourceError(storage.explanation(path, error)) from error


class _StorageReader(io.RawIOBase):
    """A file as a decompressor or pyarrow reads it. Storage errors become SourceError; `max_read` caps each read."""

    def __init__(self, raw: Any, max_read: int = sys.maxsize) -> None:
        self._raw = raw
        self._max_read = max_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._raw.read(min(len(buffer), self._max_read))
        except Exception as error:
            raise SourceError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return int(self._raw.seek(offset, whence))
        except Exception as error:
            raise SourceError(str(error)) from error

    def tell(self) -> int:
        return int(self._raw.tell())


def split_lines(chunks: Iterable[bytes], offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield each line as its offset, its bytes without the newline, and its length in bytes.

    `offset` is the position of the first chunk. A line longer than MAX_LINE_BYTES yields only its beginning, which
    bounds memory; its length is that of the whole line.
    """
    pending, dropped = b"", 0
    for chunk in chunks:
        *line_ends, unfinished = chunk.split(b"\n")
        for part in line_ends:
            data = pending + part if not dropped else pending
            size = len(pending) + len(part) + dropped
            yield offset, data, size
            offset += size + 1
            pending, dropped = b"", 0
        if dropped or len(pending) + len(unfinished) > MAX_LINE_BYTES:
            dropped += len(unfinished)
        else:
            pending += unfinished
    if pending or dropped:
        yield offset, pending, len(pending) + dropped

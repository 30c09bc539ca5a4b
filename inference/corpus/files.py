"""Finds the input files, opens them whatever their compression, and splits bytes into lines."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.corpus.records import MAX_LINE_BYTES
from models.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT_SUFFIXES = (".jsonl", ".json", ".ndjson")
DECOMPRESSORS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open}
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)  # what reading a damaged file raises
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class InputFile:
    """One file of the corpus. `max_lines` caps how many of its lines the run reads (`--limit`)."""

    path: str
    size: int  # bytes as stored
    max_lines: int | None = None


class SourceError(UserError):
    """A file is gone, has changed, or its storage failed while it was read: worth another try, unlike a damaged one."""


def find_files(patterns: Iterable[str]) -> list[InputFile]:
    """The files that the globs match, in order, each once.

    Raises:
        UserError: a glob matches nothing, or a file whose name no reader knows; all of them in one message.
    """
    files: dict[str, InputFile] = {}
    problems = []
    for pattern in patterns:
        try:
            matched = FileSystems.match([pattern])[0].metadata_list
        except Exception as error:  # each storage raises its own kinds
            problems.append(f"--input {storage.explained(pattern, error)}")
            continue
        if not matched:
            problems.append(f"--input {pattern}: expected at least one file, found none; check the path and the glob.")
        for found in matched:
            if _is_readable_name(found.path):
                files.setdefault(found.path, InputFile(found.path, found.size_in_bytes))
            else:
                problems.append(
                    f"--input {pattern}: {found.path} is not one of {', '.join(TEXT_SUFFIXES)} "
                    f"(also with {', '.join(DECOMPRESSORS)}); name the JSON lines files alone."
                )
    if problems:
        raise UserError("\n".join(problems))
    return sorted(files.values(), key=lambda file: file.path)


def _is_readable_name(path: str) -> bool:
    stem = path.removesuffix(compression_of(path) or "")
    return stem.endswith(TEXT_SUFFIXES)


def compression_of(path: str) -> str | None:
    """The suffix that names the compression, or None."""
    return next((suffix for suffix in DECOMPRESSORS if path.endswith(suffix)), None)


def read_bytes(file: InputFile, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes from `start` to `end`, or to the end of the file.

    A compressed file is always read from its beginning by the same steps: what a truncated one still gives before it
    raises depends on them, and every pass must see the same bytes. read1 hands those over instead of losing them.
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


def read_beginning(file: InputFile, most: int) -> tuple[bytes, int]:
    """The first `most` decompressed bytes of a compressed file, and about how many stored bytes hold them."""
    with _opened(file.path) as raw:
        source = _Source(raw, 4_096)  # little is read ahead, so that the position tells what was needed
        content = bytearray()
        with DECOMPRESSORS[compression_of(file.path) or ""](source) as expanded:
            try:
                while len(content) < most and (chunk := expanded.read1(most - len(content))):
                    content += chunk
                position = source.tell() if expanded.read1(1) else file.size
            except DAMAGE:
                position = file.size
    return bytes(content), position


@contextmanager
def open_file(file: InputFile) -> Iterator[io.BufferedReader]:
    """Opens a file for reading decompressed bytes, from local disk or gs://."""
    suffix = compression_of(file.path)
    with _opened(file.path) as raw:
        if suffix is None or file.size == 0:
            yield cast(io.BufferedReader, raw)
        else:
            with DECOMPRESSORS[suffix](_Source(raw)) as expanded:
                yield cast(io.BufferedReader, expanded)


def _opened(path: str) -> BinaryIO:
    try:
        return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))
    except Exception as error:  # each storage raises its own kinds
        raise SourceError(storage.explained(path, error)) from error


class _Source(io.RawIOBase):
    """Passes reads on, of at most so many bytes; an error of the storage, no decompressor's own, is a SourceError."""

    def __init__(self, raw: Any, at_once: int = sys.maxsize) -> None:
        self._raw = raw
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._raw.read(min(len(buffer), self._at_once))
        except Exception as error:
            raise SourceError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())


def split_lines(chunks: Iterable[bytes], offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Lines as (offset, bytes without the newline, length).

    Of a line longer than MAX_LINE_BYTES only the beginning is kept, so that memory stays bounded.
    """
    pending, dropped = b"", 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            data = pending + part if not dropped else pending
            size = len(pending) + len(part) + dropped
            yield offset, data, size
            offset += size + 1
            pending, dropped = b"", 0
        if dropped or len(pending) + len(rest) > MAX_LINE_BYTES:
            dropped += len(rest)
        else:
            pending += rest
    if pending or dropped:
        yield offset, pending, len(pending) + dropped

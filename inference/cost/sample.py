"""Reads a sample of a corpus, and estimates amounts of the whole corpus with an interval."""

import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from inference.corpus import counting, slices
from inference.corpus.counting import Unit
from inference.corpus.files import InputFile, compression_of, read_beginning
from inference.corpus.records import Document, DocumentRecipe, read_documents
from inference.corpus.slices import Part

PIECES = 32  # number of pieces in a sample
FIRST_LOOK = 64 << 10  # bytes of text by which the size of a piece is chosen
LARGEST_PIECE = 4 << 20  # largest size of a piece, in bytes of text
HEAD = 64 << 20  # bytes of text at the start of a compressed file that pieces are taken from


@dataclass(frozen=True)
class Estimate:
    """An amount of the whole corpus, with its 95 % interval."""

    value: float  # most likely amount
    low: float  # low end of the interval
    high: float  # high end of the interval

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:,.0f}"
        return f"{self.value:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


@dataclass(frozen=True)
class Piece:
    """A part of a file that was read for the sample."""

    text_bytes: int  # size in bytes of text
    documents: list[Document]  # documents in it that could be read


@dataclass(frozen=True)
class Sample:
    """Pieces of a corpus."""

    pieces: list[Piece]  # pieces that were read
    text_bytes: Estimate  # size of the whole corpus after decompression
    expand_seconds: float  # time to decompress one byte of text
    read_seconds: float  # time to read and parse the documents, without decompression

    def whole(self, amounts: Sequence[float]) -> Estimate:
        """Return the amount in the whole corpus, from the amount in each piece."""
        total = ratio(amounts, [piece.text_bytes for piece in self.pieces], self.text_bytes.value)
        below, above = (
            math.hypot(total.value - total.low, total.value * (1 - self.text_bytes.low / self.text_bytes.value)),
            math.hypot(total.high - total.value, total.value * (self.text_bytes.high / self.text_bytes.value - 1)),
        )
        return Estimate(total.value, max(total.value - below, sum(amounts)), total.value + above)


def ratio(amounts: Sequence[float], sizes: Sequence[float], whole: float) -> Estimate:
    """Return the amount in the whole, from the amounts in parts and the sizes of the parts.

    The interval is that of the ratio estimator with Student's t (Cochran, Sampling Techniques, 3rd edition, chapter 6).
    """
    seen, count = sum(sizes), len(sizes)
    if not seen:
        return Estimate(0, 0, 0)
    rate = sum(amounts) / seen
    if seen >= whole:
        return Estimate(rate * whole, rate * whole, rate * whole)
    if count == 1:
        return Estimate(rate * whole, sum(amounts), 2 * rate * whole)  # one part does not show how parts differ
    variance = sum((amount - rate * size) ** 2 for amount, size in zip(amounts, sizes, strict=True)) / (count - 1)
    spread = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count) / (seen / count) * whole
    return Estimate(rate * whole, max(rate * whole - spread, sum(amounts)), rate * whole + spread)


def read(files: Sequence[InputFile], recipe: DocumentRecipe, documents: int) -> Sample:
    """Read pieces from the whole corpus that hold about this many documents. They are the same in every call.

    A compressed file can only be read from its start, so its pieces are taken from its first HEAD bytes of text.
    """
    start = time.perf_counter()
    total = sum(file.size for file in files)
    size = _piece_bytes(_locate(files, total // 2)[0], recipe, documents)
    offsets_by_file: dict[InputFile, list[int]] = {}
    chance = random.Random(0)
    for number in range(PIECES):
        file, offset = _locate(files, int(total * (number + chance.random()) / PIECES))
        offsets_by_file.setdefault(file, []).append(offset)
    pieces: list[Piece] = []
    heads: list[tuple[int, int]] = []  # bytes of text, and the stored bytes that hold them
    seconds = 0.0
    for file, offsets in offsets_by_file.items():
        if file.format == "parquet":
            parts = list(counting.count(Unit((file,)), size))
            heads.append((sum(part.text_bytes for part in parts), file.size))
            pieces += _pieces_of_rows(parts, len(offsets), recipe)
        elif file.format != "jsonl":
            table, text_bytes = _piece_of_table(file, documents * len(offsets) // PIECES + 1, recipe)
            pieces.append(table)
            heads += [(text_bytes, file.size)] if slices.is_packed(file) else []
        elif compression_of(file.path):
            began = time.perf_counter()
            head, stored = read_beginning(file, HEAD)
            seconds += time.perf_counter() - began
            heads.append((len(head), stored))
            pieces += _pieces_of_head(head, len(offsets), size, (file.path, recipe), cut=stored < file.size)
        else:
            pieces += _pieces(file, offsets, size, recipe)
    packed = sum(file.size for file in files if slices.is_packed(file))
    text = ratio([text for text, _ in heads], [stored for _, stored in heads], packed)
    plain = total - packed
    expanded = max(sum(text for text, _ in heads), 1)
    return Sample(
        pieces=pieces,
        text_bytes=Estimate(*(plain + part for part in vars(text).values())),
        expand_seconds=seconds / expanded,
        read_seconds=time.perf_counter() - start - seconds,
    )


def _pieces_of_rows(parts: Sequence[Part], count: int, recipe: DocumentRecipe) -> Iterator[Piece]:
    """Read some parts of a Parquet file, spread over the file, or all of them if there are no more."""
    for part in parts if len(parts) <= count else random.Random(0).sample(parts, count):
        content = read_documents(slices.read_lines(part, fields=recipe.fields), part.file.path, recipe)
        yield Piece(part.text_bytes, content.documents)


def _piece_of_table(file: InputFile, documents: int, recipe: DocumentRecipe) -> tuple[Piece, int]:
    """Read the first rows of CSV or TSV. Return them, and about how many bytes of text the whole file has."""
    lines = list(itertools.islice(slices.all_lines(file), documents))
    read = read_documents(lines, file.path, recipe)
    if len(lines) < documents:  # this is all of it
        size = read.bytes if slices.is_packed(file) else file.size
        return Piece(max(size, 1), read.documents), size
    if not slices.is_packed(file):
        return Piece(max(read.bytes, 1), read.documents), file.size
    head, stored = read_beginning(file, HEAD)
    return Piece(max(read.bytes, 1), read.documents), len(head) * file.size // max(stored, 1)


def _piece_bytes(file: InputFile, recipe: DocumentRecipe, documents: int) -> int:
    """Return the size of a piece, so that PIECES pieces hold the documents. The start of one file decides."""
    if file.format != "jsonl":
        return min(max(int(slices.line_length([file]) * documents / PIECES), 1024), LARGEST_PIECE)
    if compression_of(file.path):
        head, _ = read_beginning(file, FIRST_LOOK)
    else:
        head = b"\n".join(line.data for line in slices.read_lines(_part(file, 0, min(FIRST_LOOK, file.size))))
    count = len(read_documents(slices.lines_in(head), file.path, recipe).documents)
    return min(max(int(len(head) * documents / max(count, 1) / PIECES), 1024), LARGEST_PIECE)


def _locate(files: Sequence[InputFile], position: int) -> tuple[InputFile, int]:
    """Return the file that holds a position in all stored bytes, and the offset in that file."""
    for file in files:
        if position < file.size:
            return file, position
        position -= file.size
    return files[-1], 0


def _part(file: InputFile, start: int, end: int) -> Part:
    return next(counting.count(Unit((file,), start, end), end - start))


def _pieces(file: InputFile, offsets: Sequence[int], size: int, recipe: DocumentRecipe) -> list[Piece]:
    """Read pieces of a plain file, or one piece of the whole file if it is too small for them."""
    starts = [min(offset, file.size - size) for offset in offsets]
    if len(offsets) * size >= file.size or min(starts) < 0:
        starts, size = [0], file.size
    pieces = []
    for start in starts:
        content = read_documents(slices.read_lines(_part(file, start, start + size)), file.path, recipe)
        pieces.append(Piece(size, content.documents))
    return pieces


def _pieces_of_head(
    head: bytes, count: int, size: int, source: tuple[str, DocumentRecipe], *, cut: bool
) -> Iterator[Piece]:
    """Read pieces of the head of a compressed file, or one piece of the whole head if it is too small for them.

    `cut` says that the file goes on after the head, so the last line of the head may be incomplete.
    """
    if cut:
        head = head[: head.rfind(b"\n") + 1]
    if count * size >= len(head):
        yield Piece(len(head), read_documents(slices.lines_in(head), *source).documents)
        return
    end, chance = 0, random.Random(0)
    for number in range(count):
        start = max(_line_start(head, int(len(head) * (number + chance.random()) / count)), end)
        end = max(_line_start(head, min(start + size, len(head))), start)
        if end > start:
            content = read_documents(slices.lines_in(head[start:end]), *source)
            yield Piece(end - start, content.documents)


def _line_start(content: bytes, offset: int) -> int:
    """Return the position of the first line that begins at this offset or after it."""
    if offset == 0:
        return 0
    newline = content.find(b"\n", offset - 1)
    return len(content) if newline < 0 else newline + 1

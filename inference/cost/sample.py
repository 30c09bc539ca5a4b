"""A sample of a corpus: what the whole will hold, with an interval."""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from inference.corpus import slices
from inference.corpus.files import InputFile, compression_of, read_beginning
from inference.corpus.records import Document, DocumentRecipe, read_documents
from inference.corpus.slices import Slice, Stretch

PIECES = 32
FIRST_LOOK, LARGEST_PIECE, HEAD = 64 << 10, 4 << 20, 64 << 20  # bytes of text


@dataclass(frozen=True)
class Estimate:
    """A number for the whole corpus and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:,.0f}"
        return f"{self.value:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


@dataclass(frozen=True)
class Piece:
    """A stretch of the corpus that was read."""

    text_bytes: int
    documents: list[Document]


@dataclass(frozen=True)
class Sample:
    """Pieces of a corpus, and how many bytes of text it has when everything is decompressed."""

    pieces: list[Piece]
    text_bytes: Estimate
    expand_seconds: float  # to decompress a byte of text, where anything is compressed
    read_seconds: float  # to find and parse the documents, decompression aside

    def whole(self, amounts: Sequence[float]) -> Estimate:
        """The amount in the whole corpus, from the amount in each piece."""
        found = ratio(amounts, [piece.text_bytes for piece in self.pieces], self.text_bytes.value)
        below, above = (
            math.hypot(found.value - found.low, found.value * (1 - self.text_bytes.low / self.text_bytes.value)),
            math.hypot(found.high - found.value, found.value * (self.text_bytes.high / self.text_bytes.value - 1)),
        )
        return Estimate(found.value, max(found.value - below, sum(amounts)), found.value + above)


def ratio(amounts: Sequence[float], sizes: Sequence[float], whole: float) -> Estimate:
    """An amount of the whole, from its amounts in parts, in proportion to the sizes of these.

    The interval is the ratio estimator's, with Student's t (Cochran, Sampling Techniques, 3rd edition, chapter 6).
    """
    seen, count = sum(sizes), len(sizes)
    if not seen:
        return Estimate(0, 0, 0)
    rate = sum(amounts) / seen
    if seen >= whole:
        return Estimate(rate * whole, rate * whole, rate * whole)
    if count == 1:
        return Estimate(rate * whole, sum(amounts), 2 * rate * whole)  # nothing tells how parts differ
    variance = sum((amount - rate * size) ** 2 for amount, size in zip(amounts, sizes, strict=True)) / (count - 1)
    spread = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count) / (seen / count) * whole
    return Estimate(rate * whole, max(rate * whole - spread, sum(amounts)), rate * whole + spread)


def read(files: Sequence[InputFile], options: DocumentRecipe, documents: int) -> Sample:
    """Pieces from all over the stored bytes, always the same ones, with about so many documents together.

    A compressed file can only be read from its start: its pieces lie in its first HEAD bytes of text.
    """
    start = time.perf_counter()
    total = sum(file.size for file in files)
    size = _piece_bytes(_place(files, total // 2)[0], options, documents)
    places: dict[InputFile, list[int]] = {}
    chance = random.Random(0)
    for number in range(PIECES):
        file, offset = _place(files, int(total * (number + chance.random()) / PIECES))
        places.setdefault(file, []).append(offset)
    pieces: list[Piece] = []
    heads: list[tuple[int, int]] = []  # bytes of text and the stored bytes that hold them
    seconds = 0.0
    for file, offsets in places.items():
        if compression_of(file.path):
            began = time.perf_counter()
            head, stored = read_beginning(file, HEAD)
            seconds += time.perf_counter() - began
            heads.append((len(head), stored))
            pieces += _pieces_of_head(head, len(offsets), size, (file.path, options), cut=stored < file.size)
        else:
            pieces += _pieces(file, offsets, size, options)
    compressed = sum(file.size for file in files if compression_of(file.path))
    text = ratio([text for text, _ in heads], [stored for _, stored in heads], compressed)
    plain = total - compressed
    expanded = max(sum(text for text, _ in heads), 1)
    return Sample(
        pieces=pieces,
        text_bytes=Estimate(*(plain + part for part in vars(text).values())),
        expand_seconds=seconds / expanded,
        read_seconds=time.perf_counter() - start - seconds,
    )


def _piece_bytes(file: InputFile, options: DocumentRecipe, documents: int) -> int:
    """Bytes of text that hold a PIECES-th of the documents wanted, judged by the beginning of one file."""
    if compression_of(file.path):
        head, _ = read_beginning(file, FIRST_LOOK)
    else:
        head = b"\n".join(line.data for line in slices.read_lines(_slice(file, 0, min(FIRST_LOOK, file.size))))
    found = len(read_documents(slices.lines_in(head), file.path, options).documents)
    return min(max(int(len(head) * documents / max(found, 1) / PIECES), 1024), LARGEST_PIECE)


def _place(files: Sequence[InputFile], position: int) -> tuple[InputFile, int]:
    """The file and the offset in it where this byte of all stored bytes lies."""
    for file in files:
        if position < file.size:
            return file, position
        position -= file.size
    return files[-1], 0


def _slice(file: InputFile, start: int, end: int) -> Slice:
    counted = slices.count_lines(Stretch(file, start, end, end - start))[0]
    return Slice(file, start, end, 1, counted.lines, counted.checksum, end - start)


def _pieces(file: InputFile, offsets: Sequence[int], size: int, options: DocumentRecipe) -> list[Piece]:
    """Stretches of a plain file; all of it where they would overlap."""
    starts = [min(offset, file.size - size) for offset in offsets]
    if len(offsets) * size >= file.size or min(starts) < 0:
        starts, size = [0], file.size
    found = []
    for start in starts:
        read = read_documents(slices.read_lines(_slice(file, start, start + size)), file.path, options)
        found.append(Piece(size, read.documents))
    return found


def _pieces_of_head(
    head: bytes, count: int, size: int, source: tuple[str, DocumentRecipe], *, cut: bool
) -> Iterator[Piece]:
    """Stretches of the text with which a compressed file begins; all of it where they would overlap."""
    if cut:  # in the middle of a line
        head = head[: head.rfind(b"\n") + 1]
    if count * size >= len(head):
        yield Piece(len(head), read_documents(slices.lines_in(head), *source).documents)
        return
    end, chance = 0, random.Random(0)
    for number in range(count):
        start = max(_line_start(head, int(len(head) * (number + chance.random()) / count)), end)
        end = max(_line_start(head, min(start + size, len(head))), start)
        if end > start:
            read = read_documents(slices.lines_in(head[start:end]), *source)
            yield Piece(end - start, read.documents)


def _line_start(content: bytes, offset: int) -> int:
    """Where the first line begins that begins at this offset or after it."""
    if offset == 0:
        return 0
    found = content.find(b"\n", offset - 1)
    return len(content) if found < 0 else found + 1

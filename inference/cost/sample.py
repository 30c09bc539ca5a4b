"""Takes documents from a sample of a corpus, and estimates amounts of the whole corpus with an interval."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from inference.corpus import sampling, slices
from inference.corpus.files import InputFile
from inference.corpus.records import Document, DocumentRecipe
from inference.corpus.sampling import Pieces


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
        if not self.text_bytes.value:
            return Estimate(0, 0, 0)
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

    Raises:
        SourceError: a file cannot be read.
    """
    start = time.perf_counter()
    found = sampling.read(files, documents, recipe.fields)
    pieces = [Piece(piece.text_bytes, piece.documents(recipe)) for piece in found.pieces]
    expanded = max(sum(text for text, _ in found.heads), 1)
    return Sample(
        pieces=pieces,
        text_bytes=_text_bytes(files, found),
        expand_seconds=found.expand_seconds / expanded,
        read_seconds=time.perf_counter() - start - found.expand_seconds,
    )


def count_lines(files: Sequence[InputFile], found: Pieces) -> Estimate:
    """Return how many lines that are not blank the files have, from some pieces of them."""
    counted = [(piece.text_bytes, sum(not line.is_blank for line in piece.lines)) for piece in found.pieces]
    pieces = [Piece(text_bytes, []) for text_bytes, _ in counted]
    return Sample(pieces, _text_bytes(files, found), 0.0, 0.0).whole([lines for _, lines in counted])


def _text_bytes(files: Sequence[InputFile], found: Pieces) -> Estimate:
    """Return the size of the whole corpus in bytes of text."""
    packed = sum(file.size for file in files if slices.is_packed(file))
    plain = sum(file.size for file in files) - packed
    text = ratio([text for text, _ in found.heads], [stored for _, stored in found.heads], packed)
    return Estimate(*(plain + part for part in vars(text).values()))

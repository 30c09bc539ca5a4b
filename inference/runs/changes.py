"""Compares a new corpus with an earlier one: each document is new, changed, kept, unreadable or gone.

    slices of the new corpus -> hashes --+                 +--> lines to relabel, by part of the new corpus
    slices of the old corpus -> hashes --+-> by id, decide +
    rows of the old corpus   -> numbers -+                 +--> rows to keep, by file of the earlier rows

Only hashes and numbers of lines are shuffled. Lines and rows are read again where they are written.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import orjson

from inference.corpus import slices, storage
from inference.corpus.files import InputFile
from inference.corpus.records import Document, DocumentRecipe, Line, read_documents
from inference.corpus.slices import Slice
from inference.runs import lineage, pipeline, receipts, run_folder, sink
from inference.runs.lineage import DELTA, DOCUMENTS, KEPT, UNFINISHED, Labels, Part, SliceChecksum
from inference.runs.slice_list import COPIES
from models.errors import UserError

TO_LABEL = ("new", "changed", "unreadable")
PART_BYTES = 64 * slices.MIB  # most bytes of input for one file of documents, unless a single slice has more


@dataclass(frozen=True)
class Target:
    """The folder of a delta, and the keys of `delta.json` that are known before the corpora are compared."""

    output: str
    head: dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A slice of the new corpus and the file that its lines go to."""

    part: int  # number of the file of documents that its lines go to
    piece: Slice


@dataclass(frozen=True)
class RowFile:
    """A file with rows of the earlier labels."""

    path: str
    sha256: str

    @property
    def key(self) -> bytes:
        """Return the short key under which the numbers of its rows meet."""
        return hashlib.blake2b(self.path.encode(), digest_size=8).digest()


# Elements that are shuffled in large numbers are plain tuples, which Beam encodes in few bytes.
NewDocument = tuple[bytes, bytes, int, int, int]  # digests of texts and kept fields, part, slice number, place
OldDocument = tuple[bytes, bytes]  # digests of texts and kept fields; empty for an unreadable line
Row = tuple[bytes, int]  # key of the file, and number of the row


def build(p: beam.Pipeline, target: Target, earlier: Labels | None, recipe: DocumentRecipe) -> None:
    """Add the steps that compare new with earlier documents by id. Without earlier labels, all documents are new."""
    copies = str(storage.join(target.output, COPIES))
    planned = (
        p
        | "New" >> beam.Create([target.output])
        | "NewFiles" >> beam.Map(read_files)
        | "NewSlices" >> pipeline.Slices(target.head["slice_bytes"], copies)
        | "Plan" >> beam.FlatMap(plan)
        | "SpreadPlan" >> beam.Reshuffle()
    )
    sides = {"new": planned | "ReadNew" >> beam.FlatMap(read_new, recipe, copies)}
    row_files = p | "NoRows" >> beam.Create([])
    if earlier:
        old, row_files = _earlier_corpus(p, earlier, copies)
        sides["old"] = old | "ReadOld" >> beam.FlatMap(read_old, recipe, copies)
        sides["rows"] = row_files | "ReadRows" >> beam.FlatMap(read_rows)
    decided = sides | "ById" >> beam.CoGroupByKey() | "Decide" >> beam.ParDo(Decide()).with_outputs(main="outcomes")
    lines = {"slices": planned | "ByPart" >> beam.Map(lambda each: (each.part, each)), "lines": decided.lines}
    documents = (
        lines
        | "Part" >> beam.CoGroupByKey()
        | "WriteDocuments" >> beam.ParDo(WriteDocuments(target.output, recipe, copies)).with_outputs(main="part")
    )
    rows = {
        "file": row_files | "ByFile" >> beam.Map(lambda file: (file.key, file)),
        "rows": (decided.rows, documents.rows) | "Rows" >> beam.Flatten(),
    }
    kept = rows | "RowFile" >> beam.CoGroupByKey() | "WriteKept" >> beam.FlatMap(write_kept, target.output)
    sums = decided.outcomes | "Count" >> beam.combiners.Count.PerElement()
    _ = (
        p
        | "Delta" >> beam.Create([target.head])
        | "WriteDelta"
        >> beam.Map(
            write_delta,
            target.output,
            counts=beam.pvalue.AsDict(sums),
            parts=beam.pvalue.AsList((documents.part, kept) | "Parts" >> beam.Flatten()),
            planned=beam.pvalue.AsList(planned),
        )
    )


def _earlier_corpus(p: beam.Pipeline, earlier: Labels, copies: str) -> tuple[beam.PCollection, beam.PCollection]:
    """Return the slices of the old corpus, each compared with its checksum, and the files with its rows."""
    pieces, row_files = [], []
    if earlier.run:
        labelled = (
            p
            | "Run" >> beam.Create([earlier.run])
            | "RunFiles" >> beam.Map(run_folder.read_files)
            | "RunSlices" >> pipeline.Slices(earlier.options["slice_bytes"], copies)
            | "EachRunSlice" >> beam.FlatMap(lambda pieces: pieces)
            | "SpreadRun" >> beam.Reshuffle()
            | "Vouch" >> beam.Map(vouch, earlier.run, earlier.description["run"])
        )
        pieces.append(labelled | "Labelled" >> beam.Keys())
        row_files.append(labelled | "Predicted" >> beam.Values())
    if earlier.delta and earlier.kept:
        folder = p | "EarlierDelta" >> beam.Create([earlier.delta])
        checksums = folder | "Checksums" >> beam.FlatMap(checksums_of)
        old = (
            folder
            | "OldFiles" >> beam.Map(lambda folder: lineage.read(folder).files)
            | "OldSlices" >> pipeline.Slices(earlier.kept.slice_bytes, copies)
            | "EachOldSlice" >> beam.FlatMap(lambda pieces: pieces)
            | "SpreadOld" >> beam.Reshuffle()
        )
        pieces = [old | "Compare" >> beam.Map(compare, earlier.delta, expected=beam.pvalue.AsDict(checksums))]
        kept = folder | "Kept" >> beam.FlatMap(lineage.kept_files)
        row_files.append(kept | "KeptFiles" >> beam.MapTuple(RowFile))
        labelled_documents = folder | "Documents" >> beam.FlatMap(lineage.document_files)
        _ = labelled_documents | "CheckDocuments" >> beam.MapTuple(storage.read_checked)
    return pieces[0], row_files | "RowFiles" >> beam.Flatten() | "SpreadRows" >> beam.Reshuffle()


def read_files(output: str) -> list[InputFile]:
    """Return the files of the new corpus."""
    content = orjson.loads(storage.read_file(storage.join(output, UNFINISHED)))
    return [InputFile(**file) for file in content["files"]]


def plan(pieces: Iterable[Slice]) -> Iterator[Planned]:
    """Pack the slices, in the order of the corpus, into parts of at most PART_BYTES."""
    part, size = 0, 0
    for piece in pieces:
        if size and size + piece.text_bytes > PART_BYTES:
            part, size = part + 1, 0
        size += piece.text_bytes
        yield Planned(part, piece)


def changed_input(path: str, previous: str) -> str:
    """Return the sentence about an input of the earlier run that has changed."""
    return (
        f"--previous {previous}: its input {path} has changed, so texts cannot be compared; put it back as it was, or "
        "label the whole corpus."
    )


def vouch(piece: Slice, run: str, identity: str) -> tuple[Slice, RowFile]:
    """Return a slice that the earlier run labelled, with the file of its rows.

    Raises:
        UserError: the slice has no receipt, or other bytes than its receipt says.
    """
    receipt = receipts.find(run, identity, piece.name)
    if receipt is None:
        raise UserError(
            f"--previous {run}: expected a receipt of the slice {piece.name}, found none; `labelbeam verify` names all "
            "that is missing, and the command of the run mends it."
        )
    if receipt.checksum != piece.checksum:
        raise UserError(changed_input(piece.parts[0].file.path, run))
    path, sha256 = next(item for item in receipt.sha256.items() if item[0].startswith(sink.PREDICTIONS))
    return piece, RowFile(storage.join(run, *path.split("/")), sha256)


def checksums_of(delta: str) -> Iterator[tuple[tuple[str, int, int], str]]:
    """Yield ((file, start, end), checksum) of each slice of the corpus that a delta compared."""
    yield from (((piece.file, piece.start, piece.end), piece.checksum) for piece in lineage.read(delta).slices)


def compare(piece: Slice, delta: str, expected: dict[tuple[str, int, int], str]) -> Slice:
    """Return a slice of the old corpus.

    Raises:
        UserError: the slice has other bytes than when the delta was made.
    """
    for part in piece.parts:
        if expected.get((part.file.path, part.start, part.end)) != part.checksum:
            raise UserError(changed_input(part.file.path, delta))
    return piece


def _hashes(piece: Slice, recipe: DocumentRecipe, copies: str) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """Yield (key of the id, digest of the texts, digest of the kept fields, place of the line) of each document."""
    content = slices.read_slice(piece, recipe, copies)
    for document in content.documents:
        yield key_of(document.id), digest(document, recipe), _hash(orjson.dumps(document.kept_fields)), document.place
    for failure in content.failures:
        yield key_of(failure.id or f"{failure.file}:{failure.line}"), b"", b"", failure.place


def read_new(planned: Planned, recipe: DocumentRecipe, copies: str = "") -> Iterator[tuple[bytes, NewDocument]]:
    """Yield each document of a slice of the new corpus under the key of its id."""
    for key, texts, kept_fields, place in _hashes(planned.piece, recipe, copies):
        yield key, (texts, kept_fields, planned.part, planned.piece.number, place)


def read_old(piece: Slice, recipe: DocumentRecipe, copies: str) -> Iterator[tuple[bytes, OldDocument]]:
    """Yield the two digests of each document of a slice of the old corpus under the key of its id."""
    for key, texts, kept_fields, _ in _hashes(piece, recipe, copies):
        yield key, (texts, kept_fields)


def read_rows(file: RowFile) -> Iterator[tuple[bytes, Row]]:
    """Yield (key of the file, number of the row) under the key of its id, for each row of a file.

    Raises:
        UserError: the file is gone or has changed.
    """
    for number, row in enumerate(_rows(file)):
        yield key_of(orjson.loads(row)["id"]), (file.key, number)


def _rows(file: RowFile) -> list[bytes]:
    return storage.read_checked(file.path, file.sha256).split(b"\n")[:-1]


def digest(document: Document, recipe: DocumentRecipe) -> bytes:
    """Return a digest of the cleaned texts of a document, to their ends, even if no model reads that far."""
    texts = [each.clean(text) for each, text in zip(recipe.recipes, document.texts, strict=True)]
    return _hash(orjson.dumps(texts))


def key_of(identifier: str) -> bytes:
    """Return the key under which documents with this id meet."""
    return _hash(identifier.encode())


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


class Decide(beam.DoFn):
    """Yields the outcome of every document with an id, and where its line or its row is.

    The output `lines` holds (part, (slice number, place of the line, row)). The row is that of a document whose kept
    fields have changed, and None for a document to relabel. The output `rows` holds (file, (row number, None)).
    If the earlier corpus had the id more than once, its rows cannot be told apart, so the documents are relabelled.
    """

    def process(self, group: tuple[bytes, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        """Yield the outcome of each document, and the elements of the other outputs."""
        old, rows, new = (list(group[1].get(side, ())) for side in ("old", "rows", "new"))
        unique = len(old) == len(rows) == 1
        for texts, kept_fields, part, number, place in new:
            if not texts or not unique or old[0][0] != texts:
                yield "unreadable" if not texts else "changed" if old else "new"
                yield beam.pvalue.TaggedOutput("lines", (part, (number, place, None)))
                continue
            yield "kept"
            if old[0][1] != kept_fields:
                yield beam.pvalue.TaggedOutput("lines", (part, (number, place, rows[0])))
            else:
                file, row = rows[0]
                yield beam.pvalue.TaggedOutput("rows", (file, (row, None)))
        if not new:
            yield from ("gone" for _ in old)


class WriteDocuments(beam.DoFn):
    """Writes a file of documents to relabel, in the order of the corpus, and yields its Part.

    The output `rows` holds (file, (row number, kept fields as JSON)) of each row whose kept fields have changed.
    """

    def __init__(self, output: str, recipe: DocumentRecipe, copies: str) -> None:
        super().__init__()
        self._output = output
        self._recipe = recipe
        self._copies = copies

    def process(self, group: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        """Read the slices of a part again, and write the lines that were chosen."""
        part, sides = group
        chosen: dict[int, dict[int, Any]] = defaultdict(dict)
        for number, place, row in sides["lines"]:
            chosen[number][place] = row
        documents = []
        for planned in sorted(sides["slices"], key=lambda planned: planned.piece.number):
            if not (rows := chosen.get(planned.piece.number)):
                continue
            for file, place, line in self._lines(planned.piece):
                if place not in rows:
                    continue
                if row := rows[place]:
                    (document,) = read_documents([line], file, self._recipe).documents
                    yield beam.pvalue.TaggedOutput("rows", (row[0], (row[1], orjson.dumps(document.kept_fields))))
                else:
                    # A blank line would count as no document, so an unreadable one without content says why.
                    reason = ": ".join(line.problem or ()).encode()
                    documents.append(line.json if line.json.strip() else reason)
        if documents:
            yield _write(self._output, f"{DOCUMENTS}/part-{part:05d}.jsonl", documents)

    def _lines(self, piece: Slice) -> Iterator[tuple[str, int, Line]]:
        """Yield each line of a slice with its file and its place in the slice."""
        place = itertools.count()
        for each in piece.parts:
            for line in slices.read_lines(each, self._copies):
                yield each.file.path, next(place), line


def write_kept(group: tuple[bytes, dict[str, Iterable[Any]]], output: str) -> Iterator[Part]:
    """Write the rows to keep of one file of rows, in its order, and yield the Part. Changed kept fields replace old."""
    key, sides = group
    chosen = sorted(((number, fields or b"") for number, fields in sides["rows"]))
    if chosen:
        rows = _rows(next(iter(sides["file"])))
        lines = [
            orjson.dumps({**orjson.loads(rows[number]), **orjson.loads(fields)}) if fields else rows[number]
            for number, fields in chosen
        ]
        yield _write(output, f"{KEPT}/kept-{key.hex()}.jsonl", lines)


def _write(output: str, path: str, lines: Sequence[bytes]) -> Part:
    content = b"".join(line + b"\n" for line in lines)
    storage.write_file(storage.join(output, *path.split("/")), content)
    return Part(path, len(content), len(lines), hashlib.sha256(content).hexdigest())


def write_delta(
    head: dict[str, Any], output: str, counts: dict[str, int], parts: Sequence[Part], planned: Sequence[Planned]
) -> None:
    """Write `delta.json`. It is written last."""
    in_order = sorted(parts, key=lambda part: part.path)
    pieces = [each.piece for each in sorted(planned, key=lambda each: each.piece.number)]
    content = {
        **head,
        "counts": counts,
        "documents": [part for part in in_order if part.path.startswith(DOCUMENTS)],
        "kept": [part for part in in_order if part.path.startswith(KEPT)],
        "files": read_files(output),
        "slices": [
            SliceChecksum(part.file.path, part.start, part.end, part.checksum) for p in pieces for part in p.parts
        ],
    }
    storage.write_file(storage.join(output, DELTA), orjson.dumps(content, option=orjson.OPT_INDENT_2))

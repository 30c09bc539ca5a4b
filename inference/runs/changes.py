"""Compares a new corpus with an earlier run: each document is new, changed, kept, unreadable or gone."""

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
import orjson
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from inference.corpus import slices, storage
from inference.corpus.files import InputFile, find_files
from inference.corpus.records import Document, DocumentRecipe, read_documents
from inference.corpus.slices import Slice
from inference.runs import pipeline, run_folder, sink
from inference.scoring import model_files, tally
from inference.scoring.options import ScoringOptions, text_recipes
from models import trained_model
from models.errors import UserError
from models.trained_model import Manifest

DOCUMENTS, KEPT, DELTA = "documents", "kept", "delta.json"
TO_LABEL = ("new", "changed", "unreadable")
PART_BYTES = 64 * slices.MIB  # bytes of input for each part of the output


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run: the corpus, and every row of labels."""

    files: tuple[InputFile, ...]  # input files of the run, or the whole corpus if the run labelled a delta
    rows: tuple[str, ...]  # paths of the files with rows
    options: dict[str, Any]  # options of the run in its run.json
    models: dict[str, str]  # SHA-256 of each model, by name


def find_changes(
    beam_options: PipelineOptions, models: Sequence[str], patterns: Sequence[str], previous: str, output: str
) -> dict[str, int]:
    """Write the documents to relabel and the rows to keep into a new folder. Return the count of each outcome.

    Raises:
        UserError: the earlier run cannot be compared with, or the folder holds a finished delta.
    """
    files, earlier = find_files(patterns), read_earlier_run(previous)
    if FileSystems.exists(FileSystems.join(output, DELTA)):
        raise UserError(f"--output {output}: expected a new folder, found a finished delta in it; name another.")
    if earlier.options["format"] != "jsonl":
        raise UserError(f"--previous {previous}: expected a run with --format jsonl, found parquet; name another run.")
    directories = model_files.all_local(models)
    manifests = [trained_model.verify(directory) for directory in directories]
    fingerprints = map(trained_model.fingerprint, directories)
    same_models = earlier.models == dict(zip(map(trained_model.model_name, models), fingerprints, strict=True))
    parts = max(sum(file.size for file in files) // PART_BYTES, 1)
    with beam.Pipeline(options=beam_options) as p:
        recipe = _recipe(earlier.options, models, manifests)
        build(p, files, earlier if same_models else None, recipe, Target(output, parts))
    counts: dict[str, int] = orjson.loads(storage.read_file(FileSystems.join(output, DELTA)))["counts"]
    return counts


def _recipe(options: dict[str, Any], models: Sequence[str], manifests: Sequence[Manifest]) -> DocumentRecipe:
    """Return the recipe by which the earlier run read a record, from the options in its `run.json`."""
    fields, max_tokens = tuple(options["text_fields"]), options["max_tokens"]
    scoring = ScoringOptions(tuple(models), text_fields=fields, max_tokens=max_tokens)
    return DocumentRecipe(text_recipes(scoring, manifests), options["id_field"], tuple(options["keep_fields"]))


def read_earlier_run(run: str) -> EarlierRun:
    """Return the corpus and the rows of a finished run. If it labelled a delta, add the rows that the delta kept.

    Raises:
        UserError: there is no finished run in the folder, or its input has changed.
    """
    description = run_folder.require(run, finished=True)
    files = [InputFile(**file) for file in description["files"]]
    rows = list(sink.prediction_paths(run, description["run"]))
    folder = posixpath.dirname(posixpath.dirname(files[0].path))
    delta = FileSystems.join(folder, DELTA)
    if FileSystems.exists(delta):
        files = [InputFile(**file) for file in orjson.loads(storage.read_file(delta))["files"]]
        if FileSystems.match([FileSystems.join(folder, KEPT, "*")])[0].metadata_list:
            rows += [file.path for file in find_files([FileSystems.join(folder, KEPT, "*.jsonl")])]
    sizes = {file.path: file.size for file in find_files(file.path for file in files)}
    if changed := [file.path for file in files if sizes[file.path] != file.size]:
        raise UserError(
            f"--previous {run}: its input {changed[0]} has changed, so texts cannot be compared; label the whole "
            "corpus, and keep its files until the next delta."
        )
    models = {model["name"]: model["sha256"] for model in description["models"]}
    return EarlierRun(tuple(files), tuple(rows), description["options"], models)


@dataclass(frozen=True)
class Target:
    """The folder for the parts, and the number of parts of each kind."""

    output: str  # folder of the delta
    parts: int  # number of parts for each outcome


def build(
    p: beam.Pipeline, files: Sequence[InputFile], earlier: EarlierRun | None, recipe: DocumentRecipe, target: Target
) -> None:
    """Add the steps that compare new with earlier documents by id. Without an earlier run, all documents are new."""
    sides = {"new": _documents(p, "New", files, recipe)}
    if earlier:
        sides["old"] = _documents(p, "Old", earlier.files, recipe)
        sides["rows"] = p | "Rows" >> beam.Create(earlier.rows) | "ReadRows" >> beam.FlatMap(sink.rows_by_id)
    decided = sides | "ById" >> beam.CoGroupByKey() | "Decide" >> beam.FlatMapTuple(decide)
    (
        decided
        | "ByPart" >> beam.Map(lambda line: ((line[0], part_of(line[1], target.parts)), (line[1], line[2])))
        | "Gather" >> beam.GroupByKey()
        | "WritePart" >> beam.Map(write_part, target)
        | "Count" >> beam.CombineGlobally(tally.add)
        | "WriteDelta" >> beam.Map(write_delta, list(files), target.output)
    )


def _documents(p: beam.Pipeline, name: str, files: Sequence[InputFile], recipe: DocumentRecipe) -> beam.PCollection:
    return (
        p
        | name >> beam.Create(files)
        | f"{name}Slices" >> pipeline.Slices(max(slices.slice_bytes(files, None), 1))
        | f"Read{name}" >> beam.FlatMap(read_slice, recipe)
    )


def read_slice(piece: Slice, recipe: DocumentRecipe) -> Iterator[tuple[str, tuple[str, dict[str, Any], bytes]]]:
    """Yield (id, (digest of the texts, kept fields, line)) of each document. An unreadable line has an empty digest."""
    lines = list(slices.read_lines(piece))
    data = {line.number: line.data for line in lines}
    content = read_documents(lines, piece.file.path, recipe)
    for document in content.documents:
        yield document.id, (digest(document), document.kept_fields, data[document.line])
    for failure in content.failures:
        yield failure.id or f"{piece.file.path}:{failure.line}", ("", {}, data.get(failure.line, b""))


def digest(document: Document) -> str:
    """Return a digest of the texts of a document, which is equal for documents with equal texts."""
    return hashlib.blake2b(orjson.dumps(document.texts), digest_size=16).hexdigest()


def decide(identifier: str, sides: dict[str, Iterable[Any]]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (outcome, id, line to write) for every document with this id.

    The line is the document's own if it is new, changed or unreadable, the row if it is kept, and empty if it is gone.
    If the earlier run had the id more than once, its rows cannot be told apart, so the documents are relabelled.
    """
    old, rows = list(sides.get("old", ())), list(sides.get("rows", ()))
    new = list(sides["new"])
    for text_digest, kept, line in new:
        if not text_digest:
            yield "unreadable", identifier, line
        elif len(old) == len(rows) == 1 and old[0][0] == text_digest:
            yield "kept", identifier, orjson.dumps({**rows[0], **kept})
        else:
            yield "changed" if old else "new", identifier, line
    if not new:
        yield from (("gone", identifier, b"") for _ in old)


def part_of(identifier: str, parts: int) -> int:
    """Return the number of the part that an id belongs to, which is the same at each attempt."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest()) % parts


def write_part(gathered: tuple[tuple[str, int], Iterable[tuple[str, bytes]]], target: Target) -> dict[str, int]:
    """Write one part in sorted order, so that each attempt writes the same bytes. Return the count of its outcome."""
    (outcome, part), lines = gathered
    in_order = sorted(lines)
    if outcome != "gone":
        folder = KEPT if outcome == "kept" else DOCUMENTS
        path = FileSystems.join(target.output, folder, f"{outcome}-{part:05d}-of-{target.parts:05d}.jsonl")
        storage.write_file(path, b"".join(line + b"\n" for _, line in in_order))
    return {outcome: len(in_order)}


def write_delta(counts: dict[str, int], files: Sequence[InputFile], output: str) -> None:
    """Write `delta.json`, which holds the counts and the files of the new corpus. It is written last."""
    content = {"counts": counts, "files": [asdict(file) for file in files]}
    storage.write_file(FileSystems.join(output, DELTA), orjson.dumps(content, option=orjson.OPT_INDENT_2))

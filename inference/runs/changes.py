"""Sorts the documents of a new corpus by what an earlier run knows of them: new, changed, kept or gone."""

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
PART_BYTES = 64 * slices.MIB  # of input, for each part of the output


@dataclass(frozen=True)
class Previous:
    """What there was: the corpus, and every row of labels."""

    files: tuple[InputFile, ...]
    rows: tuple[str, ...]  # paths
    options: dict[str, Any]  # of the run, as run.json says
    models: dict[str, str]  # name: SHA-256


def find(
    beam_options: PipelineOptions, models: Sequence[str], patterns: Sequence[str], previous: str, output: str
) -> dict[str, int]:
    """Write the documents to label and the rows to keep into a new folder; return how many became what.

    Raises:
        UserError: the earlier run cannot be built upon, or the folder holds a finished delta.
    """
    files, earlier = find_files(patterns), read_previous(previous)
    if FileSystems.exists(FileSystems.join(output, DELTA)):
        raise UserError(f"--output {output} holds a finished delta: name a new folder.")
    if earlier.options["format"] != "jsonl":
        raise UserError(f"--previous {previous}: expected a run with --format jsonl, found parquet.")
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
    """Return how the earlier run, by the options in its `run.json`, reads a record."""
    fields, max_tokens = tuple(options["text_fields"]), options["max_tokens"]
    scoring = ScoringOptions(tuple(models), text_fields=fields, max_tokens=max_tokens)
    return DocumentRecipe(text_recipes(scoring, manifests), options["id_field"], tuple(options["keep_fields"]))


def read_previous(run_path: str) -> Previous:
    """The corpus and the rows of a finished run, and of the delta that it labelled, if it did.

    Raises:
        UserError: it is no finished run, or its input is not what it was.
    """
    run = run_folder.require(run_path, finished=True)
    files = [InputFile(**file) for file in run["files"]]
    rows = list(sink.prediction_paths(run_path))
    folder = posixpath.dirname(posixpath.dirname(files[0].path))
    described = FileSystems.join(folder, DELTA)
    if FileSystems.exists(described):
        files = [InputFile(**file) for file in orjson.loads(storage.read_file(described))["files"]]
        if FileSystems.match([FileSystems.join(folder, KEPT, "*")])[0].metadata_list:
            rows += [file.path for file in find_files([FileSystems.join(folder, KEPT, "*.jsonl")])]
    found = {file.path: file.size for file in find_files(file.path for file in files)}
    if changed := [file.path for file in files if found[file.path] != file.size]:
        raise UserError(
            f"--previous {run_path}: its input {changed[0]} is not what it was, so that texts cannot be compared; "
            "label the whole corpus, and keep the input until the next time."
        )
    models = {model["name"]: model["sha256"] for model in run["models"]}
    return Previous(tuple(files), tuple(rows), run["options"], models)


@dataclass(frozen=True)
class Target:
    """Where the parts go, and how many there are of each kind."""

    output: str
    parts: int


def build(
    p: beam.Pipeline, files: Sequence[InputFile], previous: Previous | None, recipe: DocumentRecipe, target: Target
) -> None:
    """Adds the steps: documents, old and new, and rows meet by their ids."""
    sides = {"new": _documents(p, "New", files, recipe)}
    if previous:
        sides["old"] = _documents(p, "Old", previous.files, recipe)
        sides["rows"] = p | "Rows" >> beam.Create(previous.rows) | "ReadRows" >> beam.FlatMap(sink.rows_by_id)
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
    """(id, (hash of the texts, kept fields, line)) of each document; an unreadable line has no hash."""
    read_lines = list(slices.read_lines(piece))
    lines = {line.number: line.data for line in read_lines}
    read = read_documents(read_lines, piece.file.path, recipe)
    for document in read.documents:
        yield document.id, (digest(document), document.kept, lines[document.line])
    for failure in read.failures:
        yield failure.id or f"{piece.file.path}:{failure.line}", ("", {}, lines.get(failure.line, b""))


def digest(document: Document) -> str:
    """Equal for documents that a model reads alike."""
    return hashlib.blake2b(orjson.dumps(document.texts), digest_size=16).hexdigest()


def decide(identifier: str, sides: dict[str, Iterable[Any]]) -> Iterator[tuple[str, str, bytes]]:
    """(what becomes of it, id, line to write) for everything of one id.

    What is new, changed or unreadable is written for labelling, what is kept as a row; for what is gone the line is
    empty. Where an id had been there twice nobody can tell whose the rows are, so that all of it is labelled anew.
    """
    old, rows = list(sides.get("old", ())), list(sides.get("rows", ()))
    new = list(sides["new"])
    for text, kept, line in new:
        if not text:
            yield "unreadable", identifier, line
        elif len(old) == len(rows) == 1 and old[0][0] == text:
            yield "kept", identifier, orjson.dumps({**rows[0], **kept})
        else:
            yield "changed" if old else "new", identifier, line
    if not new:
        yield from (("gone", identifier, b"") for _ in old)


def part_of(identifier: str, parts: int) -> int:
    """The part that a document belongs to; the same in every run."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest()) % parts


def write_part(gathered: tuple[tuple[str, int], Iterable[tuple[str, bytes]]], target: Target) -> dict[str, int]:
    """Writes one part, sorted, so that it has the same bytes each time; returns how many lines became what."""
    (kind, part), lines = gathered
    found = sorted(lines)
    if kind != "gone":
        folder = KEPT if kind == "kept" else DOCUMENTS
        path = FileSystems.join(target.output, folder, f"{kind}-{part:05d}-of-{target.parts:05d}.jsonl")
        storage.write_file(path, b"".join(line + b"\n" for _, line in found))
    return {kind: len(found)}


def write_delta(counts: dict[str, int], files: Sequence[InputFile], output: str) -> None:
    """Writes `delta.json`, last: the corpus that it is of, and the counts."""
    content = {"counts": counts, "files": [asdict(file) for file in files]}
    storage.write_file(FileSystems.join(output, DELTA), orjson.dumps(content, option=orjson.OPT_INDENT_2))

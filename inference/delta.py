"""Finds what a new corpus asks to be labelled anew, given an earlier run: a monthly refresh pays for the changes only.

    python -m inference.delta --model models/trained/ai --input 'june/*.jsonl' --previous runs/may --output to_june
    python -m inference.beam_runner --model models/trained/ai --input 'to_june/documents/*' --output runs/june

A document is labelled anew if its id is new, if its text is not what it was, or if the models are others. The labels of
the corpus are then the rows of to_june/kept and of runs/june/predictions. The next month names runs/june as
--previous: what its delta kept is found by itself. The earlier run's input files must still be there, as they were.
Every flag of Apache Beam can follow.
"""

import hashlib
import posixpath
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
import orjson
from apache_beam.io.filesystems import FileSystems

from inference import command_line, config, pipeline, run_folder, sink, slices, storage, tally
from inference.files import InputFile, find_files
from inference.records import Document, ReadOptions, read_documents
from inference.scorer import ScoringOptions, text_recipes
from inference.slices import Slice
from models import trained_model
from models.errors import UserError, exit_code

DOCUMENTS, KEPT, DELTA = "documents", "kept", "delta.json"
TO_LABEL = ("new", "changed", "unreadable")
PART_BYTES = 64 * config.MIB  # of input, for each part of the output


@dataclass(frozen=True)
class Previous:
    """What there was: the corpus, and every row of labels."""

    files: tuple[InputFile, ...]
    rows: tuple[str, ...]  # paths
    options: dict[str, Any]  # of the run, as run.json says
    models: dict[str, str]  # name: SHA-256


def main(argv: Sequence[str] | None = None) -> int:
    """Compares and writes. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> command_line.Parser:
    """The parser of `inference.delta`."""
    parser = command_line.Parser(prog="python -m inference.delta", description=__doc__)
    parser.add_argument("--model", action="append", required=True, metavar="DIR", help="to label with; may be repeated")
    parser.add_argument("--input", action="append", required=True, metavar="GLOB", help="the new corpus")
    parser.add_argument("--previous", required=True, metavar="RUN", help="folder of the earlier run, finished")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    command_line.add_json(parser)
    return parser


def _run(argv: Sequence[str]) -> None:
    flags, options, problems = make_parser().parse_with_beam(argv)
    command_line.refuse(problems)
    files, previous = find_files(flags.input), read_previous(flags.previous)
    said = previous.options
    scoring = ScoringOptions(tuple(flags.model), text_fields=tuple(said["text_fields"]), max_tokens=said["max_tokens"])
    directories = scoring.directories()
    manifests = [trained_model.verify(directory) for directory in directories]
    if FileSystems.exists(FileSystems.join(flags.output, DELTA)):
        raise UserError(f"--output {flags.output} holds a finished delta: name a new folder.")
    if said["format"] != "jsonl":
        raise UserError(f"--previous {flags.previous}: expected a run with --format jsonl, found parquet.")
    names = map(trained_model.model_name, flags.model)
    models = dict(zip(names, map(trained_model.fingerprint, directories), strict=True))
    reading = ReadOptions(text_recipes(scoring, manifests), said["id_field"], tuple(said["keep_fields"]))
    parts = max(sum(file.size for file in files) // PART_BYTES, 1)
    with beam.Pipeline(options=options) as p:
        build(p, files, previous if models == previous.models else None, reading, Target(flags.output, parts))
    counts = orjson.loads(storage.read_file(FileSystems.join(flags.output, DELTA)))["counts"]
    if flags.json:
        command_line.print_json({"counts": counts, "output": flags.output})
        return
    print(", ".join(f"{counts.get(name, 0):,} {name}" for name in (*TO_LABEL, "kept", "gone")))
    to_label = any(counts.get(name) for name in TO_LABEL)
    print(f"to label: {flags.output}/{DOCUMENTS}/*.jsonl" if to_label else "nothing to label: the kept rows are all")


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
    p: beam.Pipeline, files: Sequence[InputFile], previous: Previous | None, reading: ReadOptions, target: Target
) -> None:
    """Adds the steps: documents, old and new, and rows meet by their ids."""
    sides = {"new": _documents(p, "New", files, reading)}
    if previous:
        sides["old"] = _documents(p, "Old", previous.files, reading)
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


def _documents(p: beam.Pipeline, name: str, files: Sequence[InputFile], reading: ReadOptions) -> beam.PCollection:
    return (
        p
        | name >> beam.Create(files)
        | f"{name}Slices" >> pipeline.Slices(max(config.slice_bytes(files, None), 1))
        | f"Read{name}" >> beam.FlatMap(read_slice, reading)
    )


def read_slice(piece: Slice, reading: ReadOptions) -> Iterator[tuple[str, tuple[str, dict[str, Any], bytes]]]:
    """(id, (hash of the texts, kept fields, line)) of each document; an unreadable line has no hash."""
    read_lines = list(slices.read_lines(piece))
    lines = {line.number: line.data for line in read_lines}
    read = read_documents(read_lines, piece.file.path, reading)
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


if __name__ == "__main__":
    sys.exit(main())

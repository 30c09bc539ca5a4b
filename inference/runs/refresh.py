"""Makes a delta: checks the flags, the models, the earlier labels and the output, and compares the corpora."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import orjson
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from inference.corpus import slices, storage
from inference.corpus.files import InputFile, find_file, find_files
from inference.corpus.records import DocumentRecipe
from inference.runs import changes, lineage
from inference.runs.lineage import DELTA, DOCUMENTS, KEPT, UNFINISHED, Delta, Labels
from inference.runs.slice_list import COPIES
from inference.runs.step_errors import own_error
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions, text_recipes
from models import trained_model
from models.errors import ModelError, UserError

# Flags of a run that decide its rows or its scores, with their defaults in `inference.flags`.
DEFAULTS = {
    "text_fields": "",
    "id_field": "id",
    "keep_fields": "",
    "scores": "predicted",
    "format": "jsonl",
    "max_tokens": None,
    "runtime": "auto",
    "precision": "auto",
}
READERS = 32  # threads that look up input files
# A file that a delta writes, also half-written. Only such files are deleted when an unfinished delta is done again.
OWN_FILE = re.compile(
    rf"({DELTA}|{UNFINISHED}|{COPIES}/{slices.COPY}|{DOCUMENTS}/part-\d{{5,}}\.jsonl|{KEPT}/kept-[0-9a-f]{{16}}\.jsonl)(\.[0-9a-f]{{32}}"
    rf"{re.escape(storage.PART_SUFFIX)})?"
)


def find_changes(
    beam_options: PipelineOptions, models: Sequence[str], arguments: Sequence[str], previous: str, output: str
) -> Delta:
    """Write the documents to relabel and the rows to keep into a new folder. Return the content of `delta.json`.

    Args:
        beam_options: The options of Apache Beam.
        models: The models for the documents; none for those of the earlier run.
        arguments: Files and globs of the new corpus.
        previous: The folder of the earlier run.
        output: The folder to write.

    Raises:
        UserError: the earlier run cannot be compared with, or the folder holds other files or a finished delta.
    """
    files, earlier = find_files(arguments), lineage.find_labels(previous)
    _refuse_unusable(earlier.options, previous)
    chosen = _models(models, earlier, previous)
    _check_output(output)
    fingerprints = [{model["name"]: model["sha256"] for model in each} for each in (chosen, earlier.models)]
    same_models = fingerprints[0] == fingerprints[1]
    if same_models:
        _check_sizes(earlier.corpus, previous)
    recipe = _recipe(earlier.options, [model["path"] for model in chosen])
    head = {
        "format_version": lineage.FORMAT_VERSION,
        "previous": {"path": previous, "run": earlier.description.get("run")},
        "models": chosen,
        "options": earlier.options,
        "slice_bytes": slices.slice_bytes(files),
    }
    _clear(output)
    storage.write_file(storage.join(output, UNFINISHED), orjson.dumps({**head, "files": files}))
    try:
        with beam.Pipeline(options=beam_options) as p:
            changes.build(p, changes.Target(output, head), earlier if same_models else None, recipe)
    except Exception as error:  # each runner raises errors of its own types
        mistake = own_error(error)
        if not mistake:
            raise
        _clear(output)
        raise UserError(mistake[1]) from None
    folder = storage.join(output, COPIES)
    storage.delete(folder, list(storage.listing(folder)))
    if not storage.is_remote(folder) and os.path.isdir(folder):
        os.rmdir(folder)
    FileSystems.delete([storage.join(output, UNFINISHED)])
    return lineage.read(output)


def _refuse_unusable(options: dict[str, Any], previous: str) -> None:
    if options["format"] != "jsonl":
        raise UserError(f"--previous {previous}: expected a run with --format jsonl, found parquet; name another run.")
    if not options["id_field"]:
        raise UserError(
            f"--previous {previous}: expected a run whose documents have ids, found one with an empty --id_field; "
            "label the whole corpus with --id_field."
        )


def _models(given: Sequence[str], earlier: Labels, previous: str) -> list[dict[str, str]]:
    """Return name, path and SHA-256 of the models that are to label the documents.

    Raises:
        ModelError: a model is damaged, or it is that of the earlier run and has changed or is gone.
    """
    recorded = {model["path"]: model for model in earlier.models}
    chosen = []
    for path in given or recorded:
        try:
            trained_model.verify(model_files.local(path))
        except ModelError as error:
            moved = f"\n--previous {previous} was labelled with {path}; name its place now with --model."
            raise ModelError(f"{error}{'' if given else moved}") from None
        sha256 = model_files.fingerprint(path, earlier.options["precision"])
        if not given and sha256 != recorded[path]["sha256"]:
            raise ModelError(
                f"--previous {previous}: expected its model {path} with SHA-256 {recorded[path]['sha256'][:12]}…, "
                f"found {sha256[:12]}…; put it back, or give --model {path} to relabel everything with it."
            )
        chosen.append({"name": trained_model.model_name(path), "path": path, "sha256": sha256})
    return chosen


def _recipe(options: dict[str, Any], models: Sequence[str]) -> DocumentRecipe:
    """Return the recipe by which the earlier run read a record, from the options in its `run.json`."""
    manifests = [trained_model.read_manifest(folder) for folder in model_files.all_local(models)]
    fields, max_tokens = tuple(options["text_fields"]), options["max_tokens"]
    scoring = ScoringOptions(tuple(models), text_fields=fields, max_tokens=max_tokens)
    return DocumentRecipe(text_recipes(scoring, manifests), options["id_field"], tuple(options["keep_fields"]))


def _check_sizes(files: Sequence[InputFile], previous: str) -> None:
    """Compare the size of each file of the old corpus before anything starts; checksums follow while it is read."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda file: find_file(file.path), files))
    for file, now in zip(files, found, strict=True):
        if now is None:
            raise UserError(
                f"--previous {previous}: expected its input {file.path}, found no such file; put it back, because "
                "texts are compared with it."
            )
        if now.size != file.size:
            raise UserError(changes.changed_input(file.path, previous))


def _check_output(output: str) -> None:
    """Refuse a folder with a finished delta, or with files of which no unfinished delta says that they are its own."""
    names = lineage.contents(output)
    if DELTA in names:
        raise UserError(f"--output {output}: expected a new folder, found a finished delta in it; name another.")
    foreign = [name for name in names if not OWN_FILE.fullmatch(name)]
    if names and UNFINISHED not in names:
        foreign += [name for name in names if not name.startswith(UNFINISHED)]
    if foreign:
        raise UserError(
            f"--output {output}: expected a new folder, found {foreign[0]!r} in it, which belongs to no unfinished "
            "delta; name another."
        )


def _clear(output: str) -> None:
    """Delete the files of an unfinished delta. The file that makes them its own goes last."""
    names = sorted(filter(OWN_FILE.fullmatch, lineage.contents(output)), key=lambda name: name == UNFINISHED)
    if names:
        FileSystems.delete([storage.join(output, *name.split("/")) for name in names])


def command(delta: Delta, output: str) -> list[str] | None:
    """Return the command that labels the documents of a delta with the options of the earlier run; None without any.

    Args:
        delta: The content of `delta.json`.
        output: The folder of the delta. The command names the folder `run` in it for the run.
    """
    if not delta.documents:
        return None
    options = delta.options
    words = ["python", "-m", "inference.beam_runner"]
    words += [word for model in delta.models for word in ("--model", model["path"])]
    words += ["--input", storage.join(output, DOCUMENTS, "*.jsonl"), "--output", storage.join(output, "run")]
    for name, default in DEFAULTS.items():
        value = ",".join(options[name]) if isinstance(options[name], list) else options[name]
        if value != default:
            words += [f"--{name}", str(value)]
    return [*words, "--redact_failures"] if options["redact_failures"] else words

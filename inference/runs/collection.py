"""Writes the labels of a whole corpus into one folder: the rows of a run, and those that its delta kept."""

import posixpath
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from apache_beam.io.filesystems import FileSystems

from inference.corpus import records, storage
from inference.runs import lineage, own_files, run_folder, sink
from inference.runs.lineage import Labels
from inference.runs.receipts import Receipt
from models.errors import UserError

COLLECTION = "collection.json"
HALF_WRITTEN = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(storage.PART_SUFFIX)}$")
WRITERS = 16  # threads that copy files; each holds one file in memory


@dataclass(frozen=True)
class Copy:
    """A file to copy."""

    source: str
    target: str  # path in the output folder
    sha256: str
    rows: int  # number of rows that it must hold


def collect(source: str, output: str) -> dict[str, Any]:
    """Write the predictions and failures of a whole corpus into a folder. Return the content of `collection.json`.

    Args:
        source: The folder of a finished run, or of a delta with nothing to label.
        output: The folder to write. It may hold an unfinished collection of the same labels.

    Raises:
        UserError: a document is unaccounted for, a file has changed, or the folder holds other files.
    """
    labels = lineage.find_labels(source)
    all_receipts = run_folder.finished_receipts(labels.run) if labels.run else []
    counts = _counts(labels, all_receipts, source)
    copies = [*_kept_files(labels), *_files_of_run(labels, all_receipts)]
    content = {
        "run": labels.run,
        "delta": labels.delta,
        "models": labels.models,
        "counts": counts,
        "files": {copy.target: copy.sha256 for copy in sorted(copies, key=lambda copy: copy.target)},
    }
    _check_output(output, content)
    with ThreadPoolExecutor(WRITERS) as pool:
        if labels.delta:
            list(pool.map(lambda file: storage.read_checked(*file), lineage.document_files(labels.delta)))
        list(pool.map(lambda copy: _copy(copy, output), copies))
    storage.write_file(storage.join(output, own_files.SCHEMA), _json(_schema(labels)))
    storage.write_file(storage.join(output, COLLECTION), _json(content))
    return content


def _check_output(output: str, content: dict[str, Any]) -> None:
    """Refuse a folder with other files than a stopped attempt wrote. Delete those that it left half-written."""
    names = lineage.contents(output)
    if COLLECTION in names and storage.read_file(storage.join(output, COLLECTION)) != _json(content):
        raise UserError(f"--output {output}: expected a new folder, found another collection in it; name another.")
    own = {*content["files"], own_files.SCHEMA, COLLECTION}
    half_written = [name for name in names if HALF_WRITTEN.sub("", name) in own and name not in own]
    if foreign := sorted(set(names) - own - set(half_written)):
        raise UserError(f"--output {output}: expected a new folder, found {foreign[0]!r} in it; name another.")
    if half_written:
        FileSystems.delete([storage.join(output, *name.split("/")) for name in half_written])


def _counts(labels: Labels, all_receipts: list[Receipt], source: str) -> dict[str, int]:
    """Return how many documents the corpus has, and how many of them were kept, predicted and failed.

    Raises:
        UserError: the numbers do not add up.
    """
    predicted, failed = (sum(getattr(receipt, name) for receipt in all_receipts) for name in ("predicted", "failed"))
    if labels.kept is None:
        return {"documents": predicted + failed, "kept": 0, "predicted": predicted, "failed": failed}
    kept, to_label = (sum(part.rows for part in parts) for parts in (labels.kept.kept, labels.kept.documents))
    documents = sum(count for outcome, count in labels.kept.counts.items() if outcome != "gone")
    if kept + to_label != documents:
        raise UserError(
            f"{labels.delta}: expected {documents:,} documents, found {kept:,} kept and {to_label:,} to label; make "
            "the delta again."
        )
    if predicted + failed != to_label:
        raise UserError(
            f"{source}: expected a prediction or a failure for each of the {to_label:,} documents of the delta "
            f"{labels.delta}, found {predicted + failed:,}; label all of them, without --limit."
        )
    return {"documents": documents, "kept": kept, "predicted": predicted, "failed": failed}


def _kept_files(labels: Labels) -> Iterator[Copy]:
    for part in labels.kept.kept if labels.kept else ():
        name = posixpath.basename(part.path)
        yield Copy(f"{labels.delta}/{part.path}", f"{sink.PREDICTIONS}/{name}", part.sha256, part.rows)


def _files_of_run(labels: Labels, all_receipts: list[Receipt]) -> Iterator[Copy]:
    for receipt in all_receipts:
        for path, sha256 in receipt.sha256.items():
            if path.startswith(sink.IDS):
                continue
            predicted = path.startswith(sink.PREDICTIONS)
            folder, rows = (sink.PREDICTIONS, receipt.predicted) if predicted else (sink.FAILURES, receipt.failed)
            yield Copy(f"{labels.run}/{path}", f"{folder}/{posixpath.basename(path)}", sha256, rows)


def _copy(copy: Copy, output: str) -> None:
    """Copy one file.

    Raises:
        UserError: the file is gone, has changed, or has another number of rows.
    """
    content = storage.read_checked(copy.source, copy.sha256)
    if (rows := sink.count_rows(copy.source, content)) != copy.rows:
        raise UserError(f"{copy.source}: expected {copy.rows:,} rows, found {rows:,}; label the corpus again.")
    storage.write_file(storage.join(output, *copy.target.split("/")), content)


def _schema(labels: Labels) -> list[dict[str, Any]]:
    keep_fields = labels.options["keep_fields"]
    schema = records.predictions_schema(keep_fields, [model["name"] for model in labels.models])
    return records.bigquery_schema(schema, keep_fields, labels.options["format"])


def _json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)

"""Reads what a teacher says of unlabelled texts, from a finished run with all scores and the text fields."""

import hashlib
import io
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models import seals, trained_model
from models.decision import decide
from models.errors import UserError
from models.text import TextError
from models.trained_model import Manifest
from training import duplicates
from training.config import TrainConfig
from training.data_splits import Prepared
from training.examples import Examples, Splits, concatenate
from training.spool import Texts, digest

RUNNER = "inference.beam_runner"
MANY_FAILED = 3  # exit code of a finished run in which more documents failed than the user allows
ROWS_AT_ONCE = 1_000


def run(teacher: Path, texts: Sequence[str], folder: Path) -> None:
    """Label the texts with the teacher into a folder. Finished parts of an earlier attempt are not labelled again.

    Raises:
        UserError: the folder holds the run of another model, or the run failed, which has said why.
    """
    if (folder / "run.json").is_file():
        _teachers_column(_sealed(folder / "run.json") or {}, teacher, folder)
    fields = ",".join(trained_model.read_manifest(teacher).text.fields)
    command = [sys.executable, "-m", RUNNER, "--model", str(teacher), "--output", str(folder), "--id_field", ""]
    command += ["--scores", "all", "--keep_fields", fields]
    for pattern in texts:
        command += ["--input", pattern]
    code = subprocess.run(command, check=False).returncode
    if code == MANY_FAILED:
        print(f"notice: many documents failed; {folder / 'failures'} says why, and the others are taught.")
    elif code:
        raise UserError(
            f"--texts: expected the teacher to label them into {folder}, found exit code {code} of {RUNNER}; its "
            "messages above say why."
        )


def read(folder: Path, teacher: Path, config: TrainConfig) -> Examples:
    """Return the documents of a run, with the teacher's labels as targets and its probabilities.

    Documents without a text for the student are left out.

    Raises:
        UserError: the folder holds no finished run of the teacher as it is, or not all scores and fields, or a file
            that is not as its receipt says.
    """
    described, summary = _sealed(folder / "run.json"), _sealed(folder / "summary.json")
    if described is None or summary is None or described["run"] != summary["run"]:
        raise UserError(f"{folder}: expected a finished run, found none; finish it first.")
    manifest = trained_model.read_manifest(teacher)
    name = _teachers_column(described, teacher, folder)
    _check_options(described["options"], manifest, folder)
    labels = manifest.labels.names
    scores = [np.zeros((0, len(labels)), np.float32)]

    def texts() -> Iterator[str]:
        for rows in _some_rows(folder, described["run"], summary["slices"]):
            some = [(text, row[name]["scores"]) for row in rows if (text := _text_of(row, config))]
            by_label = ({score["label"]: score["score"] for score in of_text} for _, of_text in some)
            found = [[of_text[label] for label in labels] for of_text in by_label]
            scores.append(np.array(found, np.float32).reshape(-1, len(labels)))
            yield from (text for text, _ in some)

    written = Texts.of(texts())
    taught = np.concatenate(scores)
    ids = [f"taught:{number}" for number in range(1, len(taught) + 1)]
    return Examples(written, _targets(taught, manifest), ids, taught=taught)


def _text_of(row: dict[str, Any], config: TrainConfig) -> str | None:
    try:
        return config.text.text_of(row)
    except TextError:
        return None


def _sealed(path: Path) -> dict[str, Any] | None:
    return seals.unseal(path.read_bytes()) if path.is_file() else None


def _teachers_column(described: dict[str, Any], teacher: Path, folder: Path) -> str:
    """Return the name of the teacher's column in a run.

    Raises:
        UserError: the run is one of other models, or of an int8 variant, whose hash covers more than the teacher.
    """
    models: list[dict[str, str]] = described.get("models", [])
    sha256 = trained_model.fingerprint(teacher)
    name = next((model["name"] for model in models if model["sha256"] == sha256), None)
    if name is None:
        if described.get("options", {}).get("precision") == "int8":
            raise UserError(f"{folder}: expected a run without --precision int8, found one with it; label without it.")
        raise UserError(
            f"{folder}: expected a run of {teacher} as it is now (SHA-256 {sha256[:12]}…), found one of "
            f"{', '.join(model['path'] for model in models) or 'no model'}; remove it, or label into another folder."
        )
    return name


def _check_options(options: dict[str, Any], manifest: Manifest, folder: Path) -> None:
    """Refuse a run whose rows lack scores or texts, or whose scores are those of other texts than the teacher's."""
    fields = manifest.text.fields
    kept = {field.partition(":")[0] for field in options["keep_fields"]}
    if options["scores"] != "all":
        raise UserError(
            f"{folder}: expected the scores of all labels, found {options['scores']}; label again with --scores all."
        )
    if missing := [field for field in fields if field not in kept]:
        raise UserError(
            f"{folder}: expected rows with {', '.join(fields)}, found no {', '.join(missing)}; label again with "
            f"--keep_fields {','.join(fields)}."
        )
    if options["max_tokens"] or tuple(options["text_fields"] or fields) != tuple(fields):
        raise UserError(
            f"{folder}: expected a run that reads what the teacher reads, found --text_fields or --max_tokens; label "
            "again without them."
        )


def _some_rows(folder: Path, identity: str, slices: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a run, some at a time, from the files that its receipts name.

    Raises:
        UserError: a receipt is missing, or a file is not as its receipt says.
    """
    written: list[dict[str, str]] = []  # SHA-256 of the files of each slice
    for path in sorted((folder / "receipts").glob("*.json")):
        receipt = _sealed(path)
        if receipt and receipt["run"] == identity:
            written.append(receipt["sha256"])
    if len(written) != slices:
        raise UserError(
            f"{folder}: expected {slices:,} receipts, found {len(written):,}; the command that labelled it makes the "
            "others again."
        )
    for files in written:
        for name, sha256 in files.items():
            if name.startswith("predictions/"):
                yield from _rows_of(folder / name, sha256)


def _rows_of(path: Path, sha256: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a slice from the very bytes that were compared with its receipt."""
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{path}: expected the file that its receipt names, found another or none; `labelbeam verify "
            f"{path.parents[1]}` says more."
        )
    if path.suffix == ".parquet":
        with pq.ParquetFile(io.BytesIO(content)) as file:
            if file.metadata.num_rows:
                yield from (batch.to_pylist() for batch in file.iter_batches(ROWS_AT_ONCE))
        return
    lines = io.BytesIO(content)
    while some := list(itertools.islice(lines, ROWS_AT_ONCE)):
        yield [orjson.loads(line) for line in some]


def _targets(taught: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32]:
    """Return the labels that the teacher's decision gives. A multi_class document has its most probable one."""
    decision = manifest.decision.model_copy(update={"abstain_below": 0.0})
    return decide(taught, manifest.labels, decision).astype(np.float32)


def joined(prepared: Prepared, taught: Examples, config: TrainConfig) -> Prepared:
    """Return the labelled data with the taught documents in train, without those that are there or measured already.

    Raises:
        UserError: none is left.
    """
    splits = prepared.splits
    repeats = duplicates.repeats(taught, splits, config.data.near_duplicate)
    known = {digest(text) for text in splits.train.texts}
    kept = []
    for place, (text, document) in enumerate(zip(taught.texts, taught.ids, strict=True)):
        if document not in repeats and (key := digest(text)) not in known:
            known.add(key)
            kept.append(place)
    if not kept:
        raise UserError("expected taught texts that the labelled data does not hold, found none; label others.")
    print(
        f"taught: {len(kept):,} documents; {len(taught) - len(kept):,} left out, which repeat each other or the "
        "labelled data"
    )
    train = concatenate([splits.train, taught.take(np.array(kept, np.int64))])
    card = {**prepared.card, "taught": {"documents": len(kept), "left_out": len(taught) - len(kept)}}
    return replace(prepared, splits=Splits(train, splits.validation, splits.test), card=card)

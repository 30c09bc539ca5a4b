"""Reads what a teacher says of unlabelled texts, from a finished run with all scores and the text fields."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import seals, trained_model
from models.decision import decide
from models.errors import UserError
from models.text import TextError
from models.trained_model import Manifest
from training import duplicates, tables
from training.config import TrainConfig
from training.data_splits import Prepared
from training.examples import Examples, Splits, concatenate
from training.spool import Texts, digest

RUNNER = "inference.beam_runner"


def run(teacher: Path, texts: Sequence[str], output: Path) -> None:
    """Label the texts with the teacher into a folder. Finished parts of an earlier attempt are not labelled again.

    Raises:
        UserError: the run failed; it has said why.
    """
    fields = ",".join(trained_model.read_manifest(teacher).text.fields)
    command = [sys.executable, "-m", RUNNER, "--model", str(teacher), "--output", str(output)]
    command += ["--scores", "all", "--keep_fields", fields]
    for pattern in texts:
        command += ["--input", pattern]
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(
            f"--texts: expected the teacher to label them into {output}, found exit code {code} of {RUNNER}, which has "
            "said why; remove that folder to label other texts or with another teacher."
        )


def read(folder: Path, teacher: Path, config: TrainConfig) -> Examples:
    """Return the documents of a run, with the teacher's labels as targets and its probabilities.

    Documents without a text for the student are left out.

    Raises:
        UserError: the folder holds no finished run of the teacher, or not all scores and fields.
    """
    manifest = trained_model.read_manifest(teacher)
    name, expected = _check(folder, teacher)
    fields = [*config.text.fields, name]
    index = {label: place for place, label in enumerate(manifest.labels.names)}
    scores: list[NDArray[np.float32]] = []
    ids: list[str] = []

    def texts() -> Iterator[str]:
        found = 0
        for row in _rows(folder, fields, config):
            found += 1
            try:
                text = config.text.text_of(row)
            except TextError:
                continue
            scores.append(_scores(row[name], index, folder))
            ids.append(f"{folder}:{row['id']}")
            yield text
        if found != expected:
            raise UserError(f"{folder}: expected {expected:,} rows, found {found:,}; label the texts again.")

    written = Texts.of(texts())
    taught = np.stack(scores) if scores else np.zeros((0, len(index)), np.float32)
    return Examples(written, _targets(taught, manifest), ids, taught=taught)


def _check(folder: Path, teacher: Path) -> tuple[str, int]:
    """Return the name of the teacher's column in a finished run, and the number of rows.

    Raises:
        UserError: the folder holds no finished run, or the run had other models.
    """
    described, summary = _sealed(folder / "run.json"), _sealed(folder / "summary.json")
    if described is None or summary is None or described["run"] != summary["run"]:
        raise UserError(f"{folder}: expected a finished run, found none; finish it first.")
    models: list[dict[str, str]] = described["models"]
    sha256 = trained_model.fingerprint(teacher)
    name = next((model["name"] for model in models if model["sha256"] == sha256), None)
    if name is None:
        raise UserError(
            f"{folder}: expected a run of {teacher} as it is now (SHA-256 {sha256[:12]}…), found one of "
            f"{', '.join(model['path'] for model in models)}; label the texts with it."
        )
    return name, summary["predicted"]


def _sealed(path: Path) -> dict[str, Any] | None:
    return seals.unseal(path.read_bytes()) if path.is_file() else None


def _rows(folder: Path, fields: Sequence[str], config: TrainConfig) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "predictions").iterdir()):
        rows = tables.read(os.fspath(path), config)
        if missing := [field for field in fields if field not in rows.columns]:
            raise UserError(
                f"{folder}: expected rows with {', '.join(fields)}, found no {', '.join(missing)}; label the texts "
                f"again with --keep_fields {','.join(config.text.fields)}."
            )
        yield from rows.of(["id", *fields])


def _scores(cell: dict[str, Any], index: dict[str, int], folder: Path) -> NDArray[np.float32]:
    scores = {score["label"]: score["score"] for score in cell["scores"]}
    if len(scores) < len(index):
        raise UserError(
            f"{folder}: expected the scores of all {len(index)} labels, found {len(scores)}; label the texts again "
            "with --scores all."
        )
    return np.array([scores[label] for label in index], np.float32)


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
    pairs = duplicates.find(replace(splits, train=taught), config.data.near_duplicate)
    leaked = duplicates.leaked(pairs)
    known = {digest(text) for text in splits.train.texts}
    kept = []
    for place, (text, document) in enumerate(zip(taught.texts, taught.ids, strict=True)):
        if document not in leaked and digest(text) not in known:
            known.add(digest(text))
            kept.append(place)
    if not kept:
        raise UserError("--texts: expected texts that the labelled data does not hold, found none; give others.")
    print(
        f"taught: {len(kept):,} documents; {len(taught) - len(kept):,} left out, which repeat each other or the "
        "labelled data"
    )
    train = concatenate([splits.train, taught.take(np.array(kept, np.int64))])
    card = {**prepared.card, "taught": {"documents": len(kept), "left_out": len(taught) - len(kept)}}
    return replace(prepared, splits=Splits(train, splits.validation, splits.test), card=card)

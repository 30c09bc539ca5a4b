"""Makes the int8 variant of a model, and keeps it only if labelled documents show that it is as good."""

import contextlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from inference.corpus import slices
from inference.corpus.files import find_files
from inference.corpus.records import Document, DocumentRecipe, Line, read_documents
from inference.scoring import conversion_folder, converters, runtimes
from inference.scoring.conversion_folder import FOLDER, PROOF
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.scorer import Scorer
from models import hardware, tokenizing, weights
from models.batches import by_length
from models.errors import UserError
from models.labels import LabelSchema, Task
from models.reading import Reading
from models.tokens import Tokens
from models.weights import TrainedModel

CALIBRATION_DOCUMENTS = 300  # the activations of these documents set the ranges of int8
MIN_MEASURED = 200  # with fewer measured documents, a fall of F1 could be chance
MAX_F1_FALL = 0.002  # a variant whose F1 falls by more is refused


@dataclass(frozen=True)
class Proof:
    """A comparison of the int8 variant with the original model, on documents that did not set the variant's ranges."""

    documents: int  # number of documents measured
    f1_before: float  # macro-F1 of the original model, or the positive label's F1 for a binary model
    f1_after: float  # the same measure in int8
    agreement: float  # share of documents with exactly the same labels
    largest_difference: float  # largest difference of a probability
    documents_per_second_before: float
    documents_per_second_after: float
    before: str  # runtime and precision of the original model

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents: F1 {self.f1_before:.4f} before, {self.f1_after:.4f} in int8; "
            f"the same labels on {self.agreement:.1%}, probabilities at most {self.largest_difference:.3f} apart\n"
            f"{self.documents_per_second_before:,.1f} docs/s before ({self.before}), "
            f"{self.documents_per_second_after:,.1f} in int8"
        )


@dataclass(frozen=True)
class LabelledFile:
    """A file of labelled documents, as JSON lines or Parquet."""

    path: str
    label_field: str  # field that holds a label or a list of labels
    text_fields: tuple[str, ...] = ()  # fields to read; empty for the model's own
    max_documents: int = 10_000  # largest number of documents to measure


def check_machine() -> None:
    """Refuse a machine that cannot make or use an int8 variant.

    Raises:
        UserError: a package is missing, or the processor lacks int8 products.
    """
    runtimes.choose("openvino", "int8", "cpu")
    if importlib.util.find_spec("nncf") is None:
        raise UserError("nncf, which quantizes the model, is not installed; pip install nncf.")
    if not hardware.has_int8():
        raise UserError(
            "expected a processor with int8 products (VNNI or AMX), found none, so int8 would be slower than fp32; use "
            "another machine."
        )


def make(directory: str, data: LabelledFile) -> tuple[Proof, Path]:
    """Make the int8 variant beside the model and return its proof and its folder.

    Raises:
        ModelError: the model cannot be loaded or scored.
        UserError: there are too few documents, or F1 falls by more than MAX_F1_FALL; nothing is written.
    """
    model = weights.load(directory)
    options = ScoringOptions(
        models=(directory,), runtime="openvino", device="cpu", text_fields=data.text_fields, scores="all"
    )
    documents = _read(data.path, data.label_field, options, model)
    calibration, measured = documents[:CALIBRATION_DOCUMENTS], documents[CALIBRATION_DOCUMENTS:][: data.max_documents]
    if len(measured) < MIN_MEASURED:
        raise UserError(
            f"--data {data.path}: expected at least {CALIBRATION_DOCUMENTS + MIN_MEASURED} labelled documents, "
            f"{CALIBRATION_DOCUMENTS} to set the ranges and {MIN_MEASURED} to measure, found {len(documents)}; label "
            "more documents."
        )
    truth = _targets(measured, data.label_field, model.manifest.labels)
    kind = conversion_folder.int8(model.manifest)
    variant = conversion_folder.path_of(directory, kind)
    with _candidate(directory) as candidate:
        folder = conversion_folder.path_of(candidate, kind)
        converters.quantize(model, _batches(calibration, model, options), folder)
        proof = _prove(measured, truth, model, options, str(candidate))
        if proof.f1_after < proof.f1_before - MAX_F1_FALL:
            raise UserError(
                f"{proof}\nint8 refused: F1 fell from {proof.f1_before:.4f} to {proof.f1_after:.4f}, by more than "
                f"{MAX_F1_FALL}; nothing was written, so use the model without int8."
            )
        (folder / PROOF).write_text(json.dumps(asdict(proof), indent=1) + "\n", encoding="utf-8")
        conversion_folder.seal(folder, kind)
        try:
            conversion_folder.publish(folder, variant, conversion_folder.identity(variant))
        except OSError as error:
            raise UserError(f"{variant} cannot be written: {error.strerror}; try again.") from None
    return proof, variant


@contextlib.contextmanager
def _candidate(directory: str) -> Iterator[Path]:
    """Give a temporary directory with links to the model's files, to try a variant before the model has it.

    Raises:
        UserError: the model's directory is not writable.
    """
    model = Path(directory).resolve()
    try:
        (model / FOLDER).mkdir(exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".", dir=model / FOLDER)
    except OSError as error:
        raise UserError(
            f"--model {directory} cannot be written, but the variant belongs there: {error.strerror}; copy the "
            "model to a writable directory."
        ) from None
    with staging as folder:
        candidate = Path(folder) / model.name
        candidate.mkdir()
        for file in model.iterdir():
            if file.is_file():
                (candidate / file.name).symlink_to(file)
        yield candidate


def _read(path: str, label_field: str, options: ScoringOptions, model: TrainedModel) -> list[Document]:
    """Return the labelled documents in a random order, which is always the same.

    Raises:
        UserError: the file is missing or unreadable, or has no labelled documents.
    """
    if path.endswith(".parquet"):
        if not Path(path).is_file():
            raise UserError(f"--data {path}: expected a file, found none; check the path.")
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"--data {path}: expected a readable Parquet file, found an error ({error}); write it again."
            ) from None
        lines = [Line(number, orjson.dumps(row, default=str)) for number, row in enumerate(rows, 1)]
    else:
        lines = list(slices.all_lines(find_files([path])[0]))
    recipes = text_recipes(options, [model.manifest])
    read = read_documents(lines, path, DocumentRecipe(recipes, id_field="", keep_fields=(label_field,)))
    labelled = [document for document in read.documents if document.kept_fields[label_field] is not None]
    if not labelled:
        reasons = ", ".join(sorted({failure.reason for failure in read.failures})) or f"no field {label_field!r}"
        raise UserError(f"--data {path}: expected labelled documents, found none ({reasons}); see --help.")
    return [labelled[i] for i in np.random.default_rng(0).permutation(len(labelled))]


def _targets(documents: Sequence[Document], label_field: str, labels: LabelSchema) -> NDArray[np.bool_]:
    """Return whether each label applies to each document, as booleans (documents, labels).

    Raises:
        UserError: a document has an unknown label, or not exactly one label although the task needs that.
    """
    targets = np.zeros((len(documents), len(labels.names)), bool)
    for target, document in zip(targets, documents, strict=True):
        value = document.kept_fields[label_field]
        names = value if isinstance(value, list) else [value]
        unknown = [name for name in names if name not in labels.names]
        if unknown or (labels.task is not Task.MULTI_LABEL and len(names) != 1):
            raise UserError(
                f"line {document.line}, field {label_field!r}: expected labels of {', '.join(labels.names[:8])}, found "
                f"{value!r}; correct the line."
            )
        target[[labels.names.index(name) for name in names]] = True
    return targets


def _batches(documents: Sequence[Document], model: TrainedModel, options: ScoringOptions) -> list[tuple[Any, Any]]:
    """Return batches of ids and mask, both int64 (documents, tokens)."""
    recipe, texts = options.recipe_of(model.manifest), [document.texts[0] for document in documents]
    tokenizer = tokenizing.of(model.tokenizer)
    reading = Reading(tokenizer, recipe)
    tokens, _ = reading.parts(Tokens.of(tokenizing.encode(tokenizer, texts, reading.needed_tokens, recipe)))
    batches = map(tokens.of_texts, by_length(tokens.lengths, 1_024))
    padded = [batch.padded(int(batch.lengths[0]), tokenizer.pad_id) for batch in batches]
    return [(ids, np.ones_like(ids) if mask is None else mask) for ids, mask in padded]


def _prove(
    documents: Sequence[Document],
    truth: NDArray[np.bool_],
    model: TrainedModel,
    options: ScoringOptions,
    candidate: str,
) -> Proof:
    labels = model.manifest.labels
    before = _score(documents, Scorer(options))
    after = _score(documents, Scorer(replace(options, models=(candidate,), precision="int8")))
    return Proof(
        documents=len(documents),
        f1_before=_f1(truth, before.chosen, labels),
        f1_after=_f1(truth, after.chosen, labels),
        agreement=float((before.chosen == after.chosen).all(axis=1).mean()),
        largest_difference=float(np.abs(before.scores - after.scores).max()),
        documents_per_second_before=round(before.speed, 1),
        documents_per_second_after=round(after.speed, 1),
        before=str(runtimes.choose(options.runtime, options.precision, options.device)),
    )


@dataclass(frozen=True)
class _Scored:
    scores: NDArray[np.float64]  # probabilities (documents, labels)
    chosen: NDArray[np.bool_]  # whether each document got each label (documents, labels)
    speed: float  # documents per second


def _score(documents: Sequence[Document], loaded: Scorer) -> _Scored:
    began = time.perf_counter()
    predictions, failures, _ = loaded.score(documents)
    seconds = time.perf_counter() - began
    if failures:
        raise UserError(
            f"expected scores for all documents, found {len(failures)} without ({failures[0].detail}); check the model."
        )
    (of_model,) = predictions.by_model.values()
    scores, chosen = of_model.decided(slice(None))
    return _Scored(scores, chosen, len(documents) / seconds)


def _f1(truth: NDArray[np.bool_], chosen: NDArray[np.bool_], labels: LabelSchema) -> float:
    if labels.task is Task.BINARY:
        return float(f1_score(truth[:, 1], chosen[:, 1], zero_division=0.0))
    return float(f1_score(truth, chosen, average="macro", zero_division=0.0))

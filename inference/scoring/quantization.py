"""Makes the int8 variant of a model, if labelled documents show that it is as good."""

import contextlib
import importlib.util
import json
import shutil
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
from inference.scoring import batching, conversions, runtimes, scorer
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.scorer import Scorer
from models import weights
from models.errors import UserError
from models.labels import LabelSchema, Task
from models.weights import TrainedModel

PROOF = "proof.json"  # beside the variant
CALIBRATION = 300  # documents whose activations set the ranges of int8
FEWEST = 200  # documents measured: of fewer, a fall of F1 would be chance
LARGEST_FALL = 0.002  # of F1


@dataclass(frozen=True)
class Proof:
    """What the variant was found to do, on `documents` that did not set its ranges."""

    documents: int
    f1_before: float  # macro-F1, of a binary model the positive label's F1
    f1_after: float
    agreement: float  # share of documents whose labels are all the same
    largest_difference: float  # of a probability
    documents_per_second_before: float
    documents_per_second_after: float
    before: str  # runtime and number format that it is compared with

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents: F1 {self.f1_before:.4f} before, {self.f1_after:.4f} in int8; "
            f"the same labels on {self.agreement:.1%}, probabilities at most {self.largest_difference:.3f} apart\n"
            f"{self.documents_per_second_before:,.1f} docs/s before ({self.before}), "
            f"{self.documents_per_second_after:,.1f} in int8"
        )


@dataclass(frozen=True)
class Labelled:
    """The file of labelled documents, and how it is read."""

    path: str
    label_field: str
    text_fields: tuple[str, ...] = ()  # empty: the model's own
    max_documents: int = 10_000  # to measure


def check_machine() -> None:
    """Refuse a machine that cannot make or use an int8 variant.

    Raises:
        UserError: a package or the processor's int8 products are missing.
    """
    runtimes.choose("openvino", "int8", "cpu")
    if importlib.util.find_spec("nncf") is None:
        raise UserError("nncf is not installed, which quantizes; pip install nncf.")
    if not runtimes.has_int8():
        raise UserError(
            "this processor has no int8 products in hardware (VNNI or AMX): int8 would be slower than fp32."
        )


def make(directory: str, data: Labelled) -> tuple[Proof, Path]:
    """Make the int8 variant beside the model and return its proof and its folder.

    Raises:
        UserError: there are too few documents, or F1 falls by more than LARGEST_FALL; nothing is written.
    """
    model = weights.load(directory)
    options = ScoringOptions(
        models=(directory,), runtime="openvino", device="cpu", text_fields=data.text_fields, scores="all"
    )
    documents = _read(data.path, data.label_field, options, model)
    calibration, measured = documents[:CALIBRATION], documents[CALIBRATION:][: data.max_documents]
    if len(measured) < FEWEST:
        raise UserError(
            f"--data {data.path}: expected at least {CALIBRATION + FEWEST} labelled documents, {CALIBRATION} to set "
            f"the ranges and {FEWEST} to measure, found {len(documents)}."
        )
    truth = _targets(measured, data.label_field, model.manifest.labels)
    with _candidate(directory) as candidate:
        folder = conversions.int8_folder(model.manifest, candidate)
        conversions.quantize(model, directory, _batches(calibration, model, options), folder)
        proof = _prove(measured, truth, model, options, str(candidate))
        if proof.f1_after < proof.f1_before - LARGEST_FALL:
            raise UserError(
                f"{proof}\nint8 refused: F1 fell from {proof.f1_before:.4f} to {proof.f1_after:.4f}, by more than "
                f"{LARGEST_FALL}; nothing was written."
            )
        (folder / PROOF).write_text(json.dumps(asdict(proof), indent=1) + "\n", encoding="utf-8")
        kept = conversions.int8_folder(model.manifest, directory)
        shutil.rmtree(kept, ignore_errors=True)
        folder.rename(kept)
    return proof, kept


@contextlib.contextmanager
def _candidate(directory: str) -> Iterator[Path]:
    """A directory with links to the model's files, in which a variant can be tried before the model has it."""
    model = Path(directory).resolve()
    try:
        (model / conversions.FOLDER).mkdir(exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".", dir=model / conversions.FOLDER)
    except OSError as error:
        raise UserError(
            f"--model {directory} cannot be written, where the variant belongs: {error.strerror}."
        ) from None
    with staging as folder:
        candidate = Path(folder) / model.name
        candidate.mkdir()
        for file in model.iterdir():
            if file.is_file():
                (candidate / file.name).symlink_to(file)
        yield candidate


def _read(path: str, label_field: str, options: ScoringOptions, model: TrainedModel) -> list[Document]:
    """Labelled documents in a random order that is always the same."""
    if path.endswith(".parquet"):
        if not Path(path).is_file():
            raise UserError(f"--data {path}: expected a file, found none.")
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"--data {path} cannot be read as Parquet: {error}") from None
        lines = [Line(number, orjson.dumps(row, default=str)) for number, row in enumerate(rows, 1)]
    else:
        lines = list(slices.all_lines(find_files([path])[0]))
    recipes = text_recipes(options, [model.manifest])
    read = read_documents(lines, path, DocumentRecipe(recipes, id_field="", keep_fields=(label_field,)))
    labelled = [document for document in read.documents if document.kept[label_field] is not None]
    if not labelled:
        reasons = ", ".join(sorted({failure.reason for failure in read.failures})) or f"no field {label_field!r}"
        raise UserError(f"--data {path}: expected labelled documents, found none ({reasons}); see --help.")
    return [labelled[i] for i in np.random.default_rng(0).permutation(len(labelled))]


def _targets(documents: Sequence[Document], label_field: str, labels: LabelSchema) -> NDArray[np.bool_]:
    """Whether a label applies (documents, labels)."""
    targets = np.zeros((len(documents), len(labels.names)), bool)
    for target, document in zip(targets, documents, strict=True):
        cell = document.kept[label_field]
        names = cell if isinstance(cell, list) else [cell]
        unknown = [name for name in names if name not in labels.names]
        if unknown or (labels.task is not Task.MULTI_LABEL and len(names) != 1):
            raise UserError(
                f"line {document.line}, field {label_field!r}: expected labels of {', '.join(labels.names[:8])}, found "
                f"{cell!r}."
            )
        target[[labels.names.index(name) for name in names]] = True
    return targets


def _batches(documents: Sequence[Document], model: TrainedModel, options: ScoringOptions) -> list[tuple[Any, Any]]:
    longest = options.recipe_of(model.manifest).max_tokens
    tokens = scorer.tokenize(model.tokenizer, [document.texts[0] for document in documents], longest)
    pad = model.tokenizer.pad_token_id or 0
    batches = batching.by_length([*map(len, tokens)], 1_024)
    padded = [scorer.padded([tokens[i] for i in batch], pad, len(tokens[batch[0]])) for batch in batches]
    return [(ids, np.ones_like(ids) if mask is None else mask) for ids, mask in padded]


def _prove(
    documents: Sequence[Document],
    truth: NDArray[np.bool_],
    model: TrainedModel,
    options: ScoringOptions,
    candidate: str,
) -> Proof:
    labels = model.manifest.labels
    exact = _score(documents, Scorer(options), labels)
    small = Scorer(replace(options, models=(candidate,), precision="int8"))
    rough = _score(documents, small, labels)
    return Proof(
        documents=len(documents),
        f1_before=_f1(truth, exact.chosen, labels),
        f1_after=_f1(truth, rough.chosen, labels),
        agreement=float((exact.chosen == rough.chosen).all(axis=1).mean()),
        largest_difference=float(np.abs(exact.scores - rough.scores).max()),
        documents_per_second_before=round(exact.speed, 1),
        documents_per_second_after=round(rough.speed, 1),
        before=str(runtimes.choose(options.runtime, options.precision, options.device)),
    )


@dataclass(frozen=True)
class _Scored:
    scores: NDArray[np.float64]  # probabilities (documents, labels)
    chosen: NDArray[np.bool_]
    speed: float  # documents a second


def _score(documents: Sequence[Document], loaded: Scorer, labels: LabelSchema) -> _Scored:
    began = time.perf_counter()
    predictions, failures, _ = loaded.score(documents)
    seconds = time.perf_counter() - began
    if failures:
        raise UserError(f"{len(failures)} documents could not be scored: {failures[0].detail}")
    labellings = [labelling for prediction in predictions for labelling in prediction.by_model.values()]
    scores = np.array([[score for _, score in labelling.scores] for labelling in labellings])
    chosen = np.array([[name in labelling.labels for name in labels.names] for labelling in labellings])
    return _Scored(scores, chosen, len(documents) / seconds)


def _f1(truth: NDArray[np.bool_], chosen: NDArray[np.bool_], labels: LabelSchema) -> float:
    if labels.task is Task.BINARY:
        return float(f1_score(truth[:, 1], chosen[:, 1], zero_division=0.0))
    return float(f1_score(truth, chosen, average="macro", zero_division=0.0))

"""Scores documents with one or several models on one device. No Beam in here."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from inference import batching
from inference.records import Document, Failure, Labelling, Prediction, capped
from models import trained_model
from models.decision import decide, probabilities
from models.errors import UserError
from models.text import TextRecipe
from models.trained_model import Manifest, TrainedModel

Tokens = Sequence[int]

CPU_TOKEN_BUDGET = 2_048  # padded tokens a batch: more falls out of the cache
CUDA_TOKEN_BUDGET = 65_536  # a guess: not measured yet


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored with, and how. `threads` 0 leaves the number of torch's threads as it is."""

    models: tuple[str, ...]  # directories
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_tokens: int | None = None  # instead of each model's own
    text_fields: tuple[str, ...] = ()  # instead of each model's own
    scores: str = "predicted"  # predicted, all, or top:K
    threads: int = 0

    def recipe_of(self, manifest: Manifest) -> TextRecipe:
        """The model's text recipe with this run's overrides."""
        changes: dict[str, Any] = {}
        if self.text_fields:
            changes["fields"] = self.text_fields
        if self.max_tokens:
            changes["max_tokens"] = self.max_tokens
        return manifest.text.model_copy(update=changes)


@dataclass
class Counts:
    """What scoring saw, for each model."""

    tokens: dict[str, int] = field(default_factory=dict)  # read by the model, special tokens included
    padded_tokens: dict[str, int] = field(default_factory=dict)  # computed, padding included
    truncated: dict[str, int] = field(default_factory=dict)  # texts longer than the model reads
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # predictions of each label


def text_recipes(options: ScoringOptions, manifests: Sequence[Manifest]) -> tuple[TextRecipe, ...]:
    """The distinct recipes of a run: two that differ in `max_tokens` alone make the same text."""
    recipes = [_text_only(options.recipe_of(manifest)) for manifest in manifests]
    return tuple(dict.fromkeys(recipes))


def _text_only(recipe: TextRecipe) -> TextRecipe:
    return recipe.model_copy(update={"max_tokens": 3})


class Scorer:
    """Models loaded on a device; `score` may be called from several threads, which take turns on the device."""

    def __init__(self, options: ScoringOptions) -> None:
        """Loads and checks every model.

        Raises:
            ModelError: a model that cannot be used.
            UserError: a device that is not there.
        """
        self.options = options
        self.device = resolve_device(options.device)
        self.precision = resolve_precision(options.precision, self.device)
        models = [trained_model.load(directory) for directory in options.models]
        recipes = text_recipes(options, [model.manifest for model in models])
        self._models = [_LoadedModel(model, options, recipes, self.device, self.precision) for model in models]
        self._turn = threading.Lock()

    def score(self, documents: Sequence[Document]) -> tuple[list[Prediction], list[Failure], Counts]:
        """Labels every document with every model; one that a model cannot take becomes a Failure.

        Predictions come in the order of the documents; `len(predictions) + len(failures) == len(documents)`.
        """
        counts = Counts()
        problems: dict[int, str] = {}
        by_model: dict[str, list[Labelling]] = {}
        with self._turn, torch.inference_mode(), _threads(self.options.threads):
            encoded = self._encode(documents)
            for model in self._models:
                logits, found = model.logits(encoded[model.encoding], counts)
                problems |= {index: f"{model.name}: {problem}" for index, problem in found.items()}
                by_model[model.name] = model.labellings(logits, self.options.scores)
        predictions = [
            Prediction(document.line, document.id, document.kept, {name: by_model[name][i] for name in by_model})
            for i, document in enumerate(documents)
            if i not in problems
        ]
        for name in by_model:
            counts.labels[name] = _count_labels(predictions, name)
        failures = [
            Failure(documents[i].line, documents[i].id, "model_failed", problem, capped(documents[i].raw))
            for i, problem in sorted(problems.items())
        ]
        return predictions, failures, counts

    def _encode(self, documents: Sequence[Document]) -> dict[tuple[str, int], list[list[int]]]:
        """Token ids of every document, once for each distinct tokenizer and text, one token longer than the longest
        that a model reads, so that truncation shows."""
        encoded: dict[tuple[str, int], list[list[int]]] = {}
        for key in dict.fromkeys(model.encoding for model in self._models):
            users = [model for model in self._models if model.encoding == key]
            longest = max(model.max_tokens for model in users) + 1
            texts = [document.texts[key[1]] for document in documents]
            encoded[key] = _tokenize(users[0].tokenizer, texts, longest)
        return encoded


class _LoadedModel:
    """One model on the device, with what it takes to feed it."""

    def __init__(
        self,
        model: TrainedModel,
        options: ScoringOptions,
        recipes: Sequence[TextRecipe],
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        recipe = options.recipe_of(model.manifest)
        self.name = model.name
        self.manifest = model.manifest
        self.tokenizer = model.tokenizer
        self.max_tokens = recipe.max_tokens
        self._cut = _cutter(model.tokenizer, self.max_tokens)
        tokenizer = trained_model.tokenizer_fingerprint(model.manifest)
        # Which encoding of a document the model reads: models with equal tokenizers and texts share one.
        self.encoding = (tokenizer, recipes.index(_text_only(recipe)))
        self._network = model.network.to(device, precision)
        self._device = device
        self._pad = model.tokenizer.pad_token_id or 0
        self._token_budget = CUDA_TOKEN_BUDGET if device.type == "cuda" else CPU_TOKEN_BUDGET

    def logits(self, encoded: Sequence[Tokens], counts: Counts) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Logits (documents, labels), and what went wrong with which document."""
        tokens = [self._cut(ids) for ids in encoded]
        lengths = [len(ids) for ids in tokens]
        counts.tokens[self.name] = sum(lengths)
        counts.truncated[self.name] = sum(len(ids) > self.max_tokens for ids in encoded)
        logits = np.zeros((len(tokens), len(self.manifest.labels.names)), np.float32)
        problems: dict[int, str] = {}
        batches = batching.by_length(lengths, self._token_budget)
        counts.padded_tokens[self.name] = sum(len(batch) * lengths[batch[0]] for batch in batches)
        for batch in batches:
            self._score_batch(batch, tokens, logits, problems)
        for index in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
            problems[int(index)] = "its scores are not finite numbers"
        return logits, problems

    def _score_batch(
        self, batch: list[int], tokens: Sequence[Tokens], logits: NDArray[np.float32], problems: dict[int, str]
    ) -> None:
        """Scores a batch; one that fails is halved until the document at fault is alone."""
        try:
            logits[batch] = self._forward([tokens[index] for index in batch])
        except Exception as error:  # whatever the network raises, the neighbours are to be labelled
            if len(batch) == 1:
                problems[batch[0]] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                return
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            middle = len(batch) // 2
            self._score_batch(batch[:middle], tokens, logits, problems)
            self._score_batch(batch[middle:], tokens, logits, problems)

    def _forward(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        longest = max(len(ids) for ids in tokens)
        padded = np.full((len(tokens), longest), self._pad, np.int64)
        for row, ids in zip(padded, tokens, strict=True):
            row[: len(ids)] = ids
        mask = None
        if any(len(ids) < longest for ids in tokens):  # equal lengths need none
            lengths = torch.tensor([len(ids) for ids in tokens])
            mask = (torch.arange(longest) < lengths[:, None]).long().to(self._device)
        output: NDArray[np.float32] = (
            self._network(torch.from_numpy(padded).to(self._device), mask).float().cpu().numpy()
        )
        return output

    def labellings(self, logits: NDArray[np.float32], scores: str) -> list[Labelling]:
        """Labels and scores of each document; scores are rounded first, so that they agree with the labels."""
        labels, decision = self.manifest.labels, self.manifest.decision
        finite = np.nan_to_num(logits)
        probs = np.round(probabilities(finite, labels.task, decision.temperature), 6)
        chosen = decide(probs, labels, decision.thresholds)
        select = _score_selector(scores)
        return [
            Labelling(
                labels=tuple(labels.names[i] for i in np.flatnonzero(row)),
                scores=tuple((labels.names[i], float(prob[i])) for i in select(prob, row)),
            )
            for prob, row in zip(probs, chosen, strict=True)
        ]


def _score_selector(scores: str) -> Callable[[NDArray[Any], NDArray[np.bool_]], Sequence[int]]:
    """Which label indices `--scores` writes for a document, given its probabilities and its labels."""
    if scores == "all":
        return lambda probs, _: range(len(probs))
    if scores == "predicted":
        return lambda _, chosen: [int(i) for i in np.flatnonzero(chosen)]
    top = int(scores.removeprefix("top:"))
    return lambda probs, _: [int(i) for i in np.argsort(-probs, kind="stable")[:top]]


def _count_labels(predictions: Sequence[Prediction], model: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for prediction in predictions:
        for label in prediction.by_model[model].labels:
            counts[label] = counts.get(label, 0) + 1
    return dict(sorted(counts.items()))


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    if not texts:
        return []
    encoding = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def _cutter(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Callable[[Tokens], Tokens]:
    """A function that shortens token ids to `max_tokens` exactly as the tokenizer itself would have done.

    Special tokens stand before and after the text; truncation takes tokens from the text's end (or beginning).
    """
    empty = tokenizer("")["input_ids"]
    one = tokenizer("a")["input_ids"]
    before = next((i for i, (x, y) in enumerate(zip(empty, one, strict=False)) if x != y), 0)
    after = len(empty) - before

    def cut(ids: Tokens) -> Tokens:
        if len(ids) <= max_tokens:
            return ids
        if tokenizer.truncation_side == "left":
            return [*ids[:before], *ids[len(ids) - (max_tokens - before) :]]
        return [*ids[: max_tokens - after], *ids[len(ids) - after :]]

    sample = "one two three four five six seven eight nine ten " * max_tokens
    expected = _tokenize(tokenizer, [sample], max_tokens)[0]
    if list(cut(_tokenize(tokenizer, [sample], max_tokens + 7)[0])) != expected:
        raise RuntimeError(f"the tokenizer {type(tokenizer).__name__} truncates in a way that is not known here")
    return cut


def resolve_device(asked: str) -> torch.device:
    """The device to compute on; `auto` takes the GPU where there is one.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError("--device cuda: expected a CUDA GPU, found none; check the driver and the torch build.")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and available) else "cpu")


def resolve_precision(asked: str, device: torch.device) -> torch.dtype:
    """The number format to compute in; `auto` takes bf16 where the processor multiplies it in hardware."""
    if asked == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[asked]


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextlib.contextmanager
def _threads(count: int) -> Any:
    """Bounds torch's threads for the calling thread: more runnable threads than cores slow every one of them."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    yield
    if count:
        torch.set_num_threads(before)

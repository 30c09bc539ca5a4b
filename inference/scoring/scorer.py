"""Scores documents with one or several models on one device, independently of any pipeline."""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from inference.corpus.records import Document, Failure, Labelling, Prediction, capped
from inference.scoring import batching, model_files, runtimes
from inference.scoring.options import ScoringOptions, text_only, text_recipes
from inference.scoring.runtimes import Logits, Runtime
from inference.scoring.tally import Counts, histogram
from models import trained_model, weights
from models.decision import decide, probabilities
from models.text import TextRecipe

Tokens = Sequence[int]
Decided = tuple[NDArray[Any], NDArray[np.bool_]]  # probabilities, and whether each label applies: (documents, labels)

CPU_TOKEN_BUDGET = 2_048  # padded tokens in a batch; a larger batch does not fit the cache
CUDA_TOKEN_BUDGET = 65_536  # padded tokens in a batch; this number is a guess, not measured yet


class Scorer:
    """Loaded models. Several threads may call `score`.

    One pool computes the batches of all callers and models, so that no more threads compute than the runtime has.
    Meanwhile, one thread at a time tokenises.
    """

    def __init__(self, options: ScoringOptions) -> None:
        """Load and check every model.

        Raises:
            ModelError: a model cannot be used.
            UserError: the runtime or the device is missing.
        """
        self.options = options
        self.runtime = runtimes.choose(options.runtime, options.precision, options.device, options.threads)
        directories = model_files.all_local(options.models)
        manifests = [trained_model.read_manifest(directory) for directory in directories]
        recipes = text_recipes(options, manifests)
        self._models = [_LoadedModel(directory, options, recipes, self.runtime) for directory in directories]
        # SHA-256 of the manifest of the weights that compute, by model name: of model.json, or of a conversion's own.
        self.weights = {model.name: model.sha256 for model in self._models}
        self._tokenizing = threading.Lock()
        self._pool = ThreadPoolExecutor(self.runtime.batches_at_once, "compute")

    def score(self, documents: Sequence[Document]) -> tuple[list[Prediction], list[Failure], Counts]:
        """Label every document with every model; a document that any model fails on becomes a Failure.

        Return predictions and failures, each in the order of the documents, and the counts. The numbers of predictions
        and failures add up to that of the documents.
        """
        counts = Counts()
        problems: dict[int, str] = {}
        decided: dict[str, Decided] = {}
        with self._tokenizing:
            encoded = self._encode(documents)
        for model in self._models:
            logits, model_problems = model.logits(encoded[model.encoding], counts, self._pool)
            problems |= {index: f"{model.name}: {problem}" for index, problem in model_problems.items()}
            decided[model.name] = model.decide(logits)
        good = [i for i in range(len(documents)) if i not in problems]
        by_model = {}
        for model in self._models:
            probs, chosen = (values[good] for values in decided[model.name])
            by_model[model.name] = model.labellings(probs, chosen, self.options.scores)
            counts.count_labels(model.name, model.manifest.labels.names, probs, chosen)
        labellings = [dict(zip(by_model, row, strict=True)) for row in zip(*by_model.values(), strict=True)]
        predictions = [
            Prediction(documents[i].line, documents[i].id, documents[i].kept_fields, of_document)
            for i, of_document in zip(good, labellings, strict=True)
        ]
        failures = [
            Failure(documents[i].line, documents[i].id, "model_failed", problem, capped(documents[i].raw))
            for i, problem in sorted(problems.items())
        ]
        return predictions, failures, counts

    def count_tokens(self, documents: Sequence[Document]) -> int:
        """Return the number of tokens that all models together read of the documents, counting repeated texts."""
        encoded = self._encode(documents)
        return sum(min(len(ids), m.max_tokens) for m in self._models for ids in encoded[m.encoding])

    def _encode(self, documents: Sequence[Document]) -> dict[tuple[str, int], list[list[int]]]:
        """Return the token ids of every document, once for each distinct pair of tokenizer and text recipe.

        Token ids go one token beyond what any of the models reads, so that truncation can be counted.
        """
        encoded: dict[tuple[str, int], list[list[int]]] = {}
        for key in dict.fromkeys(model.encoding for model in self._models):
            users = [model for model in self._models if model.encoding == key]
            max_length = max(model.max_tokens for model in users) + 1
            texts = [document.texts[key[1]] for document in documents]
            encoded[key] = tokenize(users[0].tokenizer, texts, max_length)
        return encoded


class _LoadedModel:
    """One model in its runtime, with its tokenizer, batching and decision."""

    def __init__(
        self, directory: str, options: ScoringOptions, recipes: Sequence[TextRecipe], runtime: Runtime
    ) -> None:
        model = weights.load(directory)
        recipe = options.recipe_of(model.manifest)
        self.name = model.name
        self.manifest = model.manifest
        self.tokenizer = model.tokenizer
        self.max_tokens = recipe.max_tokens
        self._truncate = _truncator(model.tokenizer, self.max_tokens)
        tokenizer = trained_model.tokenizer_fingerprint(model.manifest)
        # This key names an encoding of the documents. Models with equal tokenizers and text recipes share one.
        self.encoding = (tokenizer, recipes.index(text_only(recipe)))
        self._pad = model.tokenizer.pad_token_id or 0
        self._token_budget = CUDA_TOKEN_BUDGET if runtime.device.type == "cuda" else CPU_TOKEN_BUDGET
        self._tile = runtime.tile
        self._forward, self.sha256 = runtimes.start(runtime, model, directory)

    def logits(
        self, encoded: Sequence[Tokens], counts: Counts, pool: Executor
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Return logits (documents, labels), and the problem of each document that fails, by its index.

        Compute equal texts once, and fill in the token counts of this model.
        """
        rows: dict[tuple[int, ...], int] = {}  # row of each distinct text
        row_of_document = [rows.setdefault(tuple(self._truncate(ids)), len(rows)) for ids in encoded]
        tokens = list(rows)
        widths = [batching.padded_width(len(ids), self._tile, self.max_tokens) for ids in tokens]
        batches = batching.by_length(widths, self._token_budget)
        counts.tokens[self.name] = sum(len(ids) for ids in tokens)
        counts.padded_tokens[self.name] = sum(len(batch) * widths[batch[0]] for batch in batches)
        counts.repeated[self.name] = len(encoded) - len(tokens)
        counts.truncated[self.name] = sum(len(ids) > self.max_tokens for ids in encoded)
        counts.lengths[self.name] = histogram(np.array([len(ids) for ids in encoded]) / (self.max_tokens + 1))
        problems: dict[int, str] = {}
        parts = list(pool.map(lambda batch: self._compute(batch, tokens, widths, problems), batches))
        logits = np.zeros((len(tokens), len(self.manifest.labels.names)), np.float32)
        for batch, batch_logits in itertools.chain(*parts):  # this loop waits for a GPU, after all batches are queued
            logits[batch] = runtimes.to_numpy(batch_logits)
        for index in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
            problems[int(index)] = "its scores are not finite numbers"
        return logits[row_of_document], {i: problems[row] for i, row in enumerate(row_of_document) if row in problems}

    def _compute(
        self, batch: list[int], tokens: Sequence[Tokens], widths: Sequence[int], problems: dict[int, str]
    ) -> list[tuple[list[int], Logits]]:
        """Return logits of a batch, with the rows that they belong to; the batch's first row is its widest.

        Halve a batch that fails until the document at fault is alone, and note its problem.
        """
        try:
            rows = [tokens[index] for index in batch]
            return [(batch, self._forward(*padded(rows, self._pad, widths[batch[0]])))]
        except Exception as error:  # the network may raise anything, and the other documents still need labels
            if len(batch) == 1:
                problems[batch[0]] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                return []
            middle = len(batch) // 2
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
                self._token_budget = min(self._token_budget, middle * widths[batch[0]])
            halves = batch[:middle], batch[middle:]
            return [part for half in halves for part in self._compute(half, tokens, widths, problems)]

    def decide(self, logits: NDArray[np.float32]) -> Decided:
        """Return probabilities, rounded to 6 places, and the labels that follow from the rounded values."""
        labels, decision = self.manifest.labels, self.manifest.decision
        probs = np.round(probabilities(np.nan_to_num(logits), labels.task, decision.temperature), 6)
        return probs, decide(probs, labels, decision.thresholds)

    def labellings(self, probs: NDArray[Any], chosen: NDArray[np.bool_], scores: str) -> list[Labelling]:
        """Return the labels of each document, with the scores that the run writes."""
        names, select = self.manifest.labels.names, _score_selector(scores)
        return [
            Labelling(
                labels=tuple(names[i] for i in np.flatnonzero(row)),
                scores=tuple((names[i], float(prob[i])) for i in select(prob, row)),
            )
            for prob, row in zip(probs, chosen, strict=True)
        ]


def padded(tokens: Sequence[Tokens], pad_id: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return token ids and mask, both int64 (documents, width); no mask if every text has `width` tokens."""
    lengths = np.array([len(ids) for ids in tokens])
    ids = np.full((len(tokens), width), pad_id, np.int64)
    for row, values in zip(ids, tokens, strict=True):
        row[: len(values)] = values
    if lengths.min() == width:
        return ids, None
    return ids, (np.arange(width) < lengths[:, None]).astype(np.int64)


def _score_selector(scores: str) -> Callable[[NDArray[Any], NDArray[np.bool_]], Sequence[int]]:
    """Return a function from the probabilities and labels of a document to the label indices that `--scores` writes."""
    if scores == "all":
        return lambda probs, _: range(len(probs))
    if scores == "predicted":
        return lambda _, chosen: [int(i) for i in np.flatnonzero(chosen)]
    top = int(scores.removeprefix("top:"))
    return lambda probs, _: [int(i) for i in np.argsort(-probs, kind="stable")[:top]]


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text, including special tokens, truncated to `max_length`."""
    if not texts:
        return []
    encoding = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def _truncator(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Callable[[Tokens], Tokens]:
    """Return a function that truncates token ids to `max_tokens` exactly as the tokenizer does.

    Special tokens stand before and after the text; truncation removes tokens from the text's end (or beginning).

    Raises:
        RuntimeError: the tokenizer truncates a sample text in another way.
    """
    empty = tokenizer("")["input_ids"]
    one_letter = tokenizer("a")["input_ids"]
    before = next((i for i, (x, y) in enumerate(zip(empty, one_letter, strict=False)) if x != y), 0)
    after = len(empty) - before

    def truncate(ids: Tokens) -> Tokens:
        if len(ids) <= max_tokens:
            return ids
        if tokenizer.truncation_side == "left":
            return [*ids[:before], *ids[len(ids) - (max_tokens - before) :]]
        return [*ids[: max_tokens - after], *ids[len(ids) - after :]]

    sample = "one two three four five six seven eight nine ten " * max_tokens
    expected = tokenize(tokenizer, [sample], max_tokens)[0]
    if list(truncate(tokenize(tokenizer, [sample], max_tokens + 7)[0])) != expected:
        raise RuntimeError(
            f"expected a tokenizer that removes tokens from one side, found that {type(tokenizer).__name__} truncates "
            "in another way; use a model with another tokenizer."
        )
    return truncate

"""Scores documents with one or several models on one device; knows nothing of pipelines."""

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
Decided = tuple[NDArray[Any], NDArray[np.bool_]]  # probabilities and whether it is given, each (documents, labels)

CPU_TOKEN_BUDGET = 2_048  # padded tokens a batch: more falls out of the cache
CUDA_TOKEN_BUDGET = 65_536  # a guess: not measured yet


class Scorer:
    """Models ready to compute; `score` may be called from several threads.

    All batches, of all threads and models, are computed by one pool, so that never more threads compute than there are
    cores; meanwhile one thread tokenises.
    """

    def __init__(self, options: ScoringOptions) -> None:
        """Loads and checks every model.

        Raises:
            ModelError: a model that cannot be used.
            UserError: a runtime or device that is not there.
        """
        self.options = options
        self.runtime = runtimes.choose(options.runtime, options.precision, options.device, options.threads)
        directories = model_files.all_local(options.models)
        manifests = [trained_model.read_manifest(directory) for directory in directories]
        recipes = text_recipes(options, manifests)
        self._models = [_LoadedModel(directory, options, recipes, self.runtime) for directory in directories]
        self._tokenizing = threading.Lock()
        self._pool = ThreadPoolExecutor(self.runtime.batches_at_once, "compute")

    def score(self, documents: Sequence[Document]) -> tuple[list[Prediction], list[Failure], Counts]:
        """Labels every document with every model; one that a model cannot take becomes a Failure.

        Predictions come in the order of the documents; `len(predictions) + len(failures) == len(documents)`.
        """
        counts = Counts()
        problems: dict[int, str] = {}
        decided: dict[str, Decided] = {}
        with self._tokenizing:
            encoded = self._encode(documents)
        for model in self._models:
            logits, found = model.logits(encoded[model.encoding], counts, self._pool)
            problems |= {index: f"{model.name}: {problem}" for index, problem in found.items()}
            decided[model.name] = model.decide(logits)
        good = [i for i in range(len(documents)) if i not in problems]
        by_model = {}
        for model in self._models:
            probs, chosen = (found[good] for found in decided[model.name])
            by_model[model.name] = model.labellings(probs, chosen, self.options.scores)
            counts.count_labels(model.name, model.manifest.labels.names, probs, chosen)
        predictions = [
            Prediction(documents[i].line, documents[i].id, documents[i].kept, dict(zip(by_model, said, strict=True)))
            for i, said in zip(good, zip(*by_model.values(), strict=True), strict=True)
        ]
        failures = [
            Failure(documents[i].line, documents[i].id, "model_failed", problem, capped(documents[i].raw))
            for i, problem in sorted(problems.items())
        ]
        return predictions, failures, counts

    def count_tokens(self, documents: Sequence[Document]) -> int:
        """Tokens of the documents that the models read, all models together, each document on its own."""
        encoded = self._encode(documents)
        return sum(min(len(ids), m.max_tokens) for m in self._models for ids in encoded[m.encoding])

    def _encode(self, documents: Sequence[Document]) -> dict[tuple[str, int], list[list[int]]]:
        """Token ids of every document, once for each distinct tokenizer and text.

        They go one token beyond the longest that a model reads, so that truncation shows.
        """
        encoded: dict[tuple[str, int], list[list[int]]] = {}
        for key in dict.fromkeys(model.encoding for model in self._models):
            users = [model for model in self._models if model.encoding == key]
            longest = max(model.max_tokens for model in users) + 1
            texts = [document.texts[key[1]] for document in documents]
            encoded[key] = tokenize(users[0].tokenizer, texts, longest)
        return encoded


class _LoadedModel:
    """One model in its runtime, with what it takes to feed it."""

    def __init__(
        self, directory: str, options: ScoringOptions, recipes: Sequence[TextRecipe], runtime: Runtime
    ) -> None:
        model = weights.load(directory)
        recipe = options.recipe_of(model.manifest)
        self.name = model.name
        self.manifest = model.manifest
        self.tokenizer = model.tokenizer
        self.max_tokens = recipe.max_tokens
        self._cut = _cutter(model.tokenizer, self.max_tokens)
        tokenizer = trained_model.tokenizer_fingerprint(model.manifest)
        # Which encoding of a document the model reads: models with equal tokenizers and texts share one.
        self.encoding = (tokenizer, recipes.index(text_only(recipe)))
        self._pad = model.tokenizer.pad_token_id or 0
        self._token_budget = CUDA_TOKEN_BUDGET if runtime.device.type == "cuda" else CPU_TOKEN_BUDGET
        self._tile = runtime.tile
        self._forward = runtimes.start(runtime, model, directory)

    def logits(
        self, encoded: Sequence[Tokens], counts: Counts, pool: Executor
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Logits (documents, labels), and what went wrong with which document. Equal texts are computed once."""
        first: dict[tuple[int, ...], int] = {}
        sources = [first.setdefault(tuple(self._cut(ids)), len(first)) for ids in encoded]
        tokens = list(first)
        widths = [batching.width(len(ids), self._tile, self.max_tokens) for ids in tokens]
        batches = batching.by_length(widths, self._token_budget)
        counts.tokens[self.name] = sum(len(ids) for ids in tokens)
        counts.padded_tokens[self.name] = sum(len(batch) * widths[batch[0]] for batch in batches)
        counts.repeated[self.name] = len(encoded) - len(tokens)
        counts.truncated[self.name] = sum(len(ids) > self.max_tokens for ids in encoded)
        counts.lengths[self.name] = histogram(np.array([len(ids) for ids in encoded]) / (self.max_tokens + 1))
        problems: dict[int, str] = {}
        parts = list(pool.map(lambda batch: self._compute(batch, tokens, widths, problems), batches))
        logits = np.zeros((len(tokens), len(self.manifest.labels.names)), np.float32)
        for batch, found in itertools.chain(*parts):  # only now is a GPU waited for
            logits[batch] = runtimes.to_numpy(found)
        for index in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
            problems[int(index)] = "its scores are not finite numbers"
        return logits[sources], {i: problems[source] for i, source in enumerate(sources) if source in problems}

    def _compute(
        self, batch: list[int], tokens: Sequence[Tokens], widths: Sequence[int], problems: dict[int, str]
    ) -> list[tuple[list[int], Logits]]:
        """Logits of a batch, its widest row first; one that fails is halved until the document at fault is alone."""
        try:
            rows = [tokens[index] for index in batch]
            return [(batch, self._forward(*padded(rows, self._pad, widths[batch[0]])))]
        except Exception as error:  # whatever the network raises, the neighbours are to be labelled
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
        """Probabilities and labels; probabilities are rounded first, so that they agree with the labels."""
        labels, decision = self.manifest.labels, self.manifest.decision
        probs = np.round(probabilities(np.nan_to_num(logits), labels.task, decision.temperature), 6)
        return probs, decide(probs, labels, decision.thresholds)

    def labellings(self, probs: NDArray[Any], chosen: NDArray[np.bool_], scores: str) -> list[Labelling]:
        """Labels and scores of each document."""
        names, select = self.manifest.labels.names, _score_selector(scores)
        return [
            Labelling(
                labels=tuple(names[i] for i in np.flatnonzero(row)),
                scores=tuple((names[i], float(prob[i])) for i in select(prob, row)),
            )
            for prob, row in zip(probs, chosen, strict=True)
        ]


def padded(tokens: Sequence[Tokens], pad: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Token ids (documents, width) and their mask; texts that are all that long need none."""
    lengths = np.array([len(ids) for ids in tokens])
    ids = np.full((len(tokens), width), pad, np.int64)
    for row, values in zip(ids, tokens, strict=True):
        row[: len(values)] = values
    if lengths.min() == width:
        return ids, None
    return ids, (np.arange(width) < lengths[:, None]).astype(np.int64)


def _score_selector(scores: str) -> Callable[[NDArray[Any], NDArray[np.bool_]], Sequence[int]]:
    """Which label indices `--scores` writes for a document, given its probabilities and its labels."""
    if scores == "all":
        return lambda probs, _: range(len(probs))
    if scores == "predicted":
        return lambda _, chosen: [int(i) for i in np.flatnonzero(chosen)]
    top = int(scores.removeprefix("top:"))
    return lambda probs, _: [int(i) for i in np.argsort(-probs, kind="stable")[:top]]


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, special tokens included."""
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
    expected = tokenize(tokenizer, [sample], max_tokens)[0]
    if list(cut(tokenize(tokenizer, [sample], max_tokens + 7)[0])) != expected:
        raise RuntimeError(f"the tokenizer {type(tokenizer).__name__} truncates in a way that is not known here")
    return cut

"""Scores documents with one or several models on one device, independently of any pipeline."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from inference.corpus.records import Document, Failure
from inference.scoring import batching, faults, model_files, pace, reference, runtimes, starting
from inference.scoring.faults import Probe, Problem
from inference.scoring.logits import Logits, to_numpy
from inference.scoring.options import ScoringOptions, text_only, text_recipes
from inference.scoring.predictions import ModelScores, Predictions
from inference.scoring.runtimes import Runtime
from inference.scoring.tally import Counts
from inference.scoring.verified_model import VerifiedModel, architecture
from models import hardware, tokenizing, trained_model
from models.batches import by_length
from models.reading import Reading
from models.text import TextRecipe
from models.tokens import Tokens

Batch = NDArray[np.int64]  # indices of texts
Scored = tuple[Predictions, list[Failure], Counts]

CPU_TOKEN_BUDGET = 2_048  # most padded tokens in a batch
USUAL_TOKENS = 128  # length of the texts with which speed is tried


class Scorer:
    """Loaded models. Several threads may call `score`.

    One pool computes the batches of all callers and models, so that no more threads compute than the runtime has.
    Meanwhile, one thread at a time tokenises.
    """

    def __init__(self, options: ScoringOptions) -> None:
        """Load and check every model.

        Raises:
            ModelError: a model cannot be used, or is not the one that the run began with.
            UserError: the runtime or the device is missing.
        """
        self.options = options
        directories = model_files.all_local(options.models)
        self.runtime = self._runtime(directories)
        manifests = [trained_model.read_manifest(directory) for directory in directories]
        self._recipes = text_recipes(options, manifests)
        if self.runtime.device == "cuda":  # otherwise all cores compute already
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._models = [_LoadedModel(directory, options, self._recipes, self.runtime) for directory in directories]
        model_files.refuse_changed(options, directories)
        # SHA-256 of the manifest of the weights that compute, by model name: of model.json, or of a conversion's own.
        self.weights = {model.name: model.sha256 for model in self._models}
        self._tokenizing = threading.Lock()
        self._pool = ThreadPoolExecutor(self._batches_at_once(), "compute")

    def _runtime(self, directories: Sequence[str]) -> Runtime:
        """Return the runtime for the flags. If none chose it, torch computes networks that cannot be converted."""
        options = self.options
        chosen = runtimes.choose(options.runtime, options.precision, options.device, options.threads)
        kinds = {architecture(directory) for directory in directories}
        branching = sorted(kinds & starting.BRANCHING) if chosen.name in starting.CONVERTERS else []
        if options.runtime != "auto" or not branching:
            return chosen
        torch = runtimes.choose("torch", options.precision, options.device, options.threads)
        return replace(torch, reason=f"{chosen.name} cannot compute {', '.join(branching)}")

    def _batches_at_once(self) -> int:
        """Return how many batches to compute at once, by a trial where two threads share a core and no flag decides."""
        most = self.runtime.batches_at_once
        if self.options.threads or most < 2 or hardware.threads_per_core() == 1:
            return most
        model = self._models[0]
        chosen = pace.batches_at_once(lambda: faults.attempt(model.compute_usual), most)
        if chosen < most:
            self.runtime = replace(self.runtime, threads=chosen, reason=f"{self.runtime.reason}; {most} are no faster")
        return chosen

    def score(self, documents: Sequence[Document], others: int = 0) -> Scored:
        """Label every document with every model; a document that any model fails on becomes a Failure.

        Return predictions and failures, each in the order of the documents, and the counts. The numbers of predictions
        and failures add up to that of the documents. If the documents are those of a slice that failed before, `others`
        is the number of its documents that did not. It tells how many failures are too many.

        Raises:
            ScoringError: the device, the memory or the model failed, and not the documents.
        """
        counts = Counts()
        problems: dict[int, str] = {}
        scores: dict[str, ModelScores] = {}
        with self._tokenizing:
            encoded = self._encode(documents)
        for model in self._models:
            scores[model.name], model_problems = model.score(encoded[model.encoding], counts, self._pool, others)
            problems |= {index: f"{model.name}: {problem}" for index, problem in model_problems.items()}
        good = [index for index in range(len(documents)) if index not in problems]
        by_model = {name: of_model.of(of_model.rows[good]) for name, of_model in scores.items()}
        for model in self._models:
            of_model = by_model[model.name]
            counts.count_labels(model.name, of_model.manifest.labels.names, of_model.all_decided())
            counts.count_lengths(model.name, encoded[model.encoding].lengths[good], model.most_tokens)
        predictions = Predictions(
            [documents[i].place for i in good],
            [documents[i].id for i in good],
            [documents[i].kept_fields for i in good],
            by_model,
        )
        failures = [documents[i].failure("model_failed", problem) for i, problem in sorted(problems.items())]
        return predictions, failures, counts

    def check_probes(self) -> None:
        """Check that every model still gives the probe texts the scores that it gave at its start.

        Raises:
            ScoringError: one does not, so that what it scored before cannot be trusted either.
        """
        for model in self._models:
            self._pool.submit(model.check_probe).result()

    def count_tokens(self, documents: Sequence[Document]) -> int:
        """Return the number of tokens that all models together read of the documents, counting repeated texts."""
        encoded = self._encode(documents)
        return sum(int(np.minimum(encoded[m.encoding].lengths, m.most_tokens).sum()) for m in self._models)

    def _encode(self, documents: Sequence[Document]) -> dict[tuple[str, int], Tokens]:
        """Return the token ids of every document, once for each distinct pair of tokenizer and text recipe.

        Token ids go one token beyond what any of the models reads, so that truncation can be counted.
        """
        encoded: dict[tuple[str, int], Tokens] = {}
        for key in dict.fromkeys(model.encoding for model in self._models):
            users = [model for model in self._models if model.encoding == key]
            needed = [model.needed_tokens for model in users]
            max_length = None if None in needed else max(filter(None, needed))
            texts = [document.texts[key[1]] for document in documents]
            encoded[key] = Tokens.of(tokenizing.encode(users[0].tokenizer, texts, max_length, self._recipes[key[1]]))
        return encoded


class _LoadedModel:
    """One model in its runtime, with its tokenizer, batching and probe texts."""

    def __init__(
        self, directory: str, options: ScoringOptions, recipes: Sequence[TextRecipe], runtime: Runtime
    ) -> None:
        model = VerifiedModel(directory)
        known = reference.of(model)
        recipe = options.recipe_of(model.manifest)
        self.name = model.name
        self.manifest = model.manifest
        self.tokenizer = known.tokenizer
        self.max_tokens = recipe.max_tokens
        self._reading = Reading(self.tokenizer, recipe)
        self.most_tokens, self.needed_tokens = self._reading.most_tokens, self._reading.needed_tokens
        tokenizer = trained_model.tokenizer_fingerprint(model.manifest)
        # This key names an encoding of the documents. Models with equal tokenizers and text recipes share one.
        self.encoding = (tokenizer, recipes.index(text_only(recipe)))
        self._selection = options.scores
        self._tile = runtime.tile
        self.on_gpu = runtime.device == "cuda"
        self._forward, self.sha256, self._padding = starting.start(runtime, model, known)
        self._probe = Probe(model, known, starting.TOLERANCES[runtime.precision], self._forward)
        number_bytes = 4 if runtime.precision == "fp32" else 2
        self._token_budget = min(CPU_TOKEN_BUDGET, batching.cached_tokens(model.width * number_bytes))
        if self.on_gpu:
            from inference.scoring import gpu

            self._token_budget = gpu.token_budget(self._forward, self.max_tokens)

    def compute_usual(self) -> None:
        """Compute a small batch of texts of usual length, to see how long that takes."""
        length = min(self.max_tokens, USUAL_TOKENS)
        ids = np.full((batching.FEWEST_TOKENS // length, length), self.tokenizer.ids(["a"])[0][-1], np.int64)
        to_numpy(self._forward(ids, None))

    def check_probe(self, reason: str = "") -> None:
        """Check that the probe texts still get their scores; `reason` is the problem that raised the doubt.

        Raises:
            ScoringError: they do not.
        """
        self._probe.check(self._forward, reason)

    def score(self, encoded: Tokens, counts: Counts, pool: Executor, others: int) -> tuple[ModelScores, dict[int, str]]:
        """Return the scores of all documents, and the problem of each document that fails, by its index.

        Compute equal texts once, and fill in the token counts of this model.

        Raises:
            ScoringError: the device, the memory or the model failed, and not the documents.
        """
        parts, starts = self._reading.parts(encoded)
        tokens, row_of_part = parts.distinct()
        widths = batching.padded_widths(tokens.lengths, self._tile, self.max_tokens)
        batches = by_length(widths, self._token_budget)
        counts.tokens[self.name] = len(tokens.ids)
        counts.padded_tokens[self.name] = counts.tokens[self.name]
        if self._padding:
            counts.padded_tokens[self.name] = sum(len(batch) * int(widths[batch[0]]) for batch in batches)
        counts.repeated[self.name] = len(parts) - len(tokens)
        computation = _Computation(self, tokens, widths, others)
        computation.run(batches, pool)
        problems = computation.problems
        failed = np.flatnonzero(np.isin(row_of_part, list(problems))) if problems else np.empty(0, np.int64)
        documents = np.searchsorted(starts, failed, side="right") - 1
        found = {int(d): problems[row_of_part[part]] for d, part in zip(documents, failed, strict=True)}
        if self._reading.pooled:
            logits = self._reading.pool(computation.logits[row_of_part], starts)
            return ModelScores.from_logits(self.manifest, self._selection, logits), found
        return ModelScores.from_logits(self.manifest, self._selection, computation.logits).of(row_of_part), found


class _Computation:
    """The logits of some distinct texts, computed in batches of their indices. Threads compute different batches."""

    def __init__(self, model: _LoadedModel, tokens: Tokens, widths: NDArray[np.int64], others: int) -> None:
        self._model = model
        self._tokens = tokens
        self._widths = widths  # number of tokens to pad each text to
        self._texts = len(tokens) + others  # number of texts among which few may fail
        self.logits = np.zeros((len(tokens), len(model.manifest.labels.names)), np.float32)
        self.problems: dict[int, str] = {}  # problem of each text that fails, whose logits stay 0

    def run(self, batches: Sequence[Batch], pool: Executor) -> None:
        """Compute all batches. A GPU has all of them in its queue before the first result is awaited.

        Raises:
            ScoringError: the device, the memory or the model failed, and not the documents.
        """
        queued: list[Logits | None] = [None] * len(batches)
        if self._model.on_gpu:
            queued = list(pool.map(self._queue, batches))
            for logits in queued:  # meanwhile, the thread of the pool queues the batches of other callers
                if logits is not None:
                    faults.attempt(partial(to_numpy, logits))
        for _ in pool.map(self._compute, batches, queued):
            pass

    def _queue(self, batch: Batch) -> Logits | None:
        """Return the logits to come, or None if the network raised an exception and the batch is to be repeated."""
        result = faults.attempt(lambda: self._forward(batch))
        return None if isinstance(result, Problem) else result

    def _forward(self, batch: Batch) -> Logits:
        width = int(self._widths[batch[0]])  # the first is the widest
        return self._model._forward(*self._tokens.of_texts(batch).padded(width, self._model.tokenizer.pad_id))

    def _compute(self, batch: Batch, queued: Logits | None = None) -> None:
        """Compute a batch. Repeat what fails in halves, until a text that fails is alone."""
        failed, problem = self._attempt(batch, queued)
        if len(failed) and len(batch) == 1:
            self._judge(int(batch[0]), problem)
        elif len(failed):
            middle = len(failed) // 2
            if problem.is_memory:
                self._model._token_budget = min(self._model._token_budget, middle * int(self._widths[batch[0]]))
            for half in (failed[:middle], failed[middle:]):
                if len(half):
                    self._compute(half)

    def _attempt(self, batch: Batch, queued: Logits | None = None) -> tuple[Batch, Problem]:
        """Keep the logits of a batch that are finite. Return the texts without, and their problem.

        A GPU reports an error late. The attempt includes the wait for the logits, so the error belongs to its batch.
        """
        result = faults.attempt(lambda: to_numpy(self._forward(batch) if queued is None else queued))
        if isinstance(result, Problem):
            return batch, result
        finite = np.isfinite(result).all(axis=1)
        self.logits[batch[finite]] = result[finite]
        return batch[~finite], faults.NOT_FINITE

    def _judge(self, text: int, problem: Problem) -> None:
        """Note the problem of a text that failed alone, if the probe texts do not fail and the text fails again.

        Raises:
            ScoringError: the device, the memory or the model is at fault.
        """
        self._model.check_probe(problem.detail)
        failed, problem = self._attempt(np.array([text]))
        if len(failed) and problem.is_memory:
            raise faults.no_memory(int(self._tokens.lengths[text]), problem.detail)
        if len(failed):
            self.problems[text] = problem.detail
            faults.refuse_most_failed(len(self.problems), self._texts, problem.detail)

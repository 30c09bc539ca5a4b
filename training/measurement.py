"""Measures a model on labelled examples: its logits, and its scores, decisions and metrics on a split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from models import tokenizing
from models.batches import by_length
from models.decision import Decision, Floats, decide, probabilities
from models.labels import LabelSchema
from models.reading import Reading
from models.text import TextRecipe
from models.tokens import Tokens
from training import calibrate, metrics
from training.examples import Examples

BATCH_TOKENS = 8_192  # padded tokens of a batch that is scored


@dataclass(frozen=True)
class Measurement:
    """A model's scores on one split beside the truth. Arrays are (documents, labels)."""

    split: str  # validation or test
    labels: LabelSchema
    examples: Examples
    raw_probs: Floats  # scores before the calibration
    probs: Floats  # scores after the calibration
    predicted: NDArray[np.bool_]  # labels given by the model's decision
    metrics: dict[str, Any]  # metrics of the split, as in model.json


def measure_split(
    split: str, examples: Examples, logits: Floats, labels: LabelSchema, decision: Decision
) -> Measurement:
    """Return all that is reported of a split, from the logits (documents, labels) of its examples and a decision.

    The top level of the metrics holds the measures at the thresholds. `at_half` holds those at 0.5, except for
    multi_class, which has no thresholds.
    """
    targets = examples.targets
    raw = probabilities(logits, labels.task)
    probs = probabilities(logits, labels.task, decision)
    predicted = decide(probs, labels, decision)
    values = metrics.measure(probs, targets, labels, decision)
    ranked = metrics.ranking(probs, targets, labels)
    for name, of_label in ranked.pop("labels").items():
        values["labels"][name] |= of_label
    values |= ranked
    if labels.thresholds_needed:
        half = Decision(thresholds=(0.5,) * labels.thresholds_needed)
        values["at_half"] = metrics.measure(probs, targets, labels, half)
    values["intervals"] = metrics.intervals(predicted, targets, labels)
    values["calibration_error"] = {
        "before": calibrate.calibration_error(raw, targets, labels.task),
        "after": calibrate.calibration_error(probs, targets, labels.task),
    }
    for i, name in enumerate(labels.names):
        error = calibrate.calibration_error_of_label(probs[:, i], targets[:, i])
        values["labels"][name]["calibration_error"] = error
    values["confusion"] = metrics.confusion(predicted, targets, labels)
    values["data_sha256"] = examples.sha256()
    return Measurement(split, labels, examples, raw, probs, predicted, values)


@torch.inference_mode()
def score(network: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: TextRecipe) -> Floats:
    """Return the logits (documents, labels) of texts that are clean already in fp32, in the order of the texts.

    This plain loop is the reference that the runtimes of inference are compared with.
    """
    network.eval()
    device = next(network.parameters()).device
    reading, parts, starts = read(tokenizer, texts, recipe)
    found: Floats | None = None
    for batch in by_length(parts.lengths, BATCH_TOKENS):
        ids = [parts.ids[parts.starts[index] : parts.starts[index + 1]].tolist() for index in batch]
        padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(device)
        logits = network(padded["input_ids"], padded["attention_mask"]).float().cpu().numpy()
        if found is None:
            found = np.empty((len(parts), logits.shape[1]), np.float32)
        found[batch] = logits
    assert found is not None  # there are texts
    return reading.pool(found, starts)


def read(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: TextRecipe
) -> tuple[Reading, Tokens, NDArray[np.int64]]:
    """Return the parts that the network reads of texts that are clean already, as `Reading.parts` does."""
    found: list[Tokens] = []
    counts = [np.zeros(1, np.int64)]  # of the parts of each text
    for parts, starts in read_some(tokenizer, texts, recipe):
        found.append(parts)
        counts.append(np.diff(starts))
    return Reading(tokenizing.of(tokenizer), recipe), Tokens.joined(found), np.cumsum(np.concatenate(counts))


def read_some(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: TextRecipe
) -> Iterator[tuple[Tokens, NDArray[np.int64]]]:
    """Yield the parts of some texts after the others, because lists of all token ids would take much memory."""
    plain = tokenizing.of(tokenizer)
    reading = Reading(plain, recipe)
    clean = recipe.model_copy(update={"cleaning": ()})
    for start in range(0, len(texts), tokenizing.AT_ONCE):
        some = texts[start : start + tokenizing.AT_ONCE]
        yield reading.parts(Tokens.of(tokenizing.encode(plain, some, reading.needed_tokens, clean)))

"""Estimates how much text a machine labels in a minute, so that slices can be cut before any model is loaded."""

import json
import math
import time
from pathlib import Path

import numpy as np

from inference.scoring import model_files
from inference.scoring.options import ScoringOptions
from inference.scoring.verified_model import WIDTHS
from models import trained_model
from models.trained_model import CONFIG, WEIGHTS

CHARACTERS = 4.0  # bytes of text in a token, about
DOCUMENT_SECONDS = 5e-5  # to read a document, write its row, and all else that does not depend on the model
EFFICIENCY = 0.5  # share of the speed of a large product that a network reaches, about
CUDA_RATE = 3e13  # operations a second in half precision, of the slowest GPUs in use
PROBE = 768  # rows and columns of the product that is timed
LABELS_AT_ONCE = 50_000_000  # scores of a slice, which are in memory together


def document_limit(options: ScoringOptions, text_bytes: float, seconds: float) -> int:
    """Return how many documents of about `text_bytes` this machine labels in so many seconds, within its memory.

    The time of a token follows from the size of the networks and from the time of one product of matrices here, or from
    what a GPU does at least. On two cores it was 0.4 times what a MiniLM-L6 labelled, and 2.6 times what a tiny network
    did.

    Raises:
        ModelError: a model cannot be read.
    """
    operations, labels = 0.0, 0
    for directory in model_files.all_local(options.models):
        manifest = trained_model.read_manifest(directory)
        tokens = min(text_bytes / CHARACTERS, options.recipe_of(manifest).most_tokens)
        operations += 2 * _parameters(Path(directory)) * tokens
        labels += len(manifest.labels.names)
    rate = CUDA_RATE if options.device == "cuda" else _rate()
    each = operations / (rate * EFFICIENCY) + DOCUMENT_SECONDS
    return max(math.ceil(min(seconds / each, LABELS_AT_ONCE / max(labels, 1))), 1)


def _parameters(directory: Path) -> float:
    """Return about how many numbers of a network take part in every token, which leaves out the embeddings."""
    config = json.loads((directory / CONFIG).read_bytes())
    width = next((config[name] for name in WIDTHS if name in config), 0)
    everything = (directory / WEIGHTS).stat().st_size / 4
    return max(everything - config.get("vocab_size", 0) * width, everything / 100)


def _rate() -> float:
    """Return the operations a second of a product of matrices in fp32 on all cores, the best of three."""
    matrix = np.ones((PROBE, PROBE), np.float32)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        _ = matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return 2 * PROBE**3 / best

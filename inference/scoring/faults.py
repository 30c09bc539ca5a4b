"""Tells whose fault a failure is: the document's, or that of the device, the memory or the model.

A document is at fault only if it fails alone, the model still gives the probe texts the scores that it gave at its
start, and the document then fails alone again. Everything else is a ScoringError, after which no document of the slice
is written.

- A probe that fails is the strongest evidence there is, because its texts were scored before. So it stops at once.
- Memory is the machine's. A text has at most `max_tokens` tokens, and every other text of its length needs as much. A
  failure would be sealed, although a larger machine labels the text. So a lone text without memory stops the slice.
- A model can fail on all lengths but the probe's, such as with a damaged conversion. So it stops when more than half of
  the texts failed, and at least FEWEST_FAILED. Failures in a row are no evidence, since texts are sorted by length.
- After a CUDA error other than out of memory, every later call in the process fails too. So it stops at once.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from inference.scoring.logits import Forward, to_numpy
from inference.scoring.reference import Reference
from inference.scoring.verified_model import VerifiedModel
from models.decision import Floats, probabilities
from models.errors import UserError

T = TypeVar("T")

FEWEST_FAILED = 16  # documents that may fail whatever their share is
_NO_MEMORY = re.compile(
    "OutOfMemoryError|out of memory|not enough memory|allocate.{0,20} memory|bad[_ ]alloc|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_DEVICE_LOST = re.compile("(CUDA|HIP|cuDNN) error|device-side assert")
NOT_THE_DOCUMENTS = "no document is at fault, and none that was scored together with it gets a label"


class ScoringError(UserError):
    """The device, the memory or the model failed, and no document did. Nothing of the slice may be written."""


class DeviceError(ScoringError):
    """The GPU is lost to this process. Only another process can use it."""


@dataclass(frozen=True)
class Problem:
    """What went wrong with a batch. It does not hold the exception, whose traceback would keep the batch's memory."""

    detail: str
    is_memory: bool = False


NOT_FINITE = Problem("its scores are not finite numbers")


def attempt(work: Callable[[], T]) -> T | Problem:
    """Do the work and return its result, or the problem if it raises an exception.

    Raises:
        DeviceError: the exception means that the GPU is lost to this process.
    """
    try:
        return work()
    except Exception as error:  # the network may raise anything, and the other documents still need labels
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        is_memory = isinstance(error, MemoryError) or bool(_NO_MEMORY.search(detail))
        if isinstance(error, RuntimeError) and not is_memory and _DEVICE_LOST.search(detail):
            raise DeviceError(
                f"the GPU failed and is lost to this process ({detail}): {NOT_THE_DOCUMENTS}. Run it again, which "
                "starts a new process; if it stays, try --device cpu or another machine."
            ) from None
    if is_memory and "torch" in sys.modules:
        from inference.scoring import gpu

        gpu.free_memory()
    return Problem(detail, is_memory)


class Probe:
    """The probe texts and the probabilities that a model gave them when it was started."""

    def __init__(self, model: VerifiedModel, reference: Reference, tolerance: float, forward: Forward) -> None:
        """Score the probe texts.

        Raises:
            ScoringError: they cannot be scored.
        """
        self._model = model.name
        self._manifest = model.manifest
        self._tolerance = tolerance
        self._inputs = reference.ids, reference.mask
        self._expected = self._probabilities(forward, "")

    def check(self, forward: Forward, reason: str) -> None:
        """Score the probe texts again; `reason` is the problem that raised the doubt.

        Raises:
            ScoringError: they fail, or their probabilities are not those at the start.
        """
        difference = float(np.abs(self._probabilities(forward, reason) - self._expected).max())
        if difference > self._tolerance:
            raise self._error(f"scores that differ by {difference:.3g}", reason)

    def _probabilities(self, forward: Forward, reason: str) -> Floats:
        logits = attempt(lambda: to_numpy(forward(*self._inputs)))
        if isinstance(logits, Problem):
            raise self._error(logits.detail, reason)
        if not np.isfinite(logits).all():
            raise self._error("scores that are not finite numbers", reason)
        return probabilities(logits, self._manifest.labels.task, self._manifest.decision)

    def _error(self, found: str, reason: str) -> ScoringError:
        after = f" after a text had failed ({reason})" if reason else ""
        return ScoringError(
            f"the device or the model failed, not the documents: expected that model {self._model!r} scores the probe "
            f"texts as it did when it was started, found {found}{after}; {NOT_THE_DOCUMENTS}. Run it again; if it "
            "stays, try --runtime torch or another machine."
        )


def refuse_most_failed(failed: int, texts: int, detail: str) -> None:
    """Refuse to take most texts for faulty.

    Raises:
        ScoringError: more than half of the texts failed, and at least FEWEST_FAILED.
    """
    if failed >= FEWEST_FAILED and failed > texts / 2:
        raise ScoringError(
            f"the device or the model failed, not the documents: expected few failures, found that {failed:,} of "
            f"{texts:,} texts fail ({detail}); {NOT_THE_DOCUMENTS}. Run it again; if it stays, try --runtime torch or "
            "another model."
        )


def no_memory(tokens: int, detail: str) -> ScoringError:
    """Return the error about a text for which the memory does not suffice although it is alone."""
    return ScoringError(
        f"the memory does not suffice for one text of {tokens:,} tokens ({detail}): {NOT_THE_DOCUMENTS}. End what else "
        "uses the memory, take a larger machine, or read fewer tokens with --max_tokens."
    )

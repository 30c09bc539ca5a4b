"""Moves batches to a GPU and logits back without waiting, and measures how many tokens its memory holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.scoring.logits import Forward, Logits, to_numpy

MEMORY_SHARE = 0.5  # share of the free memory that a batch may take; other processes may need some as well
MOST_TOKENS = 131_072  # tokens in a batch; more save no time
TEXTS = 16  # texts whose memory is measured


@dataclass(frozen=True)
class Arriving:
    """Logits on their way from a GPU into the memory of the machine."""

    logits: torch.Tensor  # not complete before the event
    arrived: torch.cuda.Event

    def wait(self) -> NDArray[np.float32]:
        """Wait until the GPU has computed and sent the logits."""
        self.arrived.synchronize()
        found: NDArray[np.float32] = self.logits.numpy()
        return found


def send(array: NDArray[Any], device: str) -> torch.Tensor:
    """Return an array on a device; the copy to a GPU may still be under way."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor


def fetch(logits: torch.Tensor) -> Logits:
    """Return logits in fp32 in the memory of the machine; the copy from a GPU may still be under way."""
    if logits.device.type != "cuda":
        found: NDArray[np.float32] = logits.float().numpy()
        return found
    arriving = logits.float().to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # the thread that waits leaves its core to others
    arrived.record()
    return Arriving(arriving, arrived)


def token_budget(forward: Forward, max_tokens: int) -> int:
    """Return how many tokens a batch may have, from what a batch of the longest texts takes of the GPU's free memory.

    Args:
        forward: computes the model.
        max_tokens: number of tokens of the longest text.
    """
    mask = np.ones((TEXTS, max_tokens), np.int64)
    mask[-1, -1] = 0  # a network may take more memory with a mask
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        to_numpy(forward(mask, mask))
    except torch.OutOfMemoryError:
        return max_tokens  # one text at a time
    taken = (torch.cuda.max_memory_allocated() - before) / mask.size
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return max(max_tokens, min(MOST_TOKENS, int(MEMORY_SHARE * free / max(taken, 1))))


def free_memory() -> None:
    """Give the memory that torch keeps for later batches back to the GPU."""
    torch.cuda.empty_cache()

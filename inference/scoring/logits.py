"""Names what a started model does with a batch, whatever computes it."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Pending(Protocol):
    """Logits that a GPU may still be computing."""

    def wait(self) -> NDArray[np.float32]:
        """Wait for the logits (documents, labels)."""


# A Forward turns token ids and mask (documents, tokens) into logits (documents, labels). The mask is 0 for padding, and
# None means no padding. Up to `Runtime.batches_at_once` threads may call it.
Logits = NDArray[np.float32] | Pending
Forward = Callable[[NDArray[np.int64], NDArray[np.int64] | None], Logits]


def to_numpy(logits: Logits) -> NDArray[np.float32]:
    """Return the logits as an array; wait until a GPU has computed them."""
    return logits if isinstance(logits, np.ndarray) else logits.wait()

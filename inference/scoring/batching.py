"""Chooses how far to pad documents and how large a batch may be; all functions work on lengths alone."""

import numpy as np
from numpy.typing import NDArray

from models import hardware

# A document is padded to whole tiles if that adds at most one token for this many: benchmarks/README.md, "Tiles".
TOKENS_PER_PADDING = 12
# With larger batches a MiniLM-L6 took 5 % longer, on a core with 1 MiB in fp32: benchmarks/README.md, "Batches".
CACHE_SHARE = 0.75  # share of a core's cache that the states of a batch may take
FEWEST_TOKENS = 512  # tokens of a batch, however small the cache is


def padded_widths(lengths: NDArray[np.int64], tile: int, max_tokens: int) -> NDArray[np.int64]:
    """Return the number of tokens to pad each document to.

    A processor that multiplies tiles takes longer for an incomplete tile than for a few tokens of padding. A width is
    therefore a multiple of `tile` if that is near enough and within `max_tokens`, and the document's length otherwise.
    """
    padded = -(-lengths // tile) * tile
    near = ((padded - lengths) * TOKENS_PER_PADDING <= lengths) & (padded <= max_tokens)
    return np.where(near, padded, lengths)


def cached_tokens(token_bytes: int) -> int:
    """Return how many tokens fit the second-level cache of a core, if the state of each takes `token_bytes`."""
    return max(int(CACHE_SHARE * hardware.cache_bytes()) // max(token_bytes, 1), FEWEST_TOKENS)

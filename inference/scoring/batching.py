"""Cuts documents into batches with little padding, and pads them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A document is padded to whole tiles if that adds at most one token for this many: benchmarks/README.md, "Tiles".
TOKENS_PER_PADDING = 12


def padded_width(length: int, tile: int, max_tokens: int) -> int:
    """Return the number of tokens to pad a document of `length` tokens to.

    A processor that multiplies tiles takes longer for an incomplete tile than for a few tokens of padding. The width
    is therefore a multiple of `tile` if that is near enough and within `max_tokens`, and `length` otherwise.
    """
    padded = -(-length // tile) * tile
    return padded if (padded - length) * TOKENS_PER_PADDING <= length and padded <= max_tokens else length


def by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Sort documents by length and cut them into batches whose padded size stays within the budget.

    Args:
        lengths: number of tokens of each document.
        token_budget: largest padded size of a batch, the number of documents times the longest length. A longer
            document gets a batch of its own.

    Returns:
        Batches of document indices, the longest documents first, so that a batch too large for memory fails early.
        Documents of equal length stay in input order, so equal input gives equal batches.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > token_budget:
            batches.append([])
        batches[-1].append(index)
    return batches


def padded(
    tokens: Sequence[Sequence[int] | NDArray[np.int32]], pad_id: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return token ids and mask, both int64 (documents, width); no mask if every text has `width` tokens."""
    mask = np.arange(width) < np.array([len(ids) for ids in tokens])[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    ids[mask] = np.concatenate(tokens)
    return ids, None if mask.all() else mask.astype(np.int64)

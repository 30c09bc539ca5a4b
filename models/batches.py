"""Cuts documents into batches of similar length."""

import numpy as np
from numpy.typing import NDArray


def by_length(lengths: NDArray[np.int64], token_budget: int) -> list[NDArray[np.int64]]:
    """Sort documents by length and cut them into batches whose padded size stays within the budget.

    Args:
        lengths: number of tokens of each document.
        token_budget: largest padded size of a batch, the number of documents times the longest length. A longer
            document gets a batch of its own.

    Returns:
        Batches of document indices, the longest documents first, so that a batch too large for memory fails early.
        Documents of equal length stay in input order, so equal input gives equal batches.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        end = start + max(token_budget // int(lengths[order[start]]), 1)
        batches.append(order[start:end])
        start = end
    return batches

"""Cuts documents into batches that waste next to no padding: pure functions on lengths."""

from collections.abc import Sequence


def by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of documents, sorted by length and cut so that a batch's padded size stays within the budget.

    Args:
        lengths: tokens of each document.
        token_budget: largest number of documents times longest document in a batch; a document longer than the
            budget gets a batch of its own.

    Returns:
        Batches of indices, the longest documents first, so that what does not fit in memory shows at once. Equal
        input gives equal batches: the order of equal lengths is the order of the input.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > token_budget:
            batches.append([])
        batches[-1].append(index)
    return batches

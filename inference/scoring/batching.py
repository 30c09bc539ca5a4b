"""Cuts documents into batches that waste next to no padding: pure functions on lengths."""

from collections.abc import Sequence

WORTH = 12  # a row of tokens is filled up when that adds at most one token for so many: benchmarks/README.md, "Tiles"


def width(length: int, tile: int, longest: int) -> int:
    """Tokens that a document of `length` tokens is padded to on its own: a multiple of `tile`, if that is near.

    Where a processor multiplies tiles, what lies beyond the last whole tile costs more than filling up would. Never
    beyond `longest`, the most tokens that the model reads.
    """
    filled = -(-length // tile) * tile
    return filled if (filled - length) * WORTH <= length and filled <= longest else length


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

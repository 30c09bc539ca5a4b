"""Test that batches hold every document once, stay within the budget and have little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.scoring.batching import TOKENS_PER_PADDING, padded_widths
from models.batches import by_length


@given(lengths=st.lists(st.integers(1, 500), max_size=200), budget=st.integers(1, 2_000))
def test_every_document_once_and_padded_size_within_budget(lengths: list[int], budget: int) -> None:
    batches = [batch.tolist() for batch in by_length(np.array(lengths, np.int64), budget)]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert longest == lengths[batch[0]]


def test_equal_lengths_keep_their_order_and_the_longest_come_first() -> None:
    batches = by_length(np.array([3, 9, 3, 9, 1]), 18)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2, 4]]


def padded_width(length: int, tile: int, max_tokens: int) -> int:
    (width,) = padded_widths(np.array([length]), tile, max_tokens)
    return int(width)


@given(length=st.integers(1, 600), tile=st.sampled_from([1, 16, 32]), max_tokens=st.integers(1, 600))
def test_a_text_is_padded_to_whole_tiles_at_a_bounded_price(length: int, tile: int, max_tokens: int) -> None:
    padded = padded_width(length, tile, max_tokens)
    assert padded == length or (padded % tile == 0 and length < padded < length + tile)
    assert padded - length <= length / TOKENS_PER_PADDING
    assert padded <= max(length, max_tokens)
    assert padded_width(length + 1, tile, max_tokens) >= padded  # texts sorted by length are sorted by width too


@pytest.mark.parametrize(
    ("length", "max_tokens", "padded"), [(16, 512, 16), (17, 512, 17), (45, 512, 48), (283, 512, 288), (283, 284, 283)]
)
def test_tiles_of_sixteen_tokens(length: int, max_tokens: int, padded: int) -> None:
    assert padded_width(length, 16, max_tokens) == padded
    assert padded_width(length, 1, max_tokens) == length

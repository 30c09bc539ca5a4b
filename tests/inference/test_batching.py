"""Batches hold every document once, stay within the budget and waste little."""

from hypothesis import given
from hypothesis import strategies as st

from inference.batching import by_length


@given(lengths=st.lists(st.integers(1, 500), max_size=200), budget=st.integers(1, 2_000))
def test_every_document_once_and_padded_size_within_budget(lengths: list[int], budget: int) -> None:
    batches = by_length(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert longest == lengths[batch[0]]


def test_equal_lengths_keep_their_order_and_the_longest_come_first() -> None:
    assert by_length([3, 9, 3, 9, 1], 18) == [[1, 3], [0, 2, 4]]

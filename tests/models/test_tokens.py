"""Test that operations on all texts of a slice at once give what they would give text by text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.tokens import Tokens

TEXTS = st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=30)


def lists(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[start:end].tolist() for start, end in zip(tokens.starts, tokens.starts[1:], strict=False)]


@given(texts=TEXTS, chosen=st.lists(st.integers(0, 29), max_size=40))
def test_texts_are_kept_and_taken_in_order(texts: list[list[int]], chosen: list[int]) -> None:
    tokens = Tokens.of(texts)
    assert (lists(tokens), len(tokens), tokens.lengths.tolist()) == (texts, len(texts), [*map(len, texts)])
    chosen = [index for index in chosen if index < len(texts)]
    assert lists(tokens.of_texts(chosen)) == [texts[index] for index in chosen]


@given(texts=TEXTS, first=st.integers(0, 5), last=st.integers(0, 5))
def test_long_texts_keep_both_ends(texts: list[list[int]], first: int, last: int) -> None:
    most = first + last
    shortened = [text if len(text) <= most else text[:first] + text[len(text) - last :] for text in texts]
    assert lists(Tokens.of(texts).without(first, last, most)) == shortened


@given(texts=TEXTS)
def test_equal_texts_share_a_row(texts: list[list[int]]) -> None:
    distinct, rows = Tokens.of(texts).distinct()
    expected = list(dict.fromkeys(map(tuple, texts)))
    assert [tuple(text) for text in lists(distinct)] == expected
    assert [expected[row] for row in rows] == [tuple(text) for text in texts]


@given(texts=TEXTS, more=st.integers(0, 3))
def test_padding_fills_each_text_to_the_width(texts: list[list[int]], more: int) -> None:
    width = max(map(len, texts), default=0) + more
    ids, mask = Tokens.of(texts).padded(width, 7)
    assert ids.tolist() == [text + [7] * (width - len(text)) for text in texts]
    expected = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
    assert (np.ones_like(ids) if mask is None else mask).tolist() == expected
    assert (mask is None) == all(len(text) == width for text in texts)
    assert ids.dtype == np.int64


def test_parts_are_joined_in_their_order() -> None:
    parts = [Tokens.of([[1, 2], []]), Tokens.of([]), Tokens.of([[3]])]
    joined = Tokens.joined(parts)
    assert joined.ids.tolist() == [1, 2, 3]
    assert joined.lengths.tolist() == [2, 0, 1]
    assert len(Tokens.joined([])) == 0

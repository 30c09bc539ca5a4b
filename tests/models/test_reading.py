"""What is read of a long text: its beginning, beginning and end, or windows, in exact token ids."""

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from models import tokenizing
from models.reading import Reading
from models.text import TextRecipe
from models.tokens import Tokens
from tests.tiny import tiny_tokenizer

CLS, SEP = 2, 3  # ids of the special tokens
PLAIN = tokenizing.of(tiny_tokenizer())


def parts(lengths: list[int], **recipe: object) -> tuple[list[list[int]], list[int]]:
    """Return the parts of texts of this many tokens, which are numbered from 100, and their starts."""
    reading = Reading(PLAIN, TextRecipe.model_validate(recipe))
    texts = [[CLS, *range(100, 100 + length), SEP] for length in lengths]
    found, starts = reading.parts(Tokens.of(texts))
    return [found.ids[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)], starts.tolist()


def test_beginning_and_end() -> None:
    found, starts = parts([2, 6, 7, 20], max_tokens=8, long="head_tail")
    assert found == [
        [CLS, 100, 101, SEP],
        [CLS, *range(100, 106), SEP],
        [CLS, 100, 101, 102, 104, 105, 106, SEP],
        [CLS, 100, 101, 102, 117, 118, 119, SEP],
    ]
    assert starts == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("long", ["windows_mean", "windows_max"])
def test_windows_follow_each_other(long: str) -> None:
    found, starts = parts([0, 3, 4, 5, 13, 99], max_tokens=6, long=long, windows=3)
    assert found == [
        [CLS, SEP],
        [CLS, 100, 101, 102, SEP],
        [CLS, 100, 101, 102, 103, SEP],
        [CLS, 100, 101, 102, 103, SEP],
        [CLS, 104, SEP],
        [CLS, 100, 101, 102, 103, SEP],
        [CLS, 104, 105, 106, 107, SEP],
        [CLS, 108, 109, 110, 111, SEP],
        [CLS, 100, 101, 102, 103, SEP],
        [CLS, 104, 105, 106, 107, SEP],
        [CLS, 108, 109, 110, 111, SEP],
    ]
    assert starts == [0, 1, 2, 3, 5, 8, 11]


def test_no_text_has_no_part() -> None:
    for long in ("head", "head_tail", "windows_mean"):
        assert parts([], long=long) == ([], [0])


def test_logits_of_windows_are_pooled_by_text() -> None:
    logits = np.array([[1, 5], [3, 1], [2, 2], [-4, 0]], np.float32)
    starts = np.array([0, 2, 3, 4])
    mean, highest, plain = (
        Reading(PLAIN, TextRecipe(long=long)) for long in ("windows_mean", "windows_max", "head_tail")
    )
    assert mean.pool(logits, starts).tolist() == [[2, 3], [2, 2], [-4, 0]]
    assert highest.pool(logits, starts).tolist() == [[3, 5], [2, 2], [-4, 0]]
    assert plain.pool(logits, np.arange(5)) is logits


@pytest.mark.parametrize(
    ("recipe", "most", "needed"),
    [
        (TextRecipe(max_tokens=16), 16, 17),
        (TextRecipe(max_tokens=16, long="head_tail"), 16, None),
        (TextRecipe(max_tokens=16, long="windows_max", windows=3), 44, 45),
    ],
)
def test_no_more_of_a_text_is_encoded_than_needed(recipe: TextRecipe, most: int, needed: int | None) -> None:
    reading = Reading(PLAIN, recipe)
    assert (reading.most_tokens, reading.needed_tokens) == (most, needed)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("[CLS] $A", [CLS, *range(100, 107)]),  # special tokens before the text alone
        ("$A [SEP]", [*range(100, 107), SEP]),
        ("$A", list(range(100, 108))),
    ],
)
def test_special_tokens_may_stand_at_one_side(template: str, expected: list[int]) -> None:
    plain = tiny_tokenizer()
    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    reading = Reading(tokenizing.of(plain), TextRecipe(max_tokens=8))
    text = [*[CLS] * ("[CLS]" in template), *range(100, 120), *[SEP] * ("[SEP]" in template)]
    found, _ = reading.parts(Tokens.of([text]))
    assert found.ids.tolist() == expected

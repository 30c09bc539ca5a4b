"""Test that token ids from the beginnings of texts are those of the whole texts, with every kind of tokenizer."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models import tokenizing
from models.text import AS_IT_IS, TextRecipe
from tests.tiny import tiny_tokenizer

TEXTS = ["The sky is blue, and the grass is green; it's 1234 roses.\n\n", "naïve cafés: 中文 字, don't <mask> it  "] * 5
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
PIECES = ["the", "sky ", " is", "blue,", "it's", "1234", "中文", "e\u0301", "<mask>", "<s>", "\u2581", "ﬁ", "..."]
PIECES += [" ", "  ", "\n", " \n", "\t", "\u00a0", "\u3000", " \u0301", "\u0600 ", "\x01", "a" * 120]


def trained(kind: str, normalizer: Any, pre_tokenizer: Any, **extra: Any) -> PreTrainedTokenizerBase:
    """Return a tokenizer that is trained on TEXTS, with special tokens around each text."""
    options: dict[str, Any] = {"special_tokens": SPECIAL, "show_progress": False, "vocab_size": 330}
    if kind == "BPE":
        model: Any = models.BPE(unk_token="<unk>")
        trainer: Any = trainers.BpeTrainer(**options)
    elif kind == "Unigram":
        model, trainer = models.Unigram(), trainers.UnigramTrainer(**options, unk_token="<unk>")
    else:
        model, trainer = models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**options)
    backend = Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    mask = AddedToken("<mask>", lstrip=True, special=True)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": mask}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, **extra)


def sentence_pieces(kind: str) -> PreTrainedTokenizerBase:
    spaces = normalizers.Replace(Regex(" {2,}"), "\u2581")
    steps = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    return trained(kind, steps, pre_tokenizers.Metaspace())


def digits() -> PreTrainedTokenizerBase:
    steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]
    return trained("WordLevel", normalizers.Lowercase(), pre_tokenizers.Sequence(steps))


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "word pieces": lambda: tiny_tokenizer(TEXTS),
    "byte-level BPE": lambda: trained("BPE", None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte-level BPE, NFC": lambda: trained("BPE", normalizers.NFC(), pre_tokenizers.ByteLevel()),
    "Unigram": lambda: sentence_pieces("Unigram"),
    "BPE with spaces as pieces": lambda: sentence_pieces("BPE"),
    "words": digits,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return KINDS[request.param]()


@given(
    text=st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=60).map("".join),
    max_length=st.integers(3, 12),
    cleaning=st.sampled_from([(), ("nfc", "whitespace"), ("html_entities", "latex_maths", "accents", "lower_case")]),
)
def test_ids_are_those_of_the_whole_text(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int, cleaning: tuple[str, ...]
) -> None:
    recipe = TextRecipe(cleaning=cleaning)
    expected = tokenizer([recipe.clean(text)], truncation=True, max_length=max_length)["input_ids"]
    with mock.patch.object(tokenizing, "CHARACTERS_PER_TOKEN", 2):
        assert tokenizing.encode(tokenizing.of(tokenizer), [text], max_length, recipe) == expected


def test_only_the_beginning_of_a_long_text_is_tokenised(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizing.splits_at_spaces(tokenizing.of(tokenizer))
    texts = ["the sky is blue " * 1_000, "the sky", "the sky" + " " * 200 + "is blue " * 1_000]
    with mock.patch.object(TextRecipe, "clean", side_effect=TextRecipe.clean, autospec=True) as clean:
        ids = tokenizing.encode(tokenizing.of(tokenizer), texts, 12, AS_IT_IS)
    assert ids == tokenizer(texts, truncation=True, max_length=12)["input_ids"]
    assert [call.args[1] for call in clean.call_args_list] == ["the sky"]


def with_phrase() -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer(TEXTS)
    tokenizer.add_tokens(["blue sky"])
    return tokenizer


def in_python() -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer(TEXTS)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(object())
    return tokenizer


@pytest.mark.parametrize(
    "make",
    [
        with_phrase,
        in_python,
        lambda: trained("BPE", None, None),
        lambda: trained("Unigram", None, pre_tokenizers.Metaspace(split=False)),
        lambda: trained("BPE", None, pre_tokenizers.ByteLevel(use_regex=False)),
        lambda: trained("BPE", None, pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+\s*"), "isolated")),
        lambda: trained("BPE", normalizers.Replace(" ", "\u2581"), pre_tokenizers.Metaspace()),
        lambda: trained("BPE", normalizers.Replace(Regex("e .*"), ""), pre_tokenizers.Metaspace()),
        lambda: trained("BPE", None, pre_tokenizers.ByteLevel(), truncation_side="left"),
    ],
)
def test_no_text_is_cut_for_a_tokenizer_that_may_read_across_spaces(make: Callable[[], Any]) -> None:
    assert not tokenizing.splits_at_spaces(tokenizing.of(make()))


def test_a_copy_gives_the_same_ids_without_transformers(tokenizer: PreTrainedTokenizerBase) -> None:
    original = tokenizing.of(tokenizer)
    content = original.to_bytes()
    assert content is not None
    copy = tokenizing.from_bytes(content)
    texts = ["".join(PIECES), *PIECES, *TEXTS]
    for max_length in (None, 5, 40):
        expected = tokenizer(texts, truncation=max_length is not None, max_length=max_length)["input_ids"]
        assert original.ids(texts, max_length) == copy.ids(texts, max_length) == expected
    assert (copy.pad_id, copy.truncation_side) == (tokenizer.pad_token_id, "right")
    assert tokenizing.splits_at_spaces(copy)


def test_a_tokenizer_with_a_part_in_python_has_no_copy() -> None:
    assert tokenizing.of(in_python()).to_bytes() is None

"""Turns texts into token ids. The cost grows with the tokens that are read, and not with the length of the texts."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from models.text import TextRecipe

CHARACTERS_PER_TOKEN = 6  # English has 4 to 6. A text that yields fewer tokens is taken twice as long.

# Normalizers that change each word by itself. `Replace` is judged by its pattern.
_NORMALIZERS = (
    *("BertNormalizer", "Lowercase", "Nmt", "NFC", "NFD", "NFKC", "NFKD"),
    *("Precompiled", "Prepend", "Strip", "StripAccents"),
)
# Pre-tokenizers that split at every space between two words, with the settings that this depends on.
_SPLITTERS: dict[str, dict[str, bool]] = {
    "BertPreTokenizer": {},
    "Whitespace": {},
    "WhitespaceSplit": {},
    "ByteLevel": {"use_regex": True},
    "Metaspace": {"split": True},
}
_ACROSS_SPACES = re.compile(r"\S\s")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, recipe: TextRecipe
) -> list[list[int]]:
    """Return the token ids of each text after cleaning, including special tokens, truncated to `max_length`.

    Clean and tokenise only a beginning of a long text, and a longer one if that yields too few tokens. The token ids
    equal those of the whole text. A text is not cut if the tokenizer might read across the cut.
    """
    encoded: list[list[int]] = [[]] * len(texts)
    length = CHARACTERS_PER_TOKEN * max_length if splits_at_spaces(tokenizer) else sys.maxsize
    waiting: Sequence[int] = range(len(texts))
    while waiting:
        beginnings = [recipe.beginning(texts[index], length) for index in waiting]
        for index, ids in zip(waiting, _token_ids(tokenizer, beginnings, max_length), strict=True):
            encoded[index] = ids
        waiting = [index for index in waiting if len(encoded[index]) < max_length and len(texts[index]) > length]
        length *= 2
    return encoded


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text. Ask a fast tokenizer for nothing else, such as the places of tokens."""
    if not tokenizer.is_fast:
        return tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    tokenizer([""], truncation=True, max_length=max_length)  # leaves these settings in the backend
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts)]


def splits_at_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokens before a space between two words surely do not depend on the text after it."""
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return False
    backend = tokenizer.backend_tokenizer
    if any(_ACROSS_SPACES.search(token.content) for token in tokenizer.added_tokens_decoder.values()):
        return False
    try:
        first, *_ = _steps(backend.pre_tokenizer, "pretokenizers")
        normalizers = _steps(backend.normalizer, "normalizers")
    except Exception:  # a step that is written in Python cannot be described, and raises a plain Exception
        return False
    settings = _SPLITTERS.get(first["type"])
    splits = settings is not None and all(first.get(key) == value for key, value in settings.items())
    return splits and all(map(_changes_words, normalizers))


def _steps(component: Any, key: str) -> list[dict[str, Any]]:
    """Return the descriptions of a tokenizer's normalizers or pre-tokenizers; a sequence holds them under a key."""
    if component is None:
        return []
    description = json.loads(component.__getstate__())
    if description["type"] != "Sequence":
        return [description]
    steps: list[dict[str, Any]] = description[key]
    return steps


def _changes_words(normalizer: dict[str, Any]) -> bool:
    """Return whether a normalizer changes each word by itself."""
    if normalizer["type"] != "Replace":
        return normalizer["type"] in _NORMALIZERS
    pattern = normalizer["pattern"]
    return pattern == {"Regex": " {2,}"} or not set(pattern.get("String", " ")) & {*" \t\n\r\u2581"}

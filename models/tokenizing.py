"""Turns texts into token ids. The cost grows with the tokens that are read, and not with the length of the texts.

The module does not import transformers, which takes a second: a kept copy of a fast tokenizer does without it.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tokenizers

from models.text import TextRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 4_096  # texts that are tokenised before their ids are kept
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


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with special tokens before and after each text. One thread at a time may use it."""

    backend: tokenizers.Tokenizer | None  # None if the tokenizer is written in Python
    original: "PreTrainedTokenizerBase | None"  # tokenizer of transformers; None for a kept copy of a fast one
    pad_id: int  # token id to pad with
    truncation_side: str  # side of a long text that is cut off: left or right

    def ids(self, texts: list[str], max_length: int | None = None) -> list[list[int]]:
        """Return the token ids of each text, truncated to `max_length`; None truncates nothing."""
        if self.backend is None:
            assert self.original is not None
            encoded = self.original(texts, truncation=max_length is not None, max_length=max_length)
            found: list[list[int]] = encoded["input_ids"]
            return found
        self.backend.no_padding()
        if max_length is None:
            self.backend.no_truncation()
        else:
            self.backend.enable_truncation(max_length, direction=self.truncation_side)
        # Beside the ids, the library makes the string and the place of each token.
        batches = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
        return [encoding.ids for batch in batches for encoding in self.backend.encode_batch_fast(batch)]

    def to_bytes(self) -> bytes | None:
        """Return a copy for `from_bytes`; None if the tokenizer has parts that are written in Python."""
        if self.backend is None:
            return None
        self.backend.no_padding()
        self.backend.no_truncation()
        try:
            backend = json.loads(self.backend.to_str())
        except Exception:  # a part that is written in Python cannot be described, and raises a plain Exception
            return None
        facts = {
            "pad_id": self.pad_id,
            "truncation_side": self.truncation_side,
            "encode_special_tokens": self.backend.encode_special_tokens,
        }
        return json.dumps({**facts, "backend": backend}, ensure_ascii=False).encode()


def of(tokenizer: "PreTrainedTokenizerBase") -> Tokenizer:
    """Return a tokenizer of transformers, without what only transformers itself does with it."""
    backend = None
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.encode_special_tokens = tokenizer.split_special_tokens
    return Tokenizer(backend, tokenizer, tokenizer.pad_token_id or 0, tokenizer.truncation_side)


def from_bytes(content: bytes) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.to_bytes` has copied."""
    copy = json.loads(content)
    backend = tokenizers.Tokenizer.from_str(json.dumps(copy["backend"]))
    backend.encode_special_tokens = copy["encode_special_tokens"]
    return Tokenizer(backend, None, copy["pad_id"], copy["truncation_side"])


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int | None, recipe: TextRecipe) -> list[list[int]]:
    """Return the token ids of each text after cleaning, including special tokens, truncated to `max_length` if given.

    Clean and tokenise only a beginning of a long text, and a longer one if that yields too few tokens. The token ids
    equal those of the whole text. A text is not cut if the tokenizer might read across the cut.
    """
    if max_length is None:
        return tokenizer.ids([recipe.clean(text) for text in texts]) if len(texts) else []
    encoded: list[list[int]] = [[]] * len(texts)
    length = CHARACTERS_PER_TOKEN * max_length if splits_at_spaces(tokenizer) else sys.maxsize
    waiting: Sequence[int] = range(len(texts))
    while waiting:
        beginnings = [recipe.beginning(texts[index], length) for index in waiting]
        for index, ids in zip(waiting, tokenizer.ids(beginnings, max_length), strict=True):
            encoded[index] = ids
        waiting = [index for index in waiting if len(encoded[index]) < max_length and len(texts[index]) > length]
        length *= 2
    return encoded


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens before a space between two words surely do not depend on the text after it."""
    if tokenizer.backend is None or tokenizer.truncation_side != "right":
        return False
    backend = tokenizer.backend
    if any(_ACROSS_SPACES.search(token.content) for token in backend.get_added_tokens_decoder().values()):
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

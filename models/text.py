"""Declares the text recipe, which turns a record into the text that a model reads, in training and in inference."""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TextProblem = Literal["no_text", "text_not_string", "empty_text"]  # reasons why a record has no usable text

_WHITESPACE = re.compile(r"\s+")
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+\b")
_HANDLE = re.compile(r"(?<!\w)@\w+")

# This pattern matches formulas of up to 2,000 characters, inline or displayed. The rules for dollars are Pandoc's. No
# space follows the opening dollar; no space precedes and no digit follows the closing one. So "$5 and $10" is prose.
_LATEX_MATHS = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\(.{1,2000}?\\\)|\\\[.{1,2000}?\\\]"
    r"|(?<!\\)\$(?!\s)(?:\\.|[^$\\]){1,2000}?(?<!\s)\$(?!\d)",
    re.DOTALL,
)


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if unicodedata.category(c) != "Mn"))


# A cleaning step is a function from text to text; a recipe names its steps, in order.
CLEANING_STEPS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "html_entities": html.unescape,
    "urls": lambda text: _URL.sub("http", text),
    "emails": lambda text: _EMAIL.sub("email", text),
    "handles": lambda text: _HANDLE.sub("@user", text),
    "latex_maths": lambda text: _LATEX_MATHS.sub("formula", text),
    "accents": _without_accents,
    "lower_case": str.lower,
    "whitespace": lambda text: _WHITESPACE.sub(" ", text).strip(),
}


class TextError(ValueError):
    """A record has no usable text; `reason` is a short code for counting, and the message says what was found."""

    def __init__(self, reason: TextProblem, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TextRecipe(BaseModel):
    """The recipe that turns a record into a text: the fields, the cleaning, and the number of tokens that are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[str, ...] = Field(("text",), min_length=1)  # fields to join, in this order
    separator: str = "\n"  # text between two fields
    cleaning: tuple[str, ...] = ("nfc", "whitespace")  # cleaning steps, in this order
    max_tokens: int = Field(256, ge=3)  # most tokens to read of a text, including special tokens

    @field_validator("cleaning")
    @classmethod
    def _steps_exist(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [step for step in steps if step not in CLEANING_STEPS]
        if unknown:
            raise ValueError(f"unknown cleaning steps {unknown}; choose from {sorted(CLEANING_STEPS)}")
        return steps

    def text_of(self, record: Mapping[str, Any]) -> str:
        """Join and clean the recipe's fields of one record; treat an absent or null field as empty.

        Raises:
            TextError: the reason is `no_text` if all fields are absent or null, `text_not_string`, or `empty_text` if
                nothing is left after cleaning.
        """
        parts = []
        for field in self.fields:
            value = record.get(field)
            if value is None:
                continue
            if not isinstance(value, str):
                raise TextError("text_not_string", f"field {field!r} holds {type(value).__name__}, not a string")
            parts.append(value)
        if not parts:
            raise TextError("no_text", f"none of the fields {list(self.fields)} has a value")
        text = self.separator.join(part for part in parts if part)
        for step in self.cleaning:
            text = CLEANING_STEPS[step](text)
        if not text.strip():
            raise TextError("empty_text", "nothing is left after cleaning")
        return text

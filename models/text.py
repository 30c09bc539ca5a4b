"""Declares the text recipe, which turns a record into the text that a model reads, in training and in inference."""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TextProblem = Literal["no_text", "text_not_string", "empty_text"]  # reasons why a record has no usable text

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
_FORMULA_START = re.compile(r"\$|\\[(\[]")
_FORMULA_REACH = 4_004  # characters that decide whether a formula starts at a place: 2,000 pairs and the delimiters

_GAP_REACH = 1_000  # characters before an end among which a gap between two words is looked for
_FEW_CHARACTERS = 64  # characters that are cleaned first to find out whether a text is empty


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if unicodedata.category(c) != "Mn"))


def _without_open_formula(text: str) -> str:
    """Return the beginning of a cut text without any formula that may end after the cut."""
    hidden = _LATEX_MATHS.sub(lambda formula: "x" * len(formula[0]), text)
    start = _FORMULA_START.search(hidden, max(0, len(hidden) - _FORMULA_REACH))
    return text[: _last_gap(hidden, start.start())] if start else text


def _last_gap(text: str, end: int) -> int:
    """Return the place of the last space that separates two words in the characters before `end`, or 0.

    Nothing composes with a space before a letter or digit. So cleaning steps and tokenizers see two separate sides.
    """
    lowest = max(1, end - _GAP_REACH)
    gap = text.rfind(" ", lowest, end)
    while gap > 0 and not (text[gap - 1].isprintable() and text[gap - 1] != " " and text[gap + 1 : gap + 2].isalnum()):
        gap = text.rfind(" ", lowest, gap)
    return max(gap, 0)


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
    "whitespace": lambda text: " ".join(text.split()),
}

_KEEPING = frozenset({"nfc", "lower_case", "whitespace"})  # steps that leave something of every word

# Most steps change each word by itself. A step that reads across spaces has a function here. It is applied before the
# step to a text that was cut, and drops the end that the step cannot judge.
_READING_ACROSS_SPACES: dict[str, Callable[[str], str]] = {"latex_maths": _without_open_formula}


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
    max_tokens: int = Field(256, ge=3)  # most tokens that the network reads at once, including special tokens
    # what is read of a longer text: its beginning, its beginning and end, or windows whose logits are averaged, or of
    # which each label takes the highest
    long: Literal["head", "head_tail", "windows_mean", "windows_max"] = "head"
    windows: int = Field(4, ge=1)  # most windows of a text, of max_tokens each, if it is read in windows

    @property
    def most_tokens(self) -> int:
        """The number of tokens of the longest text that is read as a whole, give or take the special tokens."""
        return self.max_tokens * (self.windows if self.long in ("windows_mean", "windows_max") else 1)

    @field_validator("cleaning")
    @classmethod
    def _steps_exist(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [step for step in steps if step not in CLEANING_STEPS]
        if unknown:
            raise ValueError(f"unknown cleaning steps {unknown}; choose from {sorted(CLEANING_STEPS)}")
        return steps

    def text_of(self, record: Mapping[str, Any]) -> str:
        """Join and clean the recipe's fields of one record.

        Raises:
            TextError: the record has no usable text, as in `join`.
        """
        return self.clean(self.join(record))

    def join(self, record: Mapping[str, Any]) -> str:
        """Join the recipe's fields of one record without cleaning; treat an absent or null field as empty.

        Raises:
            TextError: the reason is `no_text` if all fields are absent or null, `text_not_string`, or `empty_text` if
                nothing would be left after cleaning.
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
        if _KEEPING.issuperset(self.cleaning) and text and not text.isspace():
            return text
        length = _FEW_CHARACTERS
        while not self.beginning(text, length).strip():
            if length >= len(text):
                raise TextError("empty_text", "nothing is left after cleaning")
            length *= 2
        return text

    def clean(self, text: str) -> str:
        """Apply the cleaning steps to a text."""
        for step in self.cleaning:
            text = CLEANING_STEPS[step](text)
        return text

    def beginning(self, text: str, length: int) -> str:
        """Return a beginning of the cleaned text, made from at most `length` characters of the text.

        It is the whole cleaned text if the text is not longer. Otherwise a space and a letter or digit follow it in the
        cleaned text, unless it is empty because no safe place for the cut was found.
        """
        if len(text) <= length:
            return self.clean(text)
        text = text[: _last_gap(text, length)]
        for step in self.cleaning:
            if step in _READING_ACROSS_SPACES:
                text = _READING_ACROSS_SPACES[step](text)
            text = CLEANING_STEPS[step](text)
        return text[: _last_gap(text, len(text))]


AS_IT_IS = TextRecipe(cleaning=())  # recipe for texts that are clean already

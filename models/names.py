"""Makes names safe for each medium and keeps them apart: files, columns, BigQuery and the terminal.

It needs nothing but the standard library, so a check of names costs no start-up time.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

HASH = 12  # hexadecimal digits of a hash in a name
LONGEST = 100  # bytes of a name; file systems allow 255, of which prefixes and suffixes need some
PORTABLE = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_-])?")
HASHED = re.compile(rf".*-[0-9a-f]{{{HASH}}}")
# Control characters but newline and tab, characters that reorder a line, and surrogates, which no terminal can print.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
RESERVED = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")  # prefixes in BigQuery
BIGQUERY_LONGEST = 300  # characters
BIGQUERY_SIGNS = frozenset("&%=+:'<>#| \t")


def file_name(text: str, max_bytes: int = LONGEST) -> str:
    """Return a file name of ASCII letters, digits, `_`, `.` and `-` that stands for this text alone.

    The name is the text itself if every file system takes it and no other text can look like it. Otherwise a hash of
    the text follows, so that names differ even where case is ignored. `max_bytes` is at least 20.
    """
    if PORTABLE.fullmatch(text) and len(text) <= max_bytes and not HASHED.fullmatch(text):
        return text
    safe = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII).lstrip(".-") or "_"
    return f"{safe[: max_bytes - HASH - 1]}-{_hash(text)}"


def distinct(texts: Sequence[str], also: str = "", max_bytes: int = LONGEST) -> list[str]:
    """Return a name for each of several different texts. No two names are equal, even if case is ignored.

    A name is the text with `_` for all but ASCII letters, digits, `_` and the characters of `also`. A hash of the text
    follows only if another text has that name, if no letter or digit is left, or if the name is too long.
    """
    plain = [re.sub(rf"[^\w{re.escape(also)}]", "_", text, flags=re.ASCII) for text in texts]
    hashed = [f"{name[: max_bytes - HASH - 1]}_{_hash(text)}" for name, text in zip(plain, texts, strict=True)]
    taken = Counter(name.lower() for name in [*plain, *hashed])
    return [
        name if taken[name.lower()] == 1 and len(name) <= max_bytes and re.search("[A-Za-z0-9]", name) else with_hash
        for name, with_hash in zip(plain, hashed, strict=True)
    ]


def repeated(columns: Iterable[str]) -> list[str]:
    """Return the columns whose names are equal if case is ignored, as they are written."""
    columns = list(columns)
    count = Counter(name.casefold() for name in columns)
    return [name for name in columns if count[name.casefold()] > 1]


def is_utf8(text: str) -> bool:
    """Return whether a file name or an argument is UTF-8. Python holds other bytes as surrogates, as JSON cannot."""
    return not re.search("[\ud800-\udfff]", text)


def refused_by_bigquery(columns: Iterable[str]) -> list[str]:
    """Return the names that BigQuery takes for no column: too long, reserved, or with characters such as `.` or `/`.

    The rules stand at https://docs.cloud.google.com/bigquery/docs/schemas#column_names, with flexible column names.
    """
    return [name for name in columns if not _is_bigquery_column(name)]


def _is_bigquery_column(name: str) -> bool:
    is_short = 0 < len(name) <= BIGQUERY_LONGEST
    return is_short and not name.lower().startswith(RESERVED) and all(map(_is_in_bigquery_names, name))


def _is_in_bigquery_names(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LNM" or category in ("Pc", "Pd") or character in BIGQUERY_SIGNS


def for_terminal(text: object) -> str:
    r"""Return the text with control characters as escapes such as `\x1b`, so that data cannot steer a terminal.

    Newlines and tabs stay. So do letters of every language, and marks that belong to right-to-left scripts.
    """
    return UNPRINTABLE.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH]

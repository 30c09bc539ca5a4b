"""Seals JSON files, so that one that has changed is noticed. Whoever may write a file can seal it again."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def seal(content: Mapping[str, Any], *, indent: bool = False) -> bytes:
    """Return JSON with one more key, `seal`: the SHA-256 of all the others."""
    sealed = {**content, "seal": hashlib.sha256(orjson.dumps(content)).hexdigest()}
    return orjson.dumps(sealed, option=orjson.OPT_INDENT_2 if indent else None)


def unseal(stored: bytes) -> dict[str, Any] | None:
    """Return the content of sealed JSON; None if it is damaged."""
    try:
        content: dict[str, Any] = orjson.loads(stored)
        expected = content.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return content if expected == hashlib.sha256(orjson.dumps(content)).hexdigest() else None

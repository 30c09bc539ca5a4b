"""Adds counts up: numbers, lists of numbers, and dicts of these at any depth."""

from collections.abc import Iterable
from typing import Any

Totals = dict[str, Any]  # numbers, lists of them, or dicts of totals


def add(parts: Iterable[Totals]) -> Totals:
    """The sum of totals, key by key at every depth; associative, so that Beam may add in any order."""
    total: Totals = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict):
                total[key] = add([total.get(key, {}), value])
            elif isinstance(value, list):
                total[key] = [a + b for a, b in zip(total[key], value, strict=True)] if key in total else value
            else:
                total[key] = total.get(key, 0) + value
    return total

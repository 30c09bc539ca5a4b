"""Finds the project's own exceptions in what a runner raises when a step of a pipeline fails."""

import re

# Beam adds the step to the message of an exception, or raises one that holds the text of the worker's traceback.
_OWN = re.compile(r"^(?:models|inference)\.(?:\w+\.)*(\w+): (.+?) \[while running '[^']+'\]", re.MULTILINE)


def own_error(error: Exception) -> tuple[str, str] | None:
    """Return name and message of the own exception that made a step fail; None for any other exception."""
    found = _OWN.search(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
    return (found[1], found[2]) if found else None

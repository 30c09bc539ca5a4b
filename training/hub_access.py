"""Finds out within seconds whether the Hugging Face hub can be reached, and whether its files are needed at all."""

import functools
import threading

import requests
from huggingface_hub import constants, try_to_load_from_cache

from models.errors import UserError

TIMEOUT = 3.0  # seconds within which the hub has to answer


def is_cached(name: str, revision: str | None) -> bool:
    """Return whether the cache of the hub holds the configuration of a model."""
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def check(what: str, *, cached: bool) -> bool:
    """Return whether to ask the hub, or to use the cache alone because the hub does not answer.

    Raises:
        UserError: the hub does not answer, and what is wanted is not in the cache; it begins with `what`.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    problem = unreachable(constants.ENDPOINT)
    if problem and not cached:
        raise UserError(
            f"{what}: expected the hub at {constants.ENDPOINT}, found that it cannot be reached ({problem}); name a "
            "local folder, or run `labelbeam fetch` where there is a network."
        )
    return not problem


@functools.cache
def unreachable(endpoint: str) -> str:
    """Return why a server cannot be reached; nothing if it answers, whatever it answers.

    It is asked once in a process. The libraries of the hub would wait and try again, for every file.
    """
    problems = [f"no answer in {TIMEOUT:.0f} s"]

    def ask() -> None:
        try:
            requests.head(endpoint, timeout=TIMEOUT)
            problems.clear()
        except requests.RequestException as error:
            problems[0] = type(error).__name__

    # The search for the server's address has no limit of its own, so it is waited for in a thread.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(TIMEOUT)
    return "".join(problems[:1])

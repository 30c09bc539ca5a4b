"""Finds out within seconds whether the Hugging Face hub can be reached, and whether its files are needed at all."""

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
    try:
        check_reachable(constants.ENDPOINT)
    except OSError as error:
        if cached:
            return False
        raise UserError(
            f"{what}: expected the hub at {constants.ENDPOINT}, found that it cannot be reached ({error}); name a "
            "local folder, or run `labelbeam fetch` where there is a network."
        ) from None
    return True


def check_reachable(endpoint: str) -> None:
    """Check that a server answers, whatever it answers. Libraries of the hub wait and try again for most of a minute.

    Raises:
        OSError: it does not.
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
    if problems:
        raise OSError(problems[0])

"""Masks secrets where a command line or a URL becomes text, such as in `run.json`, a report or a message.

A name tells a secret: `--s3_secret_access_key VALUE`, `token=VALUE`, `"HF_TOKEN": "VALUE"`. So does the part of a URL
before the @. Whatever follows a secret's name in a word is masked, since nobody knows where a secret ends.
"""

import re
import shlex
from collections.abc import Iterable

MASK = "***"
_NAME_PARTS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_SECRET_PARTS = {
    *("secret", "secrets", "password", "passwd", "pwd", "passphrase", "token", "credential", "credentials"),
    *("key", "apikey", "authorization", "sig", "signature"),
}
_SECRET_NAMES = {"azure_connection_string"}
_HARMLESS_NAMES = {"dataflow_kms_key"}  # the name of a key in a service, which is worth nothing without its rights
_USER_OF_URL = re.compile(r"(?<=://)[^/?#\s]+(?=@)")
_NAMED_VALUE = re.compile(r"""([\w.-]+)(["']?\s*(?:=|:(?!//))\s*["']?)(?=.)""", re.DOTALL)


def command(prog: str, argv: Iterable[str]) -> str:
    """Return a command line as text for a shell, with each secret masked and a comment if there is one."""
    text = shlex.join(_masked_words(argv))
    return f"{prog} {text}" + ("  # type the values for *** again" if MASK in text else "")


def masked(text: str) -> str:
    """Return the text without the users and passwords of URLs, and without what follows a secret's name."""
    text = _USER_OF_URL.sub(MASK, text)
    for match in _NAMED_VALUE.finditer(text):
        if is_secret(match[1]):
            return text[: match.end()] + MASK
    return text


def is_secret(name: str) -> bool:
    """Return whether a flag, key or variable of this name holds a secret."""
    name = name.lstrip("-")
    parts = (part.lower() for part in _NAME_PARTS.findall(name))
    return name in _SECRET_NAMES or (name not in _HARMLESS_NAMES and not _SECRET_PARTS.isdisjoint(parts))


def _masked_words(argv: Iterable[str]) -> Iterable[str]:
    """Yield each word masked. The word after a secret flag is a secret, even if it begins with a dash."""
    follows_secret = False
    for word in argv:
        yield MASK if follows_secret else masked(word)
        follows_secret = not follows_secret and word.startswith("-") and "=" not in word and is_secret(word)

"""Tells local paths from those of remote storages, refuses what is neither, and names the user's cache."""

import argparse
import os
import re
from importlib.util import find_spec
from pathlib import Path

GS, S3 = "gs://", "s3://"
_REMOTE = re.compile(r"(gs|s3)://[^/]")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:/")


def is_remote(path: str) -> bool:
    """Return whether a path names an object in remote storage, such as gs://bucket/name."""
    return path.startswith((GS, S3))


def problem(path: str) -> str | None:
    """Return what is wrong with the form of a path; None if it is local or remote and can be used here."""
    if _SCHEME.match(path) and not _REMOTE.match(path):
        return f"expected a local path, or one in gs://BUCKET/ or s3://BUCKET/, found {path!r}; name another"
    if path.startswith(S3) and not find_spec("boto3"):
        return f"expected the package boto3, which {S3} needs, found none; run `pip install 'labelbeam[s3]'`"
    return None


def anywhere(text: str) -> str:
    """Parse a path, local or remote.

    Raises:
        ArgumentTypeError: it is neither, or its storage cannot be used here.
    """
    if wrong := problem(text):
        raise argparse.ArgumentTypeError(wrong)
    return text


def here(text: str) -> str:
    """Parse a path on this machine.

    Raises:
        ArgumentTypeError: it is that of a remote storage.
    """
    if _SCHEME.match(text):
        raise argparse.ArgumentTypeError(f"expected a path on this machine, found {text!r}; copy it, or name another")
    return text


def cache() -> Path:
    """Return labelbeam's folder in the user's cache, which may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelbeam"

"""The processes of a training: accelerate and torchrun start one for each GPU, and the first one speaks and writes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def is_first() -> bool:
    """Return whether this process is the only one, or the first."""
    return int(os.environ.get("RANK", "0")) == 0  # set by accelerate and torchrun


def are_several() -> bool:
    """Return whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def only_first_speaks() -> Iterator[None]:
    """Silence the standard output of all processes but the first."""
    if is_first():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield

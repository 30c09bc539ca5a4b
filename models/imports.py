"""Imports large libraries quickly."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Import without collecting garbage, and leave what was imported out of all later collections.

    Imports make many objects and hardly any garbage. To look through them again and again takes a fifth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

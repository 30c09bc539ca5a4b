"""Imports large libraries quickly."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Import without collecting garbage, and leave what was imported out of all later collections.

    Imports make many objects and hardly any garbage. To look through them again and again takes a fifth of the time.
    """
    was_enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:  # otherwise a program that calls a command again would freeze its own garbage
            gc.freeze()
        if was_enabled:
            gc.enable()

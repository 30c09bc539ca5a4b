"""Declares the exceptions for mistakes that a user can correct, and ends a command that raises one.

UserError           a mistake of the user: one sentence, exit code 2, no traceback
└── ModelError      a trained model's directory that is missing, damaged or unsuitable
"""

import sys
from collections.abc import Callable

from models.names import for_terminal


class UserError(Exception):
    """A mistake in flags, configuration or data; the message says what was expected, what was found, what to do."""


class ModelError(UserError):
    """A trained model cannot be used; the message names the directory or the file at fault."""


def exit_code(work: Callable[[], int | None], resume_hint: str = "The same command starts over.") -> int:
    """Do the work and return its exit code.

    After a UserError, print a line on stderr for each mistake and return 2. A file that this user may not use is such a
    mistake. After Ctrl-C, print `resume_hint` on stderr and return 1.
    """
    try:
        return work() or 0
    except KeyboardInterrupt:
        print(f"\nstopped. {resume_hint}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(for_terminal(f"error: {error.filename or error}: permission denied; ask its owner."), file=sys.stderr)
        return 2
    except UserError as error:
        print(for_terminal(f"error: {error}").replace("\n", "\nerror: "), file=sys.stderr)
        return 2

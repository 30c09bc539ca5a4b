"""The project's exceptions, mistakes that a user can mend, and how a command ends with one.

UserError           one clear sentence, exit code 2, no traceback
└── ModelError      a trained model's directory is missing, damaged or does not fit
"""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in flags, configuration or data: says what was expected, what was found and what to do."""


class ModelError(UserError):
    """A trained model that cannot be used: the message names the file at fault."""


def exit_code(work: Callable[[], int | None]) -> int:
    """Does the work. Returns its exit code, or 2 after a UserError, with a line on stderr for each mistake."""
    try:
        return work() or 0
    except UserError as error:
        print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
        return 2

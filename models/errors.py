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


def exit_code(work: Callable[[], int | None], go_on: str = "The same command begins anew.") -> int:
    """Does the work. Returns its exit code, or 2 after a UserError, with a line on stderr for each mistake.

    After Ctrl-C it returns 1, and `go_on` is said.
    """
    try:
        return work() or 0
    except KeyboardInterrupt:
        print(f"\nstopped. {go_on}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
        return 2

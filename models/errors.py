"""The project's exceptions: mistakes that a user can mend.

UserError           one clear sentence, exit code 2, no traceback
└── ModelError      a trained model's directory is missing, damaged or does not fit
"""


class UserError(Exception):
    """A mistake in flags, configuration or data: says what was expected, what was found and what to do."""


class ModelError(UserError):
    """A trained model that cannot be used: the message names the file at fault."""

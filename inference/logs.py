"""Keeps out of the logs what a command reports itself."""

import logging

from inference.runs.progress import Verbosity
from models.errors import UserError

INTERRUPTED = "KeyboardInterrupt [while running"  # start of Beam's message if Ctrl-C interrupted a step
# Texts in what Beam logs after Ctrl-C, of the interrupted step and of slices in other threads.
_QUIET = (INTERRUPTED, "cannot schedule new futures after", "LaunchEnded")


def set_up(verbosity: Verbosity) -> None:
    """Set the level of logs. Unless they are verbose, leave out what Beam repeats."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if verbosity == "verbose":
        logging.getLogger().setLevel(logging.INFO)
        return
    logging.getLogger("apache_beam.runners.common").addFilter(_is_news)
    logging.getLogger().addFilter(_is_not_of_a_job)
    logging.getLogger("PrismJobServer").disabled = True  # Prism announces itself, and repeats what jobs say
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)  # it warns when Prism ends
    # It warns that several workers have no effect in one process, although two threads do overlap.
    logging.getLogger("apache_beam.runners.portability.fn_api_runner.fn_runner").setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for Beam's logs of Ctrl-C and of a user's mistake, which are reported when the run ends."""
    is_mistake = isinstance(record.exc_info[1], UserError) if record.exc_info else False
    return not (is_mistake or any(text in record.getMessage() for text in _QUIET))


def _is_not_of_a_job(record: logging.LogRecord) -> bool:
    """Return False for what a job server says: the error that ends the run repeats it."""
    return record.module != "portable_runner"

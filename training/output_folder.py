"""What a command may write and replace, and what it may fail to write without losing a model."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models import paths, trained_model
from models.errors import UserError
from models.names import for_terminal

LONGEST = 200  # bytes of a folder's name; file systems allow 255, of which `.checkpoints` and the like need some


def folder(text: str) -> Path:
    """Parse the path of a folder that a command will write.

    Raises:
        ArgumentTypeError: it is not on this machine, or its name is too long for the files beside it, which a
            training would notice at its end.
    """
    path = Path(paths.here(text))
    size = len(os.fsencode(path.name))
    if size > LONGEST:
        raise argparse.ArgumentTypeError(
            f"expected a name of at most {LONGEST} bytes, found {size} in {path.name[:20] + '…'!r}; name another folder"
        )
    return path


def check_free(output: Path, overwrite: bool) -> None:
    """Check that a trained model may be written to this directory. Only another trained model is ever replaced.

    Raises:
        UserError: the directory holds something that must stay.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise UserError(f"--output {output} is there already: name another directory, or add --overwrite.")
    if not (output / trained_model.MANIFEST).is_file():
        raise UserError(f"--output {output}: --overwrite replaces trained models only, and this is none; name another.")


@contextmanager
def not_essential(name: str | Path, advice: str, *, step: str = "written") -> Iterator[None]:
    """Turn any error into one sentence on stderr, which names what could not be written and ends with the advice.

    It surrounds the steps that follow once the result itself is safe, such as drawing a report.
    """
    try:
        yield
    except Exception as error:  # a chart or a disk can fail in many ways, and none may cost the model
        reason = " ".join(str(error).split())[:200]
        sentence = f"warning: {name} could not be {step} ({type(error).__name__}: {reason}); {advice}."
        print(for_terminal(sentence), file=sys.stderr)

"""Labels lines as they come, without Beam and without slices: what `inference.run` does."""

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO

import orjson

from inference.corpus import slices
from inference.corpus.files import find_files
from inference.corpus.records import DocumentRecipe, Line, read_documents
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.scorer import Scorer
from models import trained_model
from models.arguments import refuse
from models.errors import UserError

LINES_AT_ONCE = 1_000


def open_input(path: str, problems: Sequence[str] = ()) -> Iterator[Line]:
    """Return the lines of a file, or of standard input for `-`.

    Raises:
        UserError: the file is missing or is several, besides the problems that were found before.
    """
    files = []
    problems = list(problems)
    if path != "-":
        try:
            files = find_files([path])
            problems += [f"--input {path}: expected one file, found {len(files)}."] if len(files) > 1 else []
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    return slices.all_lines(files[0]) if files else slices.lines_of(sys.stdin.buffer)


def label(lines: Iterator[Line], scoring: ScoringOptions, flags: argparse.Namespace) -> tuple[int, int]:
    """Label the lines, LINES_AT_ONCE together; return how many documents were predicted and how many failed."""
    manifests = [trained_model.read_manifest(directory) for directory in model_files.all_local(scoring.models)]
    recipe = DocumentRecipe(text_recipes(scoring, manifests), flags.id_field, flags.keep_fields)
    predicted = failed = 0
    with contextlib.ExitStack() as stack:
        rows = sys.stdout.buffer if flags.output == "-" else stack.enter_context(_writer(flags.output))
        failed_rows = stack.enter_context(_writer(flags.failures)) if flags.failures else sys.stderr.buffer
        scorer = Scorer(scoring)
        while chunk := list(itertools.islice(lines, LINES_AT_ONCE)):
            read = read_documents(chunk, flags.input, recipe)
            predictions, failures, _ = scorer.score(read.documents)
            failures = sorted([*read.failures, *failures], key=lambda failure: failure.line)
            rows.writelines(orjson.dumps(prediction.row()) + b"\n" for prediction in predictions)
            failed_rows.writelines(orjson.dumps(failure.row(flags.input)) + b"\n" for failure in failures)
            rows.flush()
            predicted += len(predictions)
            failed += len(failures)
    return predicted, failed


@contextlib.contextmanager
def _writer(path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name once it is whole."""
    staging = f"{path}.part"
    try:
        with open(staging, "wb") as file:
            yield file
        os.replace(staging, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; name another file.") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)

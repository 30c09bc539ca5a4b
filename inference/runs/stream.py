"""Labels a stream of lines without Beam and without slices, for `inference.run`."""

import argparse
import contextlib
import itertools
import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO

import orjson

from inference.corpus import slices, storage
from inference.corpus.files import Format, find_files
from inference.corpus.records import DocumentRecipe, Line, Reason, read_documents
from inference.runs.rows import json_lines
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.scorer import Scorer
from models import trained_model
from models.arguments import refuse
from models.errors import UserError

LINES_AT_ONCE = 1_000  # lines that are read and scored together


def open_input(path: str, input_format: Format | None = None, problems: Sequence[str] = ()) -> Iterator[Line]:
    """Return the lines of a file, or of standard input if the path is `-`.

    Raises:
        UserError: the path does not match exactly one file, or there were problems before. Each has a line.
    """
    files = []
    problems = list(problems)
    if path != "-":
        try:
            files = find_files([path], input_format)
            problems += [f"--input {path}: expected one file, found {len(files)}."] if len(files) > 1 else []
        except UserError as error:
            problems.append(str(error))
    elif input_format not in (None, "jsonl"):
        problems.append(f"--input_format {input_format}: expected a file, found standard input; name it with --input.")
    refuse(problems)
    return slices.all_lines(files[0]) if files else slices.lines_of(sys.stdin.buffer)


def label(lines: Iterator[Line], scoring: ScoringOptions, flags: argparse.Namespace) -> tuple[int, Counter[Reason]]:
    """Label the lines in chunks of LINES_AT_ONCE. Return the number of predictions, and that of failures by reason.

    Raises:
        ScoringError: the device, the memory or the model failed. Standard output then holds the rows of whole chunks.
    """
    manifests = [trained_model.read_manifest(directory) for directory in model_files.all_local(scoring.models)]
    recipe = DocumentRecipe(text_recipes(scoring, manifests), flags.id_field, flags.keep_fields)
    predicted, failed = 0, Counter[Reason]()
    with contextlib.ExitStack() as stack:
        rows = sys.stdout.buffer if flags.output == "-" else stack.enter_context(_writer(flags.output))
        failed_rows = stack.enter_context(_writer(flags.failures)) if flags.failures else sys.stderr.buffer
        scorer = Scorer(scoring)
        while chunk := list(itertools.islice(lines, LINES_AT_ONCE)):
            content = read_documents(chunk, flags.input, recipe)
            predictions, failures, _ = scorer.score(content.documents)
            failures = sorted([*content.failures, *failures], key=lambda failure: failure.place)
            rows.writelines(json_lines(predictions))
            failed_rows.writelines(orjson.dumps(failure.row()) + b"\n" for failure in failures)
            rows.flush()
            predicted += len(predictions)
            failed.update(failure.reason for failure in failures)
    return predicted, failed


@contextlib.contextmanager
def _writer(path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name once it is complete.

    Raises:
        UserError: the file cannot be written.
    """
    staging = f"{path}.{uuid.uuid4().hex}{storage.PART_SUFFIX}"  # nobody else's file
    try:
        with open(staging, "wb") as file:
            yield file
        os.replace(staging, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; name another file.") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)

"""The same labelling without Beam, for small input and pipes.

    python -m inference.run --model models/trained/demo < papers.jsonl > labelled.jsonl

Rows go to standard output (or --output), failures to standard error (or --failures), both as JSON lines.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO

import orjson

from inference import command_line, config, slices
from inference.files import find_files
from inference.records import Line, ReadOptions, read_documents
from inference.scorer import Scorer, ScoringOptions, text_recipes
from models import trained_model
from models.errors import UserError, exit_code

LINES_AT_ONCE = 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """Labels a stream. Returns 0 done, 2 wrong use, 3 too many failures."""
    try:
        return exit_code(lambda: run(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of the pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def make_parser() -> command_line.Parser:
    """The parser of `inference.run`."""
    parser = command_line.Parser(prog="python -m inference.run", description=__doc__)
    group = parser.add_argument_group("what to run")
    group.add_argument("--model", action="append", required=True, metavar="DIR", help="trained model; may be repeated")
    group.add_argument("--input", default="-", metavar="FILE", help="JSON lines, also compressed; - is standard input")
    group.add_argument("--output", default="-", metavar="FILE", help="- is standard output")
    group.add_argument("--failures", metavar="FILE", help="instead of standard error")
    group.add_argument(
        "--max_failure_rate",
        type=command_line.rate,
        default=0.01,
        metavar="SHARE",
        help="above it the exit code is 3 (0.01)",
    )
    config.add_scoring_flags(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Checks the flags, then labels line by line, `LINES_AT_ONCE` together."""
    flags, rest = make_parser().parse_known_args(argv)
    scoring, problems = config.check_scoring(flags)
    problems += [f"unknown flag or argument {argument}: see --help" for argument in rest]
    if flags.input != "-":
        try:
            files = find_files([flags.input])
            problems += [f"--input {flags.input}: expected one file, found {len(files)}"] if len(files) > 1 else []
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    manifests = [trained_model.read_manifest(directory) for directory in scoring.directories()]
    options = ReadOptions(text_recipes(scoring, manifests), flags.id_field, flags.keep_fields)
    with contextlib.ExitStack() as stack:
        lines = slices.all_lines(files[0]) if flags.input != "-" else slices.lines_of(sys.stdin.buffer)
        rows = sys.stdout.buffer if flags.output == "-" else stack.enter_context(_writer(flags.output))
        failures = stack.enter_context(_writer(flags.failures)) if flags.failures else sys.stderr.buffer
        predicted, failed = _label(lines, options, scoring, (rows, failures), flags.input)
    print(f"{predicted:,} predicted, {failed:,} failed", file=sys.stderr)
    return 3 if failed > flags.max_failure_rate * (predicted + failed) else 0


@contextlib.contextmanager
def _writer(path: str) -> Iterator[IO[bytes]]:
    """A file that appears under its name once it is whole."""
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


def _label(
    lines: Iterator[Line], options: ReadOptions, scoring: ScoringOptions, sinks: tuple[IO[bytes], IO[bytes]], name: str
) -> tuple[int, int]:
    scorer = Scorer(scoring)
    predicted = failed = 0
    while chunk := list(itertools.islice(lines, LINES_AT_ONCE)):
        read = read_documents(chunk, name, options)
        predictions, failures, _ = scorer.score(read.documents)
        failures = sorted([*read.failures, *failures], key=lambda failure: failure.line)
        sinks[0].writelines(orjson.dumps(prediction.row()) + b"\n" for prediction in predictions)
        sinks[1].writelines(orjson.dumps(failure.row(name)) + b"\n" for failure in failures)
        sinks[0].flush()
        predicted += len(predictions)
        failed += len(failures)
    return predicted, failed


if __name__ == "__main__":
    sys.exit(main())

"""Label a stream of JSON lines without Beam. It suits small inputs and pipes.

    python -m inference.run --model models/trained/demo < papers.jsonl > labelled.jsonl

Rows go to standard output or --output, and failures go to standard error or --failures. Both are JSON lines.
"""

import os
import sys
from collections.abc import Sequence

from inference.flags import add_damage, add_model, add_scoring_flags, share
from models import imports, paths
from models.arguments import Parser
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Label a stream. Return 0 when done, 1 if it failed, 2 after wrong use, 3 after too many failures."""
    try:
        return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of the pipe needs no more rows
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def make_parser() -> Parser:
    """Return the parser of `inference.run`."""
    parser = Parser("python -m inference.run", __doc__)
    group = parser.add_argument_group("what to run")
    add_model(group)
    group.add_argument(
        "--input",
        type=paths.anywhere,
        default="-",
        metavar="FILE",
        help="JSON lines file, plain or compressed (default: -, standard input)",
    )
    group.add_argument(
        "--output", type=paths.here, default="-", metavar="FILE", help="file for the rows (default: -, standard output)"
    )
    group.add_argument(
        "--failures", type=paths.here, metavar="FILE", help="file for the failures (default: standard error)"
    )
    group.add_argument(
        "--max_failure_rate",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="share of failed documents above which the exit code is 3 (default: 0.01)",
    )
    add_damage(group)
    add_scoring_flags(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    flags = make_parser().parse(argv)
    with imports.quick():
        from inference import scoring_flags
        from inference.corpus.records import MANY_DOCUMENTS
        from inference.runs import stream
        from inference.scoring.faults import ScoringError

    scoring, problems = scoring_flags.check(flags)
    lines = stream.open_input(flags.input, flags.input_format, problems)
    try:
        predicted, reasons = stream.label(lines, scoring, flags)
    except ScoringError as error:  # which is a failure and not wrong use
        print(f"failed: {error}", file=sys.stderr)
        return 1
    failed = reasons.total()
    print(f"{predicted:,} predicted, {failed:,} failed", file=sys.stderr)
    many = any(reasons[reason] for reason in MANY_DOCUMENTS) and not flags.allow_damaged_files
    return 3 if many or failed > flags.max_failure_rate * (predicted + failed) else 0


if __name__ == "__main__":
    sys.exit(main())

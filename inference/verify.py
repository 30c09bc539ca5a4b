"""Check a run: every line of the input is accounted for, and every file is what its receipt says.

    python -m inference.verify runs/ai

It names missing, changed and unfinished files, and those that belong to no receipt of the run. With --input, it also
reads the corpus again and compares it with the bytes that were labelled. It prints a line for each problem.
Exit codes: 0 no problem, 1 problems found, 2 wrong use.
"""

import itertools
import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_json, print_json
from models import paths
from models.errors import exit_code
from models.names import for_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Check a run and print its problems. Return 0 if there are none, 1 if there are any, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.verify`."""
    parser = BeamParser("python -m inference.verify", __doc__)
    parser.add_argument("run", type=paths.anywhere, metavar="RUN", help="folder of the run")
    parser.add_argument("--input", action="store_true", help="a comparison with the corpus, which is read again")
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference.corpus import storage
    from inference.runs import integrity

    storage.configure(beam_flags)
    problems = []
    checks = [integrity.verify(flags.run), integrity.verify_input(flags.run) if flags.input else ()]
    for problem in itertools.chain(*checks):
        problems.append(problem)
        if not flags.json:
            print(for_terminal(problem))
    if flags.json:
        print_json({"run": flags.run, "problems": problems})
    elif problems:
        print(
            f"{len(problems):,} problem{'s' * (len(problems) > 1)}. To do a slice again, delete its receipt and repeat "
            "the command of the run."
        )
    else:
        print(f"{flags.run}: every line is accounted for, and every file is what its receipt says.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Loads models, labels fixed texts and prints the scores, with the versions at work.

    python -m inference.probe /models/*

Run inside an image and outside of it, it shows whether both do the same.
"""

import sys
from collections.abc import Sequence
from typing import get_args

from inference.flags import print_json
from inference.scoring.options import PrecisionChoice, RuntimeChoice, ScoringOptions
from models.arguments import Parser
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Print JSON. Return 0 done, 2 a model that cannot be used."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.probe`."""
    parser = Parser("python -m inference.probe", __doc__)
    parser.add_argument("model", nargs="+", metavar="DIR", help="trained models")
    parser.add_argument(
        "--runtime", choices=get_args(RuntimeChoice), default="auto", help="inference engine (default: auto)"
    )
    parser.add_argument(
        "--precision", choices=get_args(PrecisionChoice), default="auto", help="number format (default: auto)"
    )
    return parser


def _run(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    from inference.dataflow.probe import probe

    print_json(probe(ScoringOptions(tuple(flags.model), flags.runtime, flags.precision, scores="all")))


if __name__ == "__main__":
    sys.exit(main())

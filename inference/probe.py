"""Load models, score the probe texts, and print the scores with the installed versions.

    python -m inference.probe /models/*
    python -m inference.probe --labels

The outputs inside and outside of an image show whether both give the same scores.
"""

import sys
from collections.abc import Sequence
from typing import get_args

from inference.flags import print_json
from inference.scoring.options import PrecisionChoice, RuntimeChoice, ScoringOptions
from models.arguments import Parser
from models.errors import UserError, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Print versions and scores as JSON, or labels. Return 0 when done, 2 if a model cannot be used."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.probe`."""
    parser = Parser("python -m inference.probe", __doc__)
    parser.add_argument("model", nargs="*", metavar="DIR", help="trained models")
    parser.add_argument(
        "--labels", action="store_true", help="only the labels of an image that name its torch and its runtimes"
    )
    parser.add_argument("--runtime", choices=get_args(RuntimeChoice), default="auto", help="runtime (default: auto)")
    parser.add_argument(
        "--precision", choices=get_args(PrecisionChoice), default="auto", help="precision (default: auto)"
    )
    return parser


def _main(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    if bool(flags.model) == flags.labels:
        raise UserError("expected trained models or --labels, found both or neither; give one of them.")
    from inference.dataflow import contents

    if flags.labels:
        print(*(f"{name}={value}" for name, value in contents.labels().items()))
        return
    from inference.dataflow.probe import probe

    print_json(probe(ScoringOptions(tuple(flags.model), flags.runtime, flags.precision, scores="all")))


if __name__ == "__main__":
    sys.exit(main())

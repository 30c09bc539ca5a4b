"""Makes the int8 variant of a trained model, if labelled documents show that it is as good.

    python -m inference.optimize --model models/trained/ai --data prepared/ai/test.parquet --text_fields text

The variant lies in the model's directory and is used with --precision int8. A few of its labels differ from fp32's: the
proof beside it says how many, and F1 and speed before and after.
"""

import sys
from collections.abc import Sequence

from inference.flags import names, positive
from models.arguments import Parser
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Make and prove the variant. Return 0 done, 2 wrong use or refused."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.optimize`."""
    parser = Parser("python -m inference.optimize", __doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="trained model")
    parser.add_argument("--data", required=True, metavar="FILE", help="labelled documents, as JSON lines or Parquet")
    parser.add_argument(
        "--text_fields", type=names, default=(), metavar="A,B", help="fields to read (default: the model's own)"
    )
    parser.add_argument(
        "--label_field",
        default="labels",
        metavar="NAME",
        help="field with a label or a list of labels (default: labels)",
    )
    parser.add_argument(
        "--max_documents",
        type=positive(int),
        default=10_000,
        metavar="N",
        help="documents to measure at most (default: 10000)",
    )
    return parser


def _run(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    from inference.scoring import quantization
    from inference.scoring.quantization import Labelled

    quantization.check_machine()
    data = Labelled(flags.data, flags.label_field, flags.text_fields, flags.max_documents)
    proof, folder = quantization.make(flags.model, data)
    print(f"{proof}\nwritten: {folder}; use it with --precision int8")


if __name__ == "__main__":
    sys.exit(main())

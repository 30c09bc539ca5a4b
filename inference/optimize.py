"""Make the int8 variant of a trained model, if labelled documents show that it is as good.

    python -m inference.optimize --model models/trained/ai --data prepared/ai/test.parquet --text_fields text

The variant is stored in the model's directory, and --precision int8 uses it. A few of its labels differ from those in
fp32. The proof beside it says how many, and holds F1 and speed before and after.
"""

import sys
from collections.abc import Sequence

from inference.flags import names, positive
from models import paths
from models.arguments import Parser
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Make and prove the variant. Return 0 when done, 2 after wrong use or if the variant is not good enough."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.optimize`."""
    parser = Parser("python -m inference.optimize", __doc__)
    parser.add_argument("--model", type=paths.here, required=True, metavar="DIR", help="trained model")
    parser.add_argument("--data", required=True, metavar="FILE", help="labelled documents as JSON lines or Parquet")
    parser.add_argument(
        "--text_fields",
        type=names,
        default=(),
        metavar="A,B",
        help="text fields of the documents (default: the model's own)",
    )
    parser.add_argument(
        "--label_field",
        default="labels",
        metavar="NAME",
        help="field that holds a label or a list of labels (default: labels)",
    )
    parser.add_argument(
        "--max_documents",
        type=positive(int),
        default=10_000,
        metavar="N",
        help="largest number of documents to measure (default: 10000)",
    )
    return parser


def _main(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    from inference.scoring import quantization
    from inference.scoring.quantization import LabelledFile

    quantization.check_machine()
    data = LabelledFile(flags.data, flags.label_field, flags.text_fields, flags.max_documents)
    proof, folder = quantization.make(flags.model, data)
    print(f"{proof}\nwritten: {folder}; use it with --precision int8")


if __name__ == "__main__":
    sys.exit(main())

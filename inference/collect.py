"""Write the labels of a whole corpus into one folder: the rows of a run, and those that its delta kept.

    python -m inference.collect runs/june --output labels/june

The folder gets predictions/, failures/, schema.json, and at last collection.json with the counts of documents. Every
file is compared with the SHA-256 that its run or its delta recorded. If a document of the corpus is neither kept,
predicted nor failed, nothing is written. A delta with nothing to label can stand in for the run.
The same command goes on after it was stopped.
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_json, print_json
from models import paths
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the labels of a whole corpus. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.collect`."""
    parser = BeamParser("python -m inference.collect", __doc__)
    parser.add_argument(
        "run", type=paths.anywhere, metavar="RUN", help="folder of the run, or of a delta with nothing to label"
    )
    parser.add_argument(
        "--output",
        type=paths.anywhere,
        required=True,
        metavar="DIR",
        help="new folder for the labels of the whole corpus",
    )
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference.corpus import storage
    from inference.runs import collection

    storage.configure(beam_flags)
    counts = collection.collect(flags.run, flags.output)["counts"]
    if flags.json:
        print_json({"output": flags.output, "counts": counts})
    else:
        print(
            f"{counts['documents']:,} documents = {counts['kept']:,} kept + {counts['predicted']:,} predicted + "
            f"{counts['failed']:,} failed: {flags.output}"
        )


if __name__ == "__main__":
    sys.exit(main())

"""Write a finished run as one table: each row of the input with its labels, in the order of the input.

    python -m inference.export runs/june --to labelled.parquet

The end of the name tells the format: .parquet, .jsonl or .csv. Every line of the input that is not blank is a row. A
line that failed has no labels, and the reason in the column `failure`. --layout lists gives each model a column with
labels and one with scores. --layout columns gives each label a column with true or false, and one with its score. The
input is read again, and must be as it was when it was labelled. One slice is in memory at a time.
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_json, names, print_json
from models import paths
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table of a run. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.export`."""
    parser = BeamParser("python -m inference.export", __doc__)
    parser.add_argument("run", type=paths.anywhere, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--to", type=paths.anywhere, required=True, metavar="FILE", help="file to write: .parquet, .jsonl or .csv"
    )
    parser.add_argument(
        "--fields", type=names, default=(), metavar="A,B", help="input fields to write (default: all of them)"
    )
    parser.add_argument(
        "--layout", choices=("lists", "columns"), default="lists", help="shape of the labels (default: lists)"
    )
    parser.add_argument("--overwrite", action="store_true", help="a file that exists is replaced")
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference.corpus import storage
    from inference.runs import exporting

    storage.configure(beam_flags)
    written = exporting.export(flags.run, flags.to, flags.fields, flags.layout, overwrite=flags.overwrite)
    if flags.json:
        print_json({"file": flags.to, **written})
    else:
        rows, predicted, failed = (f"{written[name]:,}" for name in ("rows", "predicted", "failed"))
        print(f"{rows} rows = {predicted} predicted + {failed} failed: {flags.to}")


if __name__ == "__main__":
    sys.exit(main())

"""Look at a sample of a corpus: fields, types, lengths of the texts, and lines that cannot be read.

    python -m inference.peek 'corpus/*.jsonl.gz' --model models/trained/subjects

It reads about 1,000 documents from at most 32 places of the corpus, so it answers in seconds for a corpus of any size.
With --model, it also shows the lengths of the texts in tokens, and which lines the model could not label.
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_json, add_reading_flags, positive, print_json
from models import paths
from models.errors import UserError, exit_code

HEAD_BYTES = 1 << 20  # bytes of text to expand of each compressed file


def main(argv: Sequence[str] | None = None) -> int:
    """Show a sample of a corpus. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.peek`."""
    parser = BeamParser("python -m inference.peek", __doc__)
    parser.add_argument(
        "input", type=paths.anywhere, nargs="+", metavar="GLOB", help="files of JSON lines, CSV, TSV or Parquet"
    )
    parser.add_argument("--model", type=paths.anywhere, metavar="DIR", help="trained model that would read the texts")
    parser.add_argument(
        "--documents",
        type=positive(int),
        default=1_000,
        metavar="N",
        help="number of documents to look at, about (default: 1000)",
    )
    parser.add_argument(
        "--show", type=positive(int), default=2, metavar="N", help="number of documents to print (default: 2)"
    )
    add_reading_flags(parser)
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference import overview
    from inference.corpus import sampling, storage
    from inference.corpus.files import find_files
    from models.console import PlainConsole

    storage.configure(beam_flags)
    files = [file for file in find_files(flags.input, flags.input_format, flag="") if file.size]
    if not files:
        raise UserError(f"{flags.input[0]}: expected files with documents, found only empty ones; name others.")
    found = sampling.read(files, flags.documents, head_bytes=HEAD_BYTES)
    content = overview.describe(files, found, flags.id_field, flags.show)
    if flags.model:
        content["texts"] = overview.describe_texts(found, flags.model, flags.text_fields, flags.id_field)
    if flags.json:
        print_json(content)
    else:
        overview.show(content, PlainConsole())


if __name__ == "__main__":
    sys.exit(main())

"""Find the documents to relabel since an earlier run, so that a monthly refresh pays for the changes only.

    python -m inference.delta --model models/trained/ai --input 'june/*.jsonl' --previous runs/may --output to_june
    python -m inference.beam_runner --model models/trained/ai --input 'to_june/documents/*' --output runs/june

A document is relabelled if its id is new, if its text has changed, or if the models differ. The labels of the corpus
are then the rows of to_june/kept and of runs/june/predictions together. Next month, pass runs/june as --previous: it
leads to the rows in to_june/kept. The input files of the earlier run must still exist, unchanged.
Every flag of Apache Beam can follow.
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_json, print_json
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the documents to relabel and the rows to keep. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.delta`."""
    parser = BeamParser("python -m inference.delta", __doc__)
    parser.add_argument("--model", action="append", required=True, metavar="DIR", help="trained model; may be repeated")
    parser.add_argument(
        "--input", action="append", required=True, metavar="GLOB", help="files of the new corpus; may be repeated"
    )
    parser.add_argument("--previous", required=True, metavar="RUN", help="folder of an earlier, finished run")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="new folder for the documents to relabel and the rows to keep"
    )
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference.corpus import storage
    from inference.runs import changes

    counts = changes.find_changes(storage.configure(beam_flags), flags.model, flags.input, flags.previous, flags.output)
    if flags.json:
        print_json({"counts": counts, "output": flags.output})
        return
    print(", ".join(f"{counts.get(name, 0):,} {name}" for name in (*changes.TO_LABEL, "kept", "gone")))
    if any(counts.get(name) for name in changes.TO_LABEL):
        print(f"to label: {flags.output}/{changes.DOCUMENTS}/*.jsonl")
    else:
        print("nothing to label: the kept rows are the labels of the whole corpus")


if __name__ == "__main__":
    sys.exit(main())

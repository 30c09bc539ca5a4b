"""Find the documents to relabel since an earlier run, so that a monthly refresh pays for the changes only.

    python -m inference.delta --input 'june/*.jsonl' --previous runs/may --output to_june

It prints the command that labels these documents as the earlier run was labelled. A document is relabelled if its id is
new, if its text has changed, or if --model names other models. `inference.collect` then writes the labels of the whole
corpus. Next month, pass the run on the delta as --previous: it leads to the rows that the delta kept. The input files
of the earlier corpus must still exist, unchanged.
Every flag of Apache Beam can follow.
"""

import shlex
import sys
from collections.abc import Sequence

from inference.flags import BeamParser, add_input, add_json, add_model, print_json
from models import paths
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the documents to relabel and the rows to keep. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.delta`."""
    parser = BeamParser("python -m inference.delta", __doc__)
    add_model(
        parser,
        "trained model for the documents; may be repeated (default: the models of the earlier run)",
        required=False,
    )
    add_input(parser, "files of the new corpus; may be repeated")
    parser.add_argument(
        "--previous", type=paths.anywhere, required=True, metavar="RUN", help="folder of the earlier, finished run"
    )
    parser.add_argument(
        "--output",
        type=paths.anywhere,
        required=True,
        metavar="DIR",
        help="new folder for the documents to relabel and the rows to keep",
    )
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from inference.corpus import storage
    from inference.runs import changes, lineage, refresh

    beam_options = storage.configure(beam_flags)
    delta = refresh.find_changes(beam_options, flags.model, flags.input, flags.previous, flags.output)
    command = refresh.command(delta, flags.output)
    if flags.json:
        documents = f"{flags.output}/{lineage.DOCUMENTS}/*.jsonl" if command else None
        print_json({"counts": delta.counts, "output": flags.output, "documents": documents, "command": command})
        return
    print(", ".join(f"{delta.counts.get(name, 0):,} {name}" for name in (*changes.TO_LABEL, "kept", "gone")))
    if command:
        print(f"to label: {shlex.join(command)}")
    else:
        print("nothing to label: the kept rows are the labels of the whole corpus")


if __name__ == "__main__":
    sys.exit(main())

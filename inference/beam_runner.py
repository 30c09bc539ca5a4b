"""Label a corpus with Apache Beam.

python -m inference.beam_runner --model models/trained/demo --input data/demo/corpus.jsonl --output runs/demo
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from inference.cost.pricing import GPUS
from inference.flags import (
    BeamParser,
    add_damage,
    add_input,
    add_json,
    add_model,
    add_scoring_flags,
    positive,
    share,
    whole,
)
from inference.runs.options import RESUME, FileFormat
from models import imports, names, paths, secrets
from models.errors import exit_code

PROG = "python -m inference.beam_runner"
DESCRIPTION = f"""\
Label a JSONL corpus with one or more trained models.

  {PROG} --model models/trained/ai --input 'corpus/*.jsonl.gz' --output runs/ai

The same command resumes a run that stopped: finished slices are not labelled again.
"""
EPILOG = """\
Every flag of Apache Beam can follow, such as --runner DataflowRunner or --max_num_workers 20. The default runner is
FnApiRunner, which labels on this machine. DirectRunner means the same here.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but too much failed: more than --max_failure_rate, or a damaged file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Label a corpus. Return 0 when done, 1 after a failure, 2 after wrong use, 3 after too many failed documents."""
    return exit_code(lambda: _main(list(sys.argv[1:] if argv is None else argv)), RESUME)


def _main(argv: list[str]) -> int:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    with imports.quick():  # Beam takes more than a second to load, which a wrong flag should not have to wait for
        from inference import checks, execute, scoring_flags

    checked = checks.check(flags, beam_flags, secrets.command(PROG, argv))
    refused = names.refused_by_bigquery(scoring_flags.columns(flags))
    if refused and checked.verbosity != "quiet":
        note = f"note: BigQuery takes no columns named {', '.join(refused)}; the rows can be read by everything else."
        print(names.for_terminal(note), file=sys.stderr)
    return execute.execute(checked)


def make_parser(prog: str = PROG, description: str = DESCRIPTION, epilog: str = EPILOG) -> BeamParser:
    """Return the parser of `inference.beam_runner`, whose flags `inference.worker` has too."""
    parser = BeamParser(
        prog,
        description,
        usage=f"{prog} --model DIR --input GLOB --output DIR [flags] [Apache Beam's flags]",
        epilog=epilog,
    )
    what = parser.add_argument_group("what to run")
    add_model(what)
    add_input(what)
    what.add_argument("--output", type=paths.anywhere, required=True, metavar="DIR", help="folder of the run")
    what.add_argument(
        "--format", choices=get_args(FileFormat), default="jsonl", help="format of the predictions (default: jsonl)"
    )
    what.add_argument(
        "--overwrite",
        action="store_true",
        help="a fresh start that deletes the files of an earlier run in the folder",
    )
    what.add_argument("--limit", type=positive(int), metavar="N", help="number of input lines to read (default: all)")
    what.add_argument(
        "--slice_mb",
        type=positive(float),
        metavar="MIB",
        help="size of a slice (default: about a minute of work, or less if that makes fewer than 64 slices)",
    )
    what.add_argument(
        "--max_failure_rate",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="share of failed documents, or of their bytes, above which the exit code is 3 (default: 0.01)",
    )
    add_damage(what)
    what.add_argument(
        "--retry_failures",
        nargs="?",
        const="all",
        default="",
        metavar="REASON",
        help="failures of this run to score again: all, or those for a REASON such as model_failed (default: none)",
    )
    what.add_argument(
        "--resubmit",
        type=whole,
        metavar="N",
        help="number of times to submit a failed job again (default: 3 if workers are apart from the command, else 0)",
    )
    what.add_argument("--redact_failures", action="store_true", help="failures without any part of the texts")
    add_scoring_flags(parser)
    cost = parser.add_argument_group("planning and Dataflow")
    cost.add_argument(
        "--plan", action="store_true", help="a dry run that shows what would run, how long it takes and what it costs"
    )
    cost.add_argument(
        "--max_cost",
        type=positive(float),
        metavar="DOLLARS",
        help="largest allowed cost, for the high end of the estimate and while the job runs (default: none)",
    )
    cost.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="output of estimate_cost --json on the job's machine type (default: the speed of this machine)",
    )
    cost.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="file of prices and machine types (default: inference/cost/prices.toml)",
    )
    cost.add_argument("--accelerator", choices=tuple(GPUS), help="GPU of each worker (default: none)")
    cost.add_argument(
        "--no_wait", action="store_true", help="an exit right after the job is submitted (default: at the job's end)"
    )
    messages = parser.add_argument_group("messages")
    messages.add_argument(
        "--quiet",
        dest="verbosity",
        action="store_const",
        const="quiet",
        default="normal",
        help="errors and warnings only",
    )
    messages.add_argument(
        "--verbose",
        dest="verbosity",
        action="store_const",
        const="verbose",
        help="a line for each finished slice, and all logs",
    )
    add_json(messages)
    return parser


if __name__ == "__main__":
    sys.exit(main())

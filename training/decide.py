r"""Fit the decision of a trained or imported model to labelled files, and leave its weights alone.

    python -m training.decide --model models/trained/irony --data mine.csv --test held_out.csv \
        --objective "precision >= 0.9"

Temperatures, biases and thresholds are fitted to --data and written into model.json, with the metrics that belong to
them. The state dict and its conversions stay what they are. A run that was started before has to be finished before.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from models import trained_model
from models.arguments import Parser
from models.errors import exit_code
from training import evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the decision of a model. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.decide`."""
    parser = Parser("python -m training.decide", __doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="directory of the trained model")
    parser.add_argument(
        "--data", action="append", required=True, metavar="FILE", help="labelled file to fit to; may be repeated"
    )
    parser.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="FILE",
        help="labelled file to measure the new decision on, because --data makes it look too good; may be repeated",
    )
    parser.add_argument(
        "--objective",
        metavar="GOAL",
        help="what thresholds are for, as decision.objective: macro_f1, best_f1, 'precision >= 0.9', 'recall >= 0.9' "
        "or fixed (default: that of the training)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="value for a key in [labels] or [decision], such as labels.column=sdg or decision.fewest_positives=50; "
        "may be repeated",
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    overrides = [*flags.set, *([f"decision.objective={flags.objective}"] if flags.objective else [])]
    manifest = trained_model.read_manifest(flags.model)
    data, test = (
        evaluate.config_of(manifest, files, overrides) if files else None for files in (flags.data, flags.test)
    )
    assert data is not None  # --data is required

    from training import refit, terminal

    terminal.quiet_libraries()
    refit.refit(flags.model, data, test)


if __name__ == "__main__":
    sys.exit(main())

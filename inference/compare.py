"""Compare two runs over the same documents, to see what another model, runtime or threshold changes.

    python -m inference.compare runs/old runs/new
    python -m inference.compare runs/old runs/new --models ai_v1=ai_v2

Documents are matched by their ids. A score is compared if both runs wrote it, so label with --scores all.
Every flag of Apache Beam can follow. If workers on other machines compare, they must be able to write --output.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from inference.flags import BeamParser, add_json, print_json
from models import paths
from models.console import PlainConsole
from models.errors import UserError, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two runs and print what differs. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.compare`."""
    parser = BeamParser("python -m inference.compare", __doc__)
    parser.add_argument("before", type=paths.anywhere, metavar="RUN_A", help="folder of the first run")
    parser.add_argument("after", type=paths.anywhere, metavar="RUN_B", help="folder of the second run")
    parser.add_argument(
        "--models",
        type=_pair,
        action="append",
        default=[],
        metavar="A=B",
        help="model of RUN_A and model of RUN_B to compare; may be repeated (default: models of the same name)",
    )
    parser.add_argument(
        "--output", type=paths.anywhere, metavar="FILE", help="JSON file for all counts and changes (default: none)"
    )
    add_json(parser)
    return parser


def _pair(text: str) -> tuple[str, str]:
    before, equals, after = text.partition("=")
    if not (before and equals and after):
        raise argparse.ArgumentTypeError(f"expected A=B, one model of each run, found {text!r}")
    return before, after


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    import apache_beam as beam
    import orjson

    from inference.corpus import storage
    from inference.runs import differences
    from inference.runs.step_errors import own_error

    beam_options = storage.configure(beam_flags)
    pairs = differences.pair_models(flags.before, flags.after, dict(flags.models))
    with tempfile.TemporaryDirectory() as folder:
        output = flags.output or str(Path(folder) / "compare.json")
        try:
            with beam.Pipeline(options=beam_options) as p:
                differences.build(p, (flags.before, flags.after), pairs, output)
        except Exception as error:  # each runner raises errors of its own types
            if mistake := own_error(error):
                raise UserError(mistake[1]) from None
            raise
        comparison = orjson.loads(storage.read_file(output))
    if flags.json:
        print_json(comparison)
    else:
        show(comparison, pairs, PlainConsole())


def show(comparison: dict[str, Any], pairs: dict[str, str], console: PlainConsole) -> None:
    """Print how many documents have different labels, which labels, and the largest changes of a score."""
    both, ambiguous = comparison.get("both", 0), comparison.get("ambiguous", 0)
    console.print(
        f"{both:,} documents in both runs, {comparison.get('only_before', 0):,} in the first only, "
        f"{comparison.get('only_after', 0):,} in the second only"
        + (f"; {ambiguous:,} ids are not unique and are not compared" if ambiguous else ""),
        soft_wrap=True,
    )
    for name, other in pairs.items():
        model = comparison.get("models", {}).get(name, {"changed": 0})
        changed = model["changed"]
        console.print(
            f"model {name if name == other else f'{name} and {other}'}: {changed:,} documents have different labels "
            f"({changed / max(both, 1):.2%})",
            soft_wrap=True,
        )
        console.print(_table(model))
    if comparison["largest"]:
        console.print("largest changes of a score:")
        table = Table()
        for column in ("id", "model", "label", "before", "after"):
            table.add_column(column, justify="right" if column in ("before", "after") else "left")
        for change in comparison["largest"]:
            scores = (f"{change['before']:.3f}", f"{change['after']:.3f}")
            table.add_row(change["id"], change["model"], change["label"], *scores)
        console.print(table)


def _table(model: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("label")
    for column in ("before", "after", "lost", "gained"):
        table.add_column(column, justify="right")
    kept, lost, gained = (model.get(kind, {}) for kind in ("kept", "lost", "gained"))
    for label in sorted({*kept, *lost, *gained}, key=lambda label: -lost.get(label, 0) - gained.get(label, 0)):
        in_both, in_first, in_second = (counts.get(label, 0) for counts in (kept, lost, gained))
        numbers = (in_both + in_first, in_both + in_second, in_first, in_second)
        table.add_row(label, *(f"{number:,}" for number in numbers))
    return table


if __name__ == "__main__":
    sys.exit(main())

r"""Count a label in a whole corpus, without the bias of the model, from a few hundred labels given by hand.

    python -m inference.audit draw runs/ai --label robotics --by month --size 400 --output audits/robotics
    python -m inference.audit estimate audits/robotics --labelled audits/robotics/sheet.csv
    python -m inference.audit draw runs/ai --label robotics --for training --output audits/next
    python -m inference.audit rows audits/next --labelled audits/next/sheet.csv --to data/next.jsonl

`draw` takes a sample of a finished run, which was labelled with --scores all. More documents are drawn where the model
is less sure. Label them on the page label.html, which needs no network, or in the sheet. `estimate` then says how many
documents of the corpus have the label, with an interval, beside the model's own count.
With --for training, `draw` takes the documents that are most worth a label instead, and `rows` writes the labelled ones
for `data.more` of a training.
Every flag of Apache Beam can follow `draw`. With --runner, Beam reads the rows; otherwise this process does.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inference.flags import BeamParser, add_json, names, positive, print_json, whole
from models import paths
from models.errors import UserError, exit_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from inference.audits.audit_folder import Audit

FORMATS = ("csv", "label_studio", "argilla", "doccano")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw an audit, or estimate from one. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.audit`."""
    parser = BeamParser("python -m inference.audit", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="draw|estimate|rows")
    draw = _command(commands, "draw", "draw a sample of a run for coders")
    draw.add_argument("run", type=paths.anywhere, metavar="RUN", help="folder of a finished run")
    draw.add_argument(
        "--label", action="append", required=True, metavar="LABEL", help="label to count; may be repeated"
    )
    draw.add_argument("--model", metavar="NAME", help="model of the run (default: the only one)")
    draw.add_argument("--by", metavar="FIELD", help="kept field, such as a month, whose values are counted apart")
    draw.add_argument("--size", type=positive(int), default=400, metavar="N", help="documents to draw (default: 400)")
    draw.add_argument("--seed", type=whole, default=0, metavar="N", help="seed of the draw (default: 0)")
    draw.add_argument(
        "--fields",
        type=names,
        default=(),
        metavar="A,B",
        help="input fields to show (default: those that the model read)",
    )
    draw.add_argument(
        "--format",
        dest="formats",
        action="append",
        choices=FORMATS,
        default=[],
        help="format of the sheet, for a spreadsheet or a labelling tool; may be repeated (default: csv)",
    )
    draw.add_argument("--output", type=paths.anywhere, metavar="DIR", help="new folder of the audit")
    draw.add_argument(
        "--for",
        dest="purpose",
        choices=("estimate", "training"),
        default="estimate",
        help="what the labels are for: counts, or the next training (default: estimate)",
    )
    draw.add_argument("--plan", action="store_true", help="the width of the intervals to expect, and no draw")
    add_json(draw)
    estimate = _command(commands, "estimate", "estimate counts from the labels of the coders")
    _add_sheets(estimate)
    estimate.add_argument(
        "--outcomes",
        type=paths.anywhere,
        metavar="FILE",
        help="file for an unbiased outcome of every document, .csv or .parquet (default: none)",
    )
    add_json(estimate)
    rows = _command(commands, "rows", "write the labelled documents for data.more of a training")
    _add_sheets(rows)
    rows.add_argument("--to", type=paths.anywhere, required=True, metavar="FILE.jsonl", help="new file of JSON lines")
    return parser


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    """Add a command to those of the audit, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    return parser


def _add_sheets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audit", type=paths.anywhere, metavar="AUDIT", help="folder of the audit")
    parser.add_argument(
        "--labelled",
        type=paths.anywhere,
        action="append",
        required=True,
        metavar="FILE",
        help="sheet, or export of a labelling tool; given twice for two coders",
    )
    parser.add_argument(
        "--agreed", type=paths.anywhere, metavar="FILE", help="sheet of the rows on which two coders disagreed, settled"
    )


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    {"draw": _draw, "estimate": _estimate, "rows": _rows}[flags.command](flags, beam_flags)


def _draw(flags: Any, beam_flags: Sequence[str]) -> None:
    from inference.audits import audit, drawing, passes, population
    from inference.audits.audit import Request
    from inference.corpus import storage

    options = storage.configure(beam_flags)
    if not (flags.output or flags.plan):
        raise UserError("--output is required; name a new folder, or add --plan.")
    if flags.plan and flags.purpose == "training":
        raise UserError("--plan: expected an audit for counts, found --for training; nothing is estimated from it.")
    given = {word.partition("=")[0] for word in beam_flags}
    if "--runner" in given and not flags.output:
        raise UserError("--output is required with --runner; workers hand their results over in it.")
    if options.get_all_options()["runner"] == "DataflowRunner" and "--sdk_container_image" not in given:
        raise UserError("--sdk_container_image is required; name the image that `labelbeam container build` made.")
    source = population.find(flags.run, flags.model, flags.label, flags.by)
    fold = passes.Passes(options, flags.output) if "--runner" in given else drawing.in_order
    if flags.plan:
        design = drawing.plan(source, flags.size, fold)
        documents = sum(stratum.documents for stratum in design.strata)
        widths = audit.half_widths(design, flags.label)
        if flags.json:
            print_json({"documents": documents, "strata": len(design.strata), "half_widths": widths})
        for label, width in widths.items() if not flags.json else ():
            print(f"{label}: about ±{width:,.0f} of {documents:,} documents (±{width / documents:.2%})")
        return
    request = Request(
        flags.purpose, flags.size, flags.seed, flags.fields, tuple(dict.fromkeys(flags.formats or ["csv"]))
    )
    drawn, files = audit.draw(source, request, flags.output, fold)
    if flags.json:
        print_json({"audit": drawn.name, "drawn": len(drawn.documents), "files": files})
        return
    how = f"drawn, of {len(drawn.strata)} strata" if flags.purpose == "estimate" else "chosen"
    print(f"{drawn.name}: {len(drawn.documents):,} documents {how}")
    print("\n".join(f"  {path}" for path in files))
    then = "estimate" if flags.purpose == "estimate" else "rows"
    print(f"then: python -m inference.audit {then} {flags.output} --labelled FILE{' --to FILE' * (then == 'rows')}")


def _estimate(flags: Any, beam_flags: Sequence[str]) -> None:
    from inference.audits import audit, audit_folder, judging, outcomes, reporting
    from inference.corpus import storage

    storage.configure(beam_flags)
    drawn = audit_folder.read(flags.audit)
    coders, truth = _judged(flags, drawn)
    found = audit.estimate(drawn, truth)
    if len(coders) == 2:
        found["kappa"] = judging.agreement(drawn, coders)
    if flags.outcomes:
        found["outcomes"] = outcomes.write(drawn, audit.population_of(drawn), truth, flags.outcomes)
    if flags.json:
        print_json(found)
    else:
        _show(drawn, found)
    reporting.keep(drawn, found, flags.audit)


def _judged(flags: Any, drawn: "Audit") -> tuple[list[dict[str, frozenset[str]]], "NDArray[np.bool_]"]:
    """Return the answers of each coder, and those on which all agree, (documents, labels)."""
    from inference.audits import judging

    if len(flags.labelled) > 2:
        raise UserError(f"--labelled: expected the sheets of one coder or two, found {len(flags.labelled)}.")
    coders = [judging.read(drawn, path) for path in flags.labelled]
    agreed = judging.read(drawn, flags.agreed, "--agreed") if flags.agreed else {}
    if not flags.agreed and judging.rows_at_odds(drawn, coders):
        judging.write_at_odds(drawn, coders, flags.audit)
    return coders, judging.truth_of(drawn, judging.settle(drawn, coders, agreed))


def _rows(flags: Any, beam_flags: Sequence[str]) -> None:
    import orjson

    from inference.audits import audit, audit_folder
    from inference.corpus import storage

    storage.configure(beam_flags)
    drawn = audit_folder.read(flags.audit)
    if not flags.to.endswith(".jsonl"):
        raise UserError(f"--to {flags.to}: expected a name that ends in .jsonl; name another.")
    if storage.exists(flags.to):
        raise UserError(f"--to {flags.to}: expected a new file, found one; name another.")
    _, truth = _judged(flags, drawn)
    rows = list(audit.training_rows(drawn, audit_folder.papers(drawn, flags.audit), truth))
    storage.write_file(flags.to, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    print(f"{len(rows):,} rows: {flags.to}")


def _show(drawn: "Audit", found: dict[str, Any]) -> None:
    from models.console import PlainConsole

    console = PlainConsole()
    console.print(_counts(found["labels"]))
    console.print(_quality(found["labels"]))
    for label, kappa in found.get("kappa", {}).items():
        console.print(f"{label}: the two coders agree with kappa {kappa:.2f}")
    for label, row in found["labels"].items():
        if row["groups"]:
            console.print(_groups(label, drawn.by or "", row["groups"]))
        for note in row["notes"]:
            console.print(f"{label}: {note}", soft_wrap=True)


def _counts(labels: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("label")
    for name in ("model's count", "count", "95 % interval", "share of documents"):
        table.add_column(name, justify="right")
    for label, row in labels.items():
        share = f"{row['share']['value']:.2%}"
        table.add_row(label, f"{row['naive']:,}", *_count(row["count"]), share)
    return table


def _quality(labels: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("label")
    for name in ("precision of the model", "recall of the model"):
        table.add_column(name, justify="right")
    for label, row in labels.items():
        table.add_row(label, *(_interval(row[name]) for name in ("precision", "recall")))
    return table


def _count(count: dict[str, float]) -> tuple[str, str]:
    return f"{count['value']:,.0f}", f"{count['low']:,.0f} to {count['high']:,.0f}"


def _interval(interval: dict[str, float] | None) -> str:
    return "–" if interval is None else f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


def _groups(label: str, by: str, groups: Sequence[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{label} by {by}", title_justify="left")
    table.add_column(by)
    for name in ("documents", "model's count", "count", "95 % interval"):
        table.add_column(name, justify="right")
    for row in groups:
        table.add_row(row["group"], f"{row['documents']:,}", f"{row['naive']:,}", *_count(row["count"]))
    return table


if __name__ == "__main__":
    sys.exit(main())

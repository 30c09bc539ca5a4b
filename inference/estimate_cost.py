"""Says what a run will take and cost, from a sample of its corpus, before anything is paid.

    python -m inference.estimate_cost --model models/trained/ai --input 'gs://bucket/corpus/*.jsonl.gz'

Pieces of the corpus are read, scored and written here as the run would do it, which gives documents, tokens and time;
prices come from a file. Another machine is taken to be as fast as this one, core for core, give or take half (one
without bf16 as fast as this one in fp32), unless a profile measured on it is given: run this there with --json, and
name what it wrote with --profile.

    python -m inference.estimate_cost --actual JOB_ID --project P --region R [--model DIR --input GLOB]

prices a job that has ended from what Dataflow says it used, beside the estimate where models and input are given.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from inference.cost import pricing
from inference.cost.pricing import Prices
from inference.flags import add_json, add_scoring_flags, positive, print_json
from models.arguments import Parser, refuse
from models.errors import UserError, exit_code

if TYPE_CHECKING:
    from inference.corpus.files import InputFile
    from inference.cost.estimate import Corpus, Offer, Profile
    from inference.runs.options import RunOptions

WIDTH = 120  # of the table where it is not shown on a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Sample, measure, price. Return 0 done, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.estimate_cost`."""
    parser = Parser("python -m inference.estimate_cost", __doc__)
    group = parser.add_argument_group("what would run")
    group.add_argument("--model", action="append", default=[], metavar="DIR", help="trained model; may be repeated")
    group.add_argument("--input", action="append", default=[], metavar="GLOB", help="JSON lines; may be repeated")
    add_scoring_flags(parser)
    cost = parser.add_argument_group("how it is estimated and priced")
    cost.add_argument(
        "--sample_documents",
        type=positive(int),
        default=1_000,
        metavar="N",
        help="approximate number of documents to score here (default: 1000)",
    )
    cost.add_argument(
        "--workers",
        type=positive(int),
        metavar="N",
        help=f"number of workers (default: as many as finish in {pricing.DEADLINE_HOURS:g} hours)",
    )
    cost.add_argument(
        "--prices",
        type=Path,
        default=pricing.PRICES,
        metavar="FILE",
        help="prices and machine types (default: inference/cost/prices.toml)",
    )
    cost.add_argument(
        "--profile",
        type=_profile,
        action="append",
        default=[],
        metavar="MACHINE=FILE",
        help="output of --json on such a machine; may be repeated (default: this machine's speed)",
    )
    cost.add_argument("--actual", metavar="JOB_ID", help="a finished job on Dataflow, to price")
    cost.add_argument("--project", help="project of that job")
    cost.add_argument("--region", help="region of that job")
    add_json(cost)
    return parser


def _profile(text: str) -> tuple[str, Path]:
    machine, equals, path = text.partition("=")
    if not (machine and equals and Path(path).is_file()):
        raise argparse.ArgumentTypeError(f"expected MACHINE=FILE, a file that --json wrote, found {text!r}")
    return machine, Path(path)


def _run(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    from inference.cost import actual, estimate

    options, files, prices = _checked(flags)
    paid = None
    if flags.actual:
        paid = actual.bill(*actual.fetch(flags.project, flags.region, flags.actual), prices)
    result: dict[str, Any] = {"actual": paid.as_dict()} if paid else {}
    offers: list[Offer] = []
    if files:
        here, corpus, offers = estimate.estimate(
            prices, files, options, flags.sample_documents, dict(flags.profile), flags.workers
        )
        result |= {"profile": here, "corpus": corpus, "seconds_here": estimate.seconds_here(here, corpus)}
        result |= {"offers": [asdict(offer) | {"total": offer.bill.total} for offer in offers]}
        if not flags.json:
            show(prices, corpus, here, offers, Console(width=None if sys.stdout.isatty() else WIDTH))
    warning = prices.warning(datetime.date.today())
    result |= {"prices": {"source": prices.source, "region": prices.region, "date": prices.date}, "warning": warning}
    if flags.json:
        print_json(result)
        return
    if paid:
        actual.show(paid)
    if paid and files:
        actual.show_difference(paid, offers)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _checked(flags: argparse.Namespace) -> "tuple[RunOptions, list[InputFile], Prices]":
    """Return what was asked for; no files if only the price of a job was.

    Raises:
        UserError: all problems in one message.
    """
    from inference import checks
    from inference.corpus import slices
    from inference.corpus.files import find_files
    from inference.runs.options import RunOptions

    scoring, problems = checks.check_scoring(flags)
    problems += _incomplete(flags)
    files: list[InputFile] = []
    try:
        files = find_files(flags.input) if flags.input else []
    except UserError as error:
        problems.append(str(error))
    if files and not any(file.size for file in files):
        problems.append(f"--input {' '.join(flags.input)}: expected documents, found empty files only.")
    try:
        prices = pricing.load_prices(flags.prices)
        problems += [
            f"--profile {name}=...: expected one of {', '.join(prices.machines)} of the prices file."
            for name, _ in flags.profile
            if name not in prices.machines
        ]
    except UserError as error:
        problems.append(str(error))
    refuse(problems)
    options = RunOptions("", slices.slice_bytes(files, None), scoring, flags.id_field, flags.keep_fields)
    return options, files, prices


def _incomplete(flags: argparse.Namespace) -> list[str]:
    problems = []
    if not (flags.model and flags.input) and (flags.model or flags.input or not flags.actual):
        problems.append("expected --model DIR and --input GLOB; --actual JOB_ID alone needs neither.")
    if bool(flags.actual) != bool(flags.project and flags.region):
        problems.append("--actual JOB_ID, --project and --region belong together.")
    return problems


def show(prices: Prices, corpus: "Corpus", here: "Profile", offers: "Sequence[Offer]", console: Console) -> None:
    """Print the corpus, the time here, and the offers, the cheapest first."""
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(
        f"{corpus.documents} documents, {corpus.tokens} tokens in {corpus.files:,} file{'s' * (corpus.files != 1)} "
        f"({corpus.stored_bytes / 1e9:,.3f} GB)"
    )
    say(f"sample: {here.documents:,} documents at {here}")
    from inference.cost import estimate
    from inference.runs.progress import duration

    takes = estimate.seconds_here(here, corpus)
    say(f"on this machine: {duration(takes.value)} ({duration(takes.low)} to {duration(takes.high)})")
    table = Table(title=f"on Dataflow, {prices.region}, prices of {prices.date}, in dollars", title_justify="left")
    table.add_column("machine (* cheapest)", no_wrap=True)
    columns = ("workers", "hours", "vCPU", "memory", "disk", "shuffle", "GPU", "total", "range", "a million")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for place, offer in enumerate(offers):
        table.add_row(*_cells(offer, corpus, "" if place else "* "), style=None if place else "bold")
    console.print(table)
    if not all(offer.measured for offer in offers):
        say("Ranges allow for other machines being half as fast or slow again as this one; --profile narrows them.")
    for speed in {offer.speed for offer in offers if not offer.measured} - {str(here)}:
        say(f"Machines without bf16 in hardware are taken to be as fast as this one so: {speed}.")
    unmeasured = [
        name for name, kind in prices.machines.items() if kind.gpu and name not in {o.bill.machine for o in offers}
    ]
    if unmeasured:
        say(f"Not priced, since a GPU's speed has to be measured on it (--profile): {', '.join(unmeasured)}.")


def _cells(offer: "Offer", corpus: "Corpus", mark: str) -> list[str]:
    bill = offer.bill
    dollars = (bill.vcpu, bill.memory, bill.disk, bill.shuffle, bill.gpu, bill.total)
    return [
        mark + bill.machine + (", FlexRS" if bill.flexrs else ""),
        f"{bill.workers:,}",
        f"{bill.hours:.1f}",
        *(f"{amount:,.2f}" for amount in dollars),
        f"{offer.low:,.2f}–{offer.high:,.2f}",
        f"{bill.total / max(corpus.documents.value, 1) * 1e6:,.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())

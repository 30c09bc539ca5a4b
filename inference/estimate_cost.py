"""Estimate the time and the cost of a run from a sample of its corpus, before anything is paid.

    python -m inference.estimate_cost --model models/trained/ai --input 'gs://bucket/corpus/*.jsonl.gz'

This machine reads, scores and writes pieces of the corpus as the run would, which gives documents, tokens and time.
Prices come from a file, whose date and source are printed. A price for spot machines of Compute Engine, on which
`labelbeam worker` runs, is printed if the file gives one in a table [spot]. Dataflow has FlexRS instead.

Another machine is assumed to be as fast as this one, core for core, within a factor of 1.5.
If it lacks bf16, it is assumed to be as fast as this one in fp32. A profile replaces the assumption: run this command
on such a machine with --json, and pass its output with --profile.

    python -m inference.estimate_cost --actual JOB_ID --project P --region R [--model DIR --input GLOB]

This prices a finished job by the resources that Dataflow counted. With models and input, it shows the estimate too.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from inference.cost import pricing
from inference.cost.pricing import Prices
from inference.flags import add_input, add_json, add_model, add_scoring_flags, positive, print_json
from models.arguments import Parser, refuse
from models.console import PlainConsole
from models.errors import UserError, exit_code

if TYPE_CHECKING:
    from inference.corpus.files import InputFile
    from inference.cost.estimate import Corpus, Offer
    from inference.cost.profile import Profile
    from inference.runs.options import RunOptions

WIDTH = 132  # columns of the table if the output is not a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Estimate and print the cost of a run. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.estimate_cost`."""
    parser = Parser("python -m inference.estimate_cost", __doc__)
    group = parser.add_argument_group("what would run")
    add_model(group, required=False)
    add_input(group, required=False)
    add_scoring_flags(parser)
    cost = parser.add_argument_group("estimate and prices")
    cost.add_argument(
        "--sample_documents",
        type=positive(int),
        default=1_000,
        metavar="N",
        help="approximate number of documents to score on this machine (default: 1000)",
    )
    cost.add_argument(
        "--documents",
        type=positive(int),
        metavar="N",
        help="number of documents of a larger or smaller corpus like the input (default: the input's own)",
    )
    cost.add_argument(
        "--workers",
        type=positive(int),
        metavar="N",
        help=f"number of workers, at most one a slice (default: enough for {pricing.DEADLINE_HOURS:g} hours)",
    )
    cost.add_argument(
        "--prices",
        type=Path,
        default=pricing.PRICES,
        metavar="FILE",
        help="file of prices and machine types (default: inference/cost/prices.toml)",
    )
    cost.add_argument(
        "--machine_type",
        action="append",
        default=[],
        metavar="TYPE",
        help="machine type of the prices file, or a custom one such as n2-custom-8-16384 with 8 vCPUs and 16,384 MiB "
        "of memory; may be repeated (default: all of the prices file)",
    )
    cost.add_argument(
        "--profile",
        type=_profile,
        action="append",
        default=[],
        metavar="MACHINE=FILE",
        help="output of --json on a machine type; may be repeated (default: the speed of this machine)",
    )
    cost.add_argument("--actual", metavar="JOB_ID", help="finished Dataflow job to price (default: none)")
    cost.add_argument("--project", help="project of the job that --actual names")
    cost.add_argument("--region", help="region of the job that --actual names")
    add_json(cost)
    return parser


def _profile(text: str) -> tuple[str, Path]:
    machine, equals, path = text.partition("=")
    if not (machine and equals and Path(path).is_file()):
        raise argparse.ArgumentTypeError(f"expected MACHINE=FILE, a file that --json wrote, found {text!r}")
    return machine, Path(path)


def _main(argv: Sequence[str]) -> None:
    flags = make_parser().parse(argv)
    from inference.cost import actual, estimate

    options, files, prices = _checked(flags)
    job_bill = None
    if flags.actual:
        job, used = actual.fetch(flags.project, flags.region, flags.actual)
        job_bill = actual.bill(job, used, prices)
        prices = prices.with_custom(*actual.machine_of(job))
    result: dict[str, Any] = {"actual": job_bill.as_dict()} if job_bill else {}
    offers: list[Offer] = []
    if files:
        profiles = dict(flags.profile)
        asked = estimate.Question(files, options, flags.sample_documents, flags.documents, profiles, flags.workers)
        here, corpus, offers = estimate.estimate(prices, asked)
        result |= {"profile": here, "corpus": corpus, "seconds_here": estimate.seconds_here(here, corpus)}
        result |= {"offers": [asdict(offer) | {"total": offer.bill.total} for offer in offers]}
        if not flags.json:
            if flags.documents:
                print("a corpus like the input:")
            show(prices, corpus, here, offers, PlainConsole(width=None if sys.stdout.isatty() else WIDTH))
    warning = prices.warning(datetime.date.today())
    result |= {"prices": prices.model_dump(include={"source", "region", "date", "spot"}), "warning": warning}
    if flags.json:
        print_json(result)
        return
    if job_bill:
        actual.show(job_bill)
    if job_bill and files:
        actual.show_difference(job_bill, offers)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _checked(flags: argparse.Namespace) -> "tuple[RunOptions, list[InputFile], Prices]":
    """Check the flags and return what an estimate needs. There are no files if only a job is to be priced.

    Raises:
        UserError: has a line for each problem.
    """
    from inference import scoring_flags
    from inference.corpus import slices
    from inference.corpus.files import find_files
    from inference.runs.options import RunOptions

    scoring, problems = scoring_flags.check(flags)
    problems += _incomplete(flags)
    files: list[InputFile] = []
    try:
        files = find_files(flags.input, flags.input_format) if flags.input else []
    except UserError as error:
        problems.append(str(error))
    if files and not any(file.size for file in files):
        problems.append(f"--input {' '.join(flags.input)}: expected documents, found only empty files; check the glob.")
    try:
        prices, unknown = _machines(flags, pricing.load_prices(flags.prices))
        problems += unknown
    except UserError as error:
        problems.append(str(error))
    refuse(problems)
    options = RunOptions("", slices.slice_bytes(files), scoring, flags.id_field, flags.keep_fields)
    return options, files, prices


def _machines(flags: argparse.Namespace, prices: Prices) -> tuple[Prices, list[str]]:
    """Return the prices with the machine types that are asked for, and a sentence for each that is unknown."""
    named = [
        *(("--machine_type", name) for name in flags.machine_type),
        *(("--profile", name) for name, _ in flags.profile),
    ]
    for _, name in named:
        prices = prices.with_custom(name)
    problems = [
        f"{flag} {name}: expected a machine type of the prices file or a custom one such as n2-custom-8-16384, found "
        f"neither; take one of {', '.join(prices.machines)}, or add it to a file for --prices."
        for flag, name in named
        if name not in prices.machines
    ]
    if flags.machine_type and not problems:
        chosen = {name: prices.machines[name] for _, name in named}
        prices = prices.model_copy(update={"machines": chosen})
    return prices, problems


def _incomplete(flags: argparse.Namespace) -> list[str]:
    problems = []
    if not (flags.model and flags.input) and (flags.model or flags.input or not flags.actual):
        problems.append("expected --model DIR and --input GLOB, or --actual JOB_ID alone; add what is missing.")
    if bool(flags.actual) != bool(flags.project and flags.region):
        problems.append("expected --actual JOB_ID, --project and --region together, found only some; add the others.")
    return problems


def show(prices: Prices, corpus: "Corpus", here: "Profile", offers: "Sequence[Offer]", console: PlainConsole) -> None:
    """Print the corpus, the time on this machine, and the offers with the cheapest first."""
    print_line = partial(console.print, soft_wrap=True)
    print_line(
        f"{corpus.documents} documents, {corpus.tokens} tokens in {corpus.files:,} file{'s' * (corpus.files != 1)} "
        f"({corpus.stored_bytes / 1e9:,.3f} GB)"
    )
    print_line(f"sample: {here.documents:,} documents at {here}")
    from inference.cost import estimate
    from inference.runs.progress import duration

    seconds = estimate.seconds_here(here, corpus)
    print_line(f"on this machine: {duration(seconds.value)} ({duration(seconds.low)} to {duration(seconds.high)})")
    spot = ", and with `labelbeam worker` on spot machines" if prices.spot else ""
    table = Table(title=f"on Dataflow{spot}, in dollars", title_justify="left")
    table.add_column("machine (* cheapest)", no_wrap=True)
    columns = ("workers", "hours", "vCPU", "memory", "GPU", "rest", "total", "range", "start", "a million")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for rank, offer in enumerate(offers):
        table.add_row(*_cells(offer, "" if rank else "* "), style=None if rank else "bold")
    console.print(table)
    print_line(
        "rest: disk and shuffle. start: the part of the total that these workers cost before they label. a million: "
        "what a million more documents cost; --documents N prices another size."
    )
    for line in prices.sources():
        print_line(line)
    if not all(offer.measured for offer in offers):
        print_line(
            "Ranges assume that other machines are as fast as this one within a factor of "
            f"{estimate.UNMEASURED_SPREAD:g}; --profile narrows them."
        )
    for speed in {offer.speed for offer in offers if not offer.measured} - {str(here)}:
        print_line(f"Machines without bf16 in hardware are assumed to be as fast as this one in fp32: {speed}.")
    unmeasured = [name for name in prices.machines if name not in {offer.bill.machine for offer in offers}]
    if unmeasured:
        print_line(
            "Not priced, because only a measurement on such a machine tells its speed (--profile): "
            f"{', '.join(unmeasured)}."
        )


def _cells(offer: "Offer", mark: str) -> list[str]:
    bill = offer.bill
    dollars = (bill.vcpu, bill.memory, bill.gpu, bill.disk + bill.shuffle, bill.total)
    return [
        mark + str(bill),
        f"{bill.workers:,}",
        f"{bill.hours:.1f}",
        *(f"{amount:,.2f}" for amount in dollars),
        f"{offer.low:,.2f}–{offer.high:,.2f}",
        f"{bill.start:,.2f}",
        f"{offer.per_million:,.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inference import actual_cost, command_line, config, cost, estimate
from inference.cost import Machine, Prices
from inference.estimate import Corpus, Offer, Profile
from inference.files import InputFile, find_files
from inference.progress import duration
from inference.run_folder import RunOptions
from models.errors import UserError, exit_code

WIDTH = 120  # of the table where it is not shown on a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Samples, measures, prices. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> command_line.Parser:
    """The parser of `inference.estimate_cost`."""
    parser = command_line.Parser(prog="python -m inference.estimate_cost", description=__doc__)
    group = parser.add_argument_group("what would run")
    group.add_argument("--model", action="append", default=[], metavar="DIR", help="trained model; may be repeated")
    group.add_argument("--input", action="append", default=[], metavar="GLOB", help="JSON lines; may be repeated")
    config.add_scoring_flags(parser)
    pricing = parser.add_argument_group("how it is estimated and priced")
    pricing.add_argument(
        "--sample_documents",
        type=command_line.positive(int),
        default=1_000,
        metavar="N",
        help="scored here (about 1000)",
    )
    pricing.add_argument(
        "--workers",
        type=command_line.positive(int),
        metavar="N",
        help=f"(as many as finish in {estimate.DEADLINE_HOURS:g} hours)",
    )
    pricing.add_argument("--prices", type=Path, default=cost.PRICES, metavar="FILE", help="(inference/prices.toml)")
    pricing.add_argument(
        "--profile",
        type=_profile,
        action="append",
        default=[],
        metavar="MACHINE=FILE",
        help="what --json wrote on such a machine; may be repeated",
    )
    pricing.add_argument("--actual", metavar="JOB_ID", help="price this job on Dataflow, which has ended")
    pricing.add_argument("--project", help="of that job")
    pricing.add_argument("--region", help="of that job")
    command_line.add_json(pricing)
    return parser


def _profile(text: str) -> tuple[str, Path]:
    machine, equals, path = text.partition("=")
    if not (machine and equals and Path(path).is_file()):
        raise argparse.ArgumentTypeError(f"expected MACHINE=FILE, a file that --json wrote, found {text!r}")
    return machine, Path(path)


def _run(argv: Sequence[str]) -> None:
    flags, options, files, prices = _checked(argv)
    paid = None
    if flags.actual:
        paid = actual_cost.bill(*actual_cost.fetch(flags.project, flags.region, flags.actual), prices)
    said: dict[str, Any] = {"actual": asdict(paid) | {"total": paid.total}} if paid else {}
    if files:
        here, corpus = estimate.measure(files, options, flags.sample_documents)
        measured = {machine: estimate.read_profile(path, here) for machine, path in flags.profile}
        others = {name: kind for name, kind in prices.machines.items() if not kind.gpu and name not in measured}
        assumed = assume(others, here, files, options, flags.sample_documents)
        offers = sorted(
            estimate.offers(prices, corpus, measured, assumed, flags.workers), key=lambda offer: offer.bill.total
        )
        said |= {"profile": here, "corpus": corpus, "seconds_here": estimate.seconds_here(here, corpus)}
        said |= {"offers": [asdict(offer) | {"total": offer.bill.total} for offer in offers]}
        if not flags.json:
            show(prices, corpus, here, offers, Console(width=None if sys.stdout.isatty() else WIDTH))
    warning = prices.warning(datetime.date.today())
    said |= {"prices": {"source": prices.source, "region": prices.region, "date": prices.date}, "warning": warning}
    if flags.json:
        command_line.print_json(said)
        return
    if paid:
        actual_cost.show(paid)
    if paid and files:
        actual_cost.show_difference(paid, offers)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def assume(
    machines: Mapping[str, Machine], here: Profile, files: Sequence[InputFile], options: RunOptions, documents: int
) -> dict[str, Profile]:
    """How fast each of these is taken to be: as this machine is, where need be measured in another way of scoring."""
    ways = {name: estimate.as_on(kind, options.scoring) for name, kind in machines.items()}
    profiles = {options.scoring: here}
    for way in set(ways.values()) - profiles.keys():
        profiles[way], _ = estimate.measure(files, replace(options, scoring=way), documents)
    return {name: profiles[way] for name, way in ways.items()}


def _checked(argv: Sequence[str]) -> tuple[argparse.Namespace, RunOptions, list[InputFile], Prices]:
    """What was asked for; no files where only the price of a job was.

    Raises:
        UserError: all problems in one message.
    """
    flags, rest = make_parser().parse_known_args(argv)
    scoring, problems = config.check_scoring(flags)
    problems += _incomplete(flags)
    problems += [f"unknown flag or argument {argument}: see --help" for argument in rest]
    files: list[InputFile] = []
    try:
        files = find_files(flags.input) if flags.input else []
    except UserError as error:
        problems.append(str(error))
    if files and not any(file.size for file in files):
        problems.append(f"--input {' '.join(flags.input)}: expected documents, found empty files only.")
    try:
        prices = cost.load_prices(flags.prices)
        problems += [
            f"--profile {name}=...: expected one of {', '.join(prices.machines)} of the prices file."
            for name, _ in flags.profile
            if name not in prices.machines
        ]
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    options = RunOptions("", config.slice_bytes(files, None), scoring, flags.id_field, flags.keep_fields)
    return flags, options, files, prices


def _incomplete(flags: argparse.Namespace) -> list[str]:
    problems = []
    if not (flags.model and flags.input) and (flags.model or flags.input or not flags.actual):
        problems.append("expected --model DIR and --input GLOB; --actual JOB_ID alone needs neither.")
    if bool(flags.actual) != bool(flags.project and flags.region):
        problems.append("--actual JOB_ID, --project and --region belong together.")
    return problems


def show(prices: Prices, corpus: Corpus, here: Profile, found: Sequence[Offer], console: Console) -> None:
    """Prints the corpus, the time here, and the offers, the cheapest first."""
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(
        f"{corpus.documents} documents, {corpus.tokens} tokens in {corpus.files:,} file{'s' * (corpus.files != 1)} "
        f"({corpus.stored_bytes / 1e9:,.3f} GB)"
    )
    say(f"sample: {here.documents:,} documents at {here}")
    takes = estimate.seconds_here(here, corpus)
    say(f"on this machine: {duration(takes.value)} ({duration(takes.low)} to {duration(takes.high)})")
    table = Table(title=f"on Dataflow, {prices.region}, prices of {prices.date}, in dollars", title_justify="left")
    table.add_column("machine (* cheapest)", no_wrap=True)
    columns = ("workers", "hours", "vCPU", "memory", "disk", "shuffle", "GPU", "total", "range", "a million")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for place, offer in enumerate(found):
        table.add_row(*_cells(offer, corpus, "" if place else "* "), style=None if place else "bold")
    console.print(table)
    if not all(offer.measured for offer in found):
        say("Ranges allow for other machines being half as fast or slow again as this one; --profile narrows them.")
    for speed in {offer.speed for offer in found if not offer.measured} - {str(here)}:
        say(f"Machines without bf16 in hardware are taken to be as fast as this one so: {speed}.")
    unmeasured = [
        name for name, kind in prices.machines.items() if kind.gpu and name not in {o.bill.machine for o in found}
    ]
    if unmeasured:
        say(f"Not priced, since a GPU's speed has to be measured on it (--profile): {', '.join(unmeasured)}.")


def _cells(offer: Offer, corpus: Corpus, mark: str) -> list[str]:
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

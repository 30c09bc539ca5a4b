"""Says what a run will take and cost, from a sample of its corpus, before anything is paid.

    python -m inference.estimate_cost --model models/trained/ai --input 'gs://bucket/corpus/*.jsonl.gz'

Pieces of the corpus are read, scored and written here as the run would do it, which gives documents, tokens and time;
prices come from a file. Another machine is taken to be as fast as this one, core for core, give or take half, unless
a profile measured on it is given: run this there with --json, and name what it wrote with --profile.

    python -m inference.estimate_cost --actual JOB_ID --project P --region R [--model DIR --input GLOB]

prices a job that has ended from what Dataflow says it used, beside the estimate where models and input are given.
"""

import argparse
import datetime
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from inference import actual_cost, config, corpus_sample, cost, sink
from inference.corpus_sample import Estimate, Sample
from inference.cost import Bill, Prices, Work
from inference.files import InputFile, compression_of, find_files
from inference.handler import SliceDocuments, score_slice
from inference.pipeline import read_options
from inference.records import Document, Documents
from inference.run_folder import RunOptions
from inference.scorer import Scorer
from inference.slices import Slice
from models import trained_model
from models.errors import UserError, exit_code

WARM_UP = 32  # documents
OTHER_MACHINE = 1.5  # how much faster or slower than here a core elsewhere may be, unless it was measured
DEADLINE_HOURS = 6.0
WIDTH = 120  # of the table where it is not shown on a terminal


@dataclass(frozen=True)
class Profile:
    """How fast one machine labels with these models."""

    models: dict[str, str]  # name: SHA-256
    runtime: str
    cores: float  # physical ones that were used
    documents: int
    tokens: int
    seconds: float  # reading, scoring and writing them
    start_seconds: float  # from the command to the first document, the models' loading included

    @property
    def core_seconds_per_token(self) -> float:
        """What makes machines comparable."""
        return self.seconds * self.cores / max(self.tokens, 1)


@dataclass(frozen=True)
class Corpus:
    """What there is to label."""

    files: int
    stored_bytes: int
    slices: int
    text_bytes: Estimate
    documents: Estimate
    tokens: Estimate  # of all models together
    expand_seconds: float  # decompression: once to count lines, and up to each slice again


@dataclass(frozen=True)
class Offer:
    """A bill with its range."""

    bill: Bill
    low: float  # dollars
    high: float
    measured: bool  # on this machine type


def main(argv: Sequence[str] | None = None) -> int:
    """Samples, measures, prices. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> config.Parser:
    """The parser of `inference.estimate_cost`."""
    parser = config.Parser(prog="python -m inference.estimate_cost", description=__doc__)
    group = parser.add_argument_group("what would run")
    group.add_argument("--model", action="append", default=[], metavar="DIR", help="trained model; may be repeated")
    group.add_argument("--input", action="append", default=[], metavar="GLOB", help="JSON lines; may be repeated")
    config.add_scoring_flags(parser)
    pricing = parser.add_argument_group("how it is estimated and priced")
    pricing.add_argument(
        "--sample_documents", type=config.positive(int), default=1_000, metavar="N", help="scored here (about 1000)"
    )
    pricing.add_argument(
        "--workers", type=config.positive(int), metavar="N", help=f"(as many as finish in {DEADLINE_HOURS:g} hours)"
    )
    pricing.add_argument("--prices", type=Path, default=cost.PRICES, metavar="FILE", help="(inference/prices.toml)")
    pricing.add_argument("--profile", type=_profile, action="append", default=[], metavar="MACHINE=FILE")
    pricing.add_argument("--actual", metavar="JOB_ID", help="price this job on Dataflow, which has ended")
    pricing.add_argument("--project", help="of that job")
    pricing.add_argument("--region", help="of that job")
    pricing.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def _profile(text: str) -> tuple[str, Profile]:
    machine, _, path = text.partition("=")
    try:
        return machine, Profile(**orjson.loads(Path(path).read_bytes())["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        raise argparse.ArgumentTypeError(f"expected MACHINE=FILE with what --json wrote, found {text!r}") from None


def _run(argv: Sequence[str]) -> None:
    flags, rest = make_parser().parse_known_args(argv)
    scoring, problems = config.check_scoring(flags)
    asked = bool(flags.model or flags.input)
    problems += _incomplete(flags)
    problems += [f"unknown flag or argument {argument}: see --help" for argument in rest]
    files = (_or_problem(problems, lambda: find_files(flags.input)) or []) if asked else []
    prices = _or_problem(problems, lambda: cost.load_prices(flags.prices))
    if files and not any(file.size for file in files):
        problems.append(f"--input {' '.join(flags.input)}: expected documents, found empty files only.")
    if prices:
        problems += [
            f"--profile {name}=...: expected one of {', '.join(prices.machines)} of the prices file."
            for name, _ in flags.profile
            if name not in prices.machines
        ]
    if problems or prices is None:
        raise UserError("\n".join(problems))
    paid = (
        actual_cost.bill(*actual_cost.fetch(flags.project, flags.region, flags.actual), prices)
        if flags.actual
        else None
    )
    if paid and not asked:
        _show_paid(paid, flags.json)
        return
    options = RunOptions("", config.slice_bytes(files, None), scoring, flags.id_field, flags.keep_fields)
    profile, corpus = measure(files, options, flags.sample_documents)
    profiles = {machine: _same_models(found, profile, machine) for machine, found in flags.profile}
    found = sorted(offers(prices, corpus, profile, profiles, flags.workers), key=lambda offer: offer.bill.total)
    warning = prices.warning(datetime.date.today())
    if flags.json:
        said = {"profile": profile, "corpus": corpus, "seconds_here": seconds_here(profile, corpus)}
        said |= {"offers": [asdict(offer) | {"total": offer.bill.total} for offer in found]}
        said |= {"actual": asdict(paid) | {"total": paid.total}} if paid else {}
        said |= {"prices": {"source": prices.source, "region": prices.region, "date": prices.date}, "warning": warning}
        print(orjson.dumps(said, option=orjson.OPT_INDENT_2).decode())
    else:
        show(prices, corpus, profile, found, Console(width=None if sys.stdout.isatty() else WIDTH))
        if paid:
            _show_paid(paid, json=False)
            _show_difference(paid, found)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)


def _incomplete(flags: argparse.Namespace) -> list[str]:
    problems = []
    if not (flags.model and flags.input) and (flags.model or flags.input or not flags.actual):
        problems.append("expected --model DIR and --input GLOB; --actual JOB_ID alone needs neither.")
    if bool(flags.actual) != bool(flags.project and flags.region):
        problems.append("--actual JOB_ID, --project and --region belong together.")
    return problems


def _show_paid(paid: Bill, json: bool) -> None:
    """Prints what a job has cost."""
    if json:
        print(orjson.dumps({"actual": asdict(paid) | {"total": paid.total}}, option=orjson.OPT_INDENT_2).decode())
        return
    parts = ", ".join(f"{name} {getattr(paid, name):,.2f}" for name in ("vcpu", "memory", "disk", "shuffle", "gpu"))
    print(
        f"actual: ${paid.total:,.2f} ({parts}) on {paid.workers:,} workers {paid.machine}"
        f"{', FlexRS' if paid.flexrs else ''}, {paid.hours:.1f} hours"
    )


def _show_difference(paid: Bill, found: Sequence[Offer]) -> None:
    """Sets the actual price beside the estimate for the same machine type."""
    same = [o for o in found if o.bill.machine.split("+")[0] == paid.machine and o.bill.flexrs == paid.flexrs]
    for offer in same[:1]:
        within = "within" if offer.low <= paid.total <= offer.high else "outside of"
        share = (paid.total / offer.bill.total - 1) * 100 if offer.bill.total else 0.0
        dollars = f"${offer.low:,.2f} to ${offer.high:,.2f}"
        print(f"estimate: ${offer.bill.total:,.2f}; actual {share:+.0f} %, {within} {dollars}")


def _or_problem(problems: list[str], check: Callable[[], Any]) -> Any:
    try:
        return check()
    except UserError as error:
        problems.append(str(error))
        return None


def _same_models(found: Profile, here: Profile, machine: str) -> Profile:
    if found.models != here.models:
        raise UserError(
            f"--profile {machine}=...: expected a profile of the models {', '.join(here.models)} as they are now, "
            f"found one of {', '.join(found.models)}, or of other weights; measure again there."
        )
    return found


def measure(files: Sequence[InputFile], options: RunOptions, documents: int) -> tuple[Profile, Corpus]:
    """Reads, scores and writes pieces of the corpus; what that took, and what it says of the whole."""
    scorer = Scorer(options.scoring)
    start_seconds = _age_of_process()
    sample = corpus_sample.read(files, read_options(options), documents)
    read = [document for piece in sample.pieces for document in piece.documents]
    if not read:
        raise UserError("no document of the sample could be read: check --text_fields and --id_field.")
    scorer.score(read[:: max(len(read) // WARM_UP, 1)])
    tokens = [scorer.count_tokens(piece.documents) for piece in sample.pieces]
    manifests = zip(options.model_names, options.scoring.directories(), strict=True)
    profile = Profile(
        models={name: trained_model.fingerprint(directory) for name, directory in manifests},
        runtime=str(scorer.runtime),
        cores=scorer.runtime.threads / _threads_per_core(),
        documents=len(read),
        tokens=sum(tokens),
        seconds=sample.read_seconds + _label(read, options, scorer),
        start_seconds=start_seconds,
    )
    return profile, _corpus(files, sample, tokens, options.slice_bytes)


def _label(documents: list[Document], options: RunOptions, scorer: Scorer) -> float:
    """Seconds to score and write the documents as one slice."""
    began = time.perf_counter()
    piece = Slice(InputFile("sample", 0), 0, 0, 1, len(documents), 0)
    read = Documents(lines=len(documents), documents=documents)
    scored = score_slice(SliceDocuments(piece, read, time.time()), scorer)
    with tempfile.TemporaryDirectory(prefix="labelbeam_") as folder:
        sink.write_slice(scored, replace(options, output=folder).sink())
    return time.perf_counter() - began


def _corpus(files: Sequence[InputFile], sample: Sample, tokens: Sequence[int], slice_bytes: int) -> Corpus:
    compressed = [file for file in files if compression_of(file.path)]
    plain = [file for file in files if not compression_of(file.path)]
    plain_bytes = sum(file.size for file in plain)
    stored = sum(file.size for file in compressed)
    growth = (sample.text_bytes.value - plain_bytes) / max(stored, 1)
    slices = sum(math.ceil(file.size / slice_bytes) for file in plain)
    expanded = 0.0  # bytes of text: once to count lines, and for each slice from the file's start
    for file in compressed:
        count = math.ceil(file.size * growth / slice_bytes)
        slices += count
        expanded += file.size * growth * (1 + (count + 1) / 2)
    return Corpus(
        files=len(files),
        stored_bytes=plain_bytes + stored,
        slices=slices,
        text_bytes=sample.text_bytes,
        documents=sample.whole([len(piece.documents) for piece in sample.pieces]),
        tokens=sample.whole(tokens),
        expand_seconds=sample.expand_seconds * expanded,
    )


def seconds_here(profile: Profile, corpus: Corpus) -> Estimate:
    """How long the run takes on this machine, start-up included."""

    def seconds(tokens: float) -> float:
        return profile.start_seconds + corpus.expand_seconds + profile.seconds * tokens / max(profile.tokens, 1)

    return Estimate(*(seconds(tokens) for tokens in (corpus.tokens.value, corpus.tokens.low, corpus.tokens.high)))


def offers(
    prices: Prices, corpus: Corpus, here: Profile, profiles: dict[str, Profile], workers: int | None
) -> Iterator[Offer]:
    """A bill for each machine type, standard and FlexRS; one with a GPU only where it was measured."""
    for machine, kind in prices.machines.items():
        if kind.gpu and machine not in profiles:
            continue
        profile, spread = profiles.get(machine, here), 1.0 if machine in profiles else OTHER_MACHINE
        for flexrs in (False,) if kind.gpu else (False, True):
            yield offer(prices, corpus, profile, machine, workers, flexrs=flexrs, spread=spread)


def offer(  # noqa: PLR0913  (each is a choice of the user's)
    prices: Prices, corpus: Corpus, profile: Profile, machine: str, workers: int | None, *, flexrs: bool, spread: float
) -> Offer:
    """A bill and its range: `spread` is how much faster or slower than measured the machine may be."""
    work = _work(corpus, profile, corpus.tokens.value)
    count = workers or cost.workers_for(work, prices.machines[machine], DEADLINE_HOURS)
    low, high = (
        cost.bill(prices, machine, count, _work(corpus, profile, tokens * factor), flexrs=flexrs).total
        for tokens, factor in ((corpus.tokens.low, 1 / spread), (corpus.tokens.high, spread))
    )
    return Offer(cost.bill(prices, machine, count, work, flexrs=flexrs), low, high, measured=spread == 1.0)


def _work(corpus: Corpus, profile: Profile, tokens: float) -> Work:
    seconds = profile.core_seconds_per_token * tokens + corpus.expand_seconds
    return Work(corpus.documents.value, corpus.slices, seconds)


def _age_of_process() -> float:
    """Seconds since this process began, as Linux tells it; elsewhere the processor time it has used."""
    try:
        began = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except OSError:
        return time.process_time()


def _threads_per_core() -> int:
    """How many of the operating system's processors share a core; 1 where it cannot be told."""
    try:
        siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").read_text()
    except OSError:
        return 1
    return 2 if any(mark in siblings for mark in ",-") else 1


def show(prices: Prices, corpus: Corpus, profile: Profile, found: Sequence[Offer], console: Console) -> None:
    """Prints the corpus, the time here, and the offers, the cheapest first."""
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(
        f"{about(corpus.documents)} documents, {about(corpus.tokens)} tokens in {corpus.files:,} files "
        f"({corpus.stored_bytes / 1e9:,.3f} GB)"
    )
    here = seconds_here(profile, corpus)
    say(
        f"sample: {profile.documents:,} documents at {profile.documents / profile.seconds:.1f} docs/s, "
        f"{profile.runtime}\non this machine: {duration(here.value)} ({duration(here.low)} to {duration(here.high)})"
    )
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


def about(estimate: Estimate) -> str:
    """An estimate with its interval."""
    if estimate.low == estimate.high:
        return f"{estimate.value:,.0f}"
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f})"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    sys.exit(main())

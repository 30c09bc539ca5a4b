"""Plans a run: measures a sample of its corpus, shows time and cost, and compares the cost with --max_cost."""

import datetime
from dataclasses import dataclass, replace
from pathlib import Path

from apache_beam.options.pipeline_options import WorkerOptions
from rich.console import Console

from inference.checks import CheckedRun
from inference.corpus import slices
from inference.cost import estimate, pricing
from inference.cost import profile as profiles
from inference.cost.estimate import Corpus, Offer
from inference.cost.pricing import Machine, Rate
from inference.cost.profile import Profile
from inference.cost.sample import Estimate
from inference.dataflow import launch, workers
from inference.dataflow.launch import Job, Setting
from inference.runs.progress import duration
from inference.scoring import model_files, runtimes
from inference.scoring.options import ScoringOptions
from models.errors import UserError

SAMPLE_DOCUMENTS = 300
UNMEASURED_WORKERS = 20  # largest number of workers whose speed is unknown, so that a mistake stays small


@dataclass(frozen=True)
class Plan:
    """The expected size, time and cost of a run."""

    files: str  # number and total size of the input files
    unknown: str = ""  # reason why only the files are known
    corpus: Corpus | None = None  # size of the corpus
    profile: Profile | None = None  # speed of the machine that labels
    seconds: Estimate | None = None  # time of a run on this machine
    offer: Offer | None = None  # cost of a job on Dataflow
    prices: str = ""  # date and source of the prices
    workers: tuple[Setting, ...] = ()  # numbers of workers that the user did not give


def show_settings(checked: CheckedRun, console: Console) -> None:
    """Print the settings of a job with their reasons, and a warning if the prices are old."""
    if checked.job:
        _print(console, *checked.job.settings)
        if warning := checked.job.prices.warning(datetime.date.today()):
            _print(console, f"warning: {warning}")


def measure(checked: CheckedRun) -> Plan:
    """Score a sample of the corpus on this machine and estimate time or cost of the whole. Submit nothing."""
    files = _files(checked)
    if checked.job is None:
        profile, corpus = estimate.measure(checked.files, checked.options, SAMPLE_DOCUMENTS)
        return Plan(files, corpus=corpus, profile=profile, seconds=estimate.seconds_here(profile, corpus))
    prices = checked.job.prices
    try:
        machine = _machine(checked.job, checked.profile)
        scoring = _scoring_here(checked, checked.job)
    except UserError as error:
        return Plan(files, unknown=str(error), workers=_unmeasured_workers(checked))
    profile, corpus, spread = _measure_for(prices.machines[machine], checked, checked.job, scoring)
    given = _given_workers(checked)
    rate: Rate = "FlexRS" if checked.job.flexrs else "standard"
    offer = estimate.offer(prices, corpus, profile, (machine, rate, given), spread)
    reason = f"enough to finish in {pricing.DEADLINE_HOURS:g} hours, and at most one a slice"
    chosen = _workers(checked, offer.bill.workers, reason)
    return Plan(files, corpus=corpus, profile=profile, offer=offer, prices=prices.sources()[0], workers=chosen)


def _given_workers(checked: CheckedRun) -> int | None:
    worker = checked.beam_options.view_as(WorkerOptions)
    return worker.max_num_workers or worker.num_workers


def _unmeasured_workers(checked: CheckedRun) -> tuple[Setting, ...]:
    """Return the numbers of workers for a job whose workers' speed is unknown."""
    most = _given_workers(checked) or UNMEASURED_WORKERS
    count = max(min(slices.expected(checked.files, checked.options.slice_bytes), most), 1)
    reason = f"at most one a slice, and {UNMEASURED_WORKERS} while a worker's speed is unknown"
    return _workers(checked, count, reason)


def _workers(checked: CheckedRun, count: int, reason: str) -> tuple[Setting, ...]:
    """Return the largest and the first number of workers as settings, where the user gave none."""
    worker = checked.beam_options.view_as(WorkerOptions)
    settings = []
    if not worker.max_num_workers:
        most = Setting("max_num_workers", worker.num_workers, "those of --num_workers, and none are added")
        settings.append(most if worker.num_workers else Setting("max_num_workers", count, reason))
    if not worker.num_workers:
        settings.append(Setting("num_workers", count, "all of them from the start, as an estimate assumes"))
    return tuple(settings)


def show(plan: Plan, console: Console) -> None:
    """Print files, slices, documents and speed, and the time on this machine or the cost of the job."""
    corpus, offer = plan.corpus, plan.offer
    if corpus is None:
        _print(console, f"{plan.files}; the cost is unknown: {plan.unknown}", *plan.workers)
        return
    count = f"{corpus.slices:,} slice{'s' * (corpus.slices != 1)}"
    _print(console, f"{plan.files}: {corpus.documents} documents, {count}, {corpus.tokens} tokens")
    if plan.seconds and plan.profile:
        _print(console, f"{plan.profile.runtime}, on this machine: {duration(plan.seconds.value)}")
    if offer is None:
        return
    _print(
        console,
        f"measured: {plan.profile}",
        *plan.workers,
        f"estimate: ${offer.bill.total:,.2f} (${offer.low:,.2f} to ${offer.high:,.2f}), {offer.bill.hours:.1f} hours "
        f"with at most {offer.bill.workers:,} worker{'s' * (offer.bill.workers != 1)}, whose start costs "
        f"${offer.bill.start:,.2f} of it; for other machines see python -m inference.estimate_cost --help",
        plan.prices,
    )


def apply_limits(plan: Plan, checked: CheckedRun) -> None:
    """Set the numbers of workers if the user did not, and refuse a job that may cost more than --max_cost.

    Raises:
        UserError: the job may cost more, or its cost is unknown.
    """
    worker = checked.beam_options.view_as(WorkerOptions)
    for setting in plan.workers:
        setattr(worker, setting.flag, setting.value)
    if checked.max_cost is None:
        return
    if plan.offer is None:
        raise UserError(f"--max_cost {checked.max_cost:g}: the cost cannot be estimated: {plan.unknown}")
    if plan.offer.high > checked.max_cost:
        raise UserError(
            f"the job may cost ${plan.offer.high:,.2f}, more than --max_cost {checked.max_cost:g}: raise it, label "
            "fewer lines with --limit, or use --flexrs_goal COST_OPTIMIZED."
        )


def _machine(job: Job, profile: Path | None) -> str:
    """Return the name of the job's machine type in the prices file.

    Raises:
        UserError: the file does not have the machine type, or its speed is unknown.
    """
    if job.gpu and not profile:
        raise UserError(
            "a GPU's speed has to be measured on it; run python -m inference.estimate_cost --json there, and pass its "
            "output with --profile."
        )
    if job.gpu and job.gpu not in job.prices.gpu_hour:
        raise UserError(f"the prices file has no GPU {job.gpu}; add its price to gpu_hour in a file for --prices.")
    machine = job.prices.find(job.machine_type, job.gpu)
    if machine is None:
        gpu = f" with {job.gpu}" if job.gpu else ""
        raise UserError(
            f"the prices file has no machine type {job.machine_type}{gpu}; take one that it names or a custom one, or "
            "add it to a file for --prices."
        )
    return machine


def _scoring_here(checked: CheckedRun, job: Job) -> ScoringOptions:
    """Return the options with which this machine measures what the workers will compute.

    Raises:
        UserError: a model cannot be read here, or this machine lacks the runtime.
    """
    models = launch.models_here(checked.options.scoring, job.image)
    scoring = replace(checked.options.scoring, models=models, device="cpu")
    if job.gpu:  # this machine only reads and counts, and need not compute as a GPU does
        return replace(scoring, runtime="auto", precision="auto")
    if scoring.runtime == "auto" and job.image.torch and "openvino" not in job.image.runtimes:
        scoring = replace(scoring, runtime="torch")  # which the workers will choose
    try:
        runtimes.choose(scoring.runtime, scoring.precision, scoring.device)
    except UserError as error:
        raise UserError(f"the speed of a worker cannot be measured on this machine: {error}") from None
    return scoring


def _measure_for(
    machine: Machine, checked: CheckedRun, job: Job, scoring: ScoringOptions
) -> tuple[Profile, Corpus, float]:
    """Return the speed of a worker, the size of the corpus, and the factor by which the speed may be wrong.

    Raises:
        UserError: a model does not fit --precision or --max_tokens, or --profile was measured with other models, on
            another device, or in another runtime or precision.
    """
    asked = checked.options.scoring
    for directory in scoring.models:
        model_files.check(directory, asked.precision, asked.max_tokens)
    options = replace(checked.options, scoring=estimate.equivalent_scoring(machine, scoring))
    here, corpus = estimate.measure(checked.files, options, SAMPLE_DOCUMENTS)
    if checked.profile:
        on_worker = workers.expected(asked, job.image, job.prices, job.machine_type, job.gpu)
        return profiles.read(checked.profile, here, machine, on_worker), corpus, 1.0
    return here, corpus, estimate.UNMEASURED_SPREAD


def _files(checked: CheckedRun) -> str:
    size = sum(file.size for file in checked.files)
    count = len(checked.files)
    return f"{count:,} file{'s' * (count != 1)}, {size / 1e6:,.1f} MB"


def _print(console: Console, *lines: object) -> None:
    for line in lines:
        console.print(str(line), soft_wrap=True)

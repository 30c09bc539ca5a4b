"""What a run would do, take and cost, from a sample of its corpus: measured, shown and held against --max_cost."""

import datetime
from dataclasses import dataclass, replace
from pathlib import Path

from apache_beam.options.pipeline_options import WorkerOptions
from rich.console import Console

from inference.checks import CheckedRun
from inference.cost import estimate, pricing
from inference.cost.estimate import Corpus, Offer, Profile
from inference.cost.pricing import Machine, Prices
from inference.cost.sample import Estimate
from inference.dataflow import launch
from inference.dataflow.launch import Job, Setting
from inference.runs.progress import duration
from inference.scoring import model_files
from models.errors import UserError

SAMPLE_DOCUMENTS = 300


@dataclass(frozen=True)
class Plan:
    """What was measured. `unknown` says why there is nothing but the files' sizes."""

    files: str  # how many and how large
    unknown: str = ""
    corpus: Corpus | None = None
    profile: Profile | None = None
    seconds: Estimate | None = None  # on this machine, if the run is here
    offer: Offer | None = None  # if it is a job
    workers: Setting | None = None  # the cap of workers, if the user set none


def show_settings(checked: CheckedRun, console: Console) -> None:
    """Print the settings of a job with their reasons, before anything is measured."""
    if checked.job:
        _say(console, *checked.job.settings)
        if warning := pricing.load_prices().warning(datetime.date.today()):
            _say(console, f"warning: {warning}")


def measure(checked: CheckedRun) -> Plan:
    """Score a sample of the corpus here and price the whole of it. Nothing is run or submitted."""
    files = _files(checked)
    if checked.job is None:
        profile, corpus = estimate.measure(checked.files, checked.options, SAMPLE_DOCUMENTS)
        return Plan(files, corpus=corpus, profile=profile, seconds=estimate.seconds_here(profile, corpus))
    prices = pricing.load_prices()
    try:
        machine = _machine(prices, checked.job, checked.profile)
        models = launch.models_here(checked.options.scoring.models, checked.job.image)
    except UserError as error:
        return Plan(files, unknown=str(error))
    profile, corpus, spread = _measure_for(prices.machines[machine], checked, models)
    worker = checked.beam_options.view_as(WorkerOptions)
    asked = worker.max_num_workers or worker.num_workers
    offer = estimate.offer(prices, corpus, profile, machine, asked, flexrs=checked.job.flexrs, spread=spread)
    reason = f"as many as finish in {pricing.DEADLINE_HOURS:g} hours"
    workers = None if asked else Setting("max_num_workers", offer.bill.workers, reason)
    return Plan(files, corpus=corpus, profile=profile, offer=offer, workers=workers)


def show(plan: Plan, console: Console) -> None:
    """Print files, slices, documents, speed, and the time here or the price of the job."""
    corpus, offer = plan.corpus, plan.offer
    if corpus is None:
        _say(console, f"{plan.files}; what it will cost is not known: {plan.unknown}")
        return
    slices = f"{corpus.slices:,} slice{'s' * (corpus.slices != 1)}"
    _say(console, f"{plan.files}: {corpus.documents} documents, {slices}, {corpus.tokens} tokens")
    if plan.seconds and plan.profile:
        _say(console, f"{plan.profile.runtime}, on this machine: {duration(plan.seconds.value)}")
    if offer is None:
        return
    _say(console, f"measured: {plan.profile}")
    if plan.workers:
        _say(console, plan.workers)
    _say(
        console,
        f"estimate: ${offer.bill.total:,.2f} (${offer.low:,.2f} to ${offer.high:,.2f}), {offer.bill.hours:.1f} hours "
        f"with at most {offer.bill.workers:,} at work; with other machines: python -m inference.estimate_cost --help",
    )


def limit(plan: Plan, checked: CheckedRun) -> None:
    """Cap the workers if the user did not, and refuse a job that may cost more than --max_cost.

    Raises:
        UserError: it may cost more, or what it costs is not known.
    """
    if plan.workers:
        checked.beam_options.view_as(WorkerOptions).max_num_workers = plan.workers.value
    if checked.max_cost is None:
        return
    if plan.offer is None:
        raise UserError(f"--max_cost {checked.max_cost:g}: the cost cannot be estimated: {plan.unknown}")
    if plan.offer.high > checked.max_cost:
        raise UserError(
            f"the job may cost ${plan.offer.high:,.2f}, more than --max_cost {checked.max_cost:g}: raise it, label "
            "less with --limit, or take --flexrs_goal COST_OPTIMIZED."
        )


def _machine(prices: Prices, job: Job, profile: Path | None) -> str:
    """Return the name that the prices give the job's machine type.

    Raises:
        UserError: they do not have it, or its speed is not known.
    """
    if job.gpu and not profile:
        raise UserError(
            "a GPU's speed has to be measured on it; run python -m inference.estimate_cost --json there, and name what "
            "it wrote with --profile."
        )
    machine = prices.find(job.machine_type, job.gpu)
    if machine is None:
        gpu = f" with {job.gpu}" if job.gpu else ""
        raise UserError(f"{pricing.PRICES.name} has no machine type {job.machine_type}{gpu}.")
    return machine


def _measure_for(machine: Machine, checked: CheckedRun, models: tuple[str, ...]) -> tuple[Profile, Corpus, float]:
    """Return how fast a worker will be, what there is to do, and by which factor the first may be wrong.

    Raises:
        UserError: the models cannot do what is asked for, or --profile is of others.
    """
    scoring = replace(checked.options.scoring, models=models, device="cpu")
    for directory in models:
        model_files.check(directory, scoring.precision, scoring.max_tokens)
    options = replace(checked.options, scoring=estimate.as_on(machine, scoring))
    here, corpus = estimate.measure(checked.files, options, SAMPLE_DOCUMENTS)
    if checked.profile:
        return estimate.read_profile(checked.profile, here), corpus, 1.0
    return here, corpus, estimate.OTHER_MACHINE


def _files(checked: CheckedRun) -> str:
    size = sum(file.size for file in checked.files)
    count = len(checked.files)
    return f"{count:,} file{'s' * (count != 1)}, {size / 1e6:,.1f} MB"


def _say(console: Console, *lines: object) -> None:
    for line in lines:
        console.print(str(line), highlight=False, soft_wrap=True, markup=False)

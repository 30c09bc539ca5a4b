"""What a run would do, take and cost, from a sample of its corpus; nothing is run or submitted."""

import datetime
from dataclasses import replace
from pathlib import Path

from apache_beam.options.pipeline_options import WorkerOptions
from rich.console import Console

from inference import config, cost, estimate, launch
from inference.config import Command
from inference.cost import Machine, Prices
from inference.estimate import Corpus, Offer, Profile
from inference.launch import Launch, Setting
from inference.progress import duration
from models.errors import UserError

SAMPLE_DOCUMENTS = 300


def show(command: Command, console: Console) -> Offer | None:
    """Prints files, slices, documents, time or price; on Dataflow the settings with their reasons.

    The number of workers is set where the user did not. Returns what a job will cost, where that is known.

    Raises:
        UserError: the estimate is above --max_cost, or was asked for and cannot be made.
    """
    job = command.launch
    if job is None:
        _show_time(command, console)
        return None
    _say(console, *job.settings)
    prices = cost.load_prices()
    if warning := prices.warning(datetime.date.today()):
        _say(console, f"warning: {warning}")
    try:
        machine = _machine(prices, job, command.profile)
        models = launch.models_here(command.options.scoring.models, job.image)
    except UserError as error:
        _say(console, f"{_files(command)}; what it will cost is not known: {error}")
        if command.max_cost is not None:
            raise UserError(f"--max_cost {command.max_cost:g}: the cost cannot be estimated: {error}") from None
        return None
    profile, corpus, spread = _measure(command, models, prices.machines[machine])
    _say(console, _corpus(command, corpus), f"measured: {profile}")
    worker = command.beam.view_as(WorkerOptions)
    workers = worker.max_num_workers or worker.num_workers
    offer = estimate.offer(prices, corpus, profile, machine, workers, flexrs=job.flexrs, spread=spread)
    if not workers:
        worker.max_num_workers = offer.bill.workers
        reason = f"as many as finish in {estimate.DEADLINE_HOURS:g} hours"
        _say(console, Setting("max_num_workers", offer.bill.workers, reason))
    _show_price(offer, command.max_cost, console)
    return offer


def _show_price(offer: Offer, max_cost: float | None, console: Console) -> None:
    _say(
        console,
        f"estimate: ${offer.bill.total:,.2f} (${offer.low:,.2f} to ${offer.high:,.2f}), {offer.bill.hours:.1f} hours "
        f"with at most {offer.bill.workers:,} at work; with other machines: python -m inference.estimate_cost --help",
    )
    if max_cost is not None and offer.high > max_cost:
        raise UserError(
            f"the job may cost ${offer.high:,.2f}, more than --max_cost {max_cost:g}: raise it, label less "
            "with --limit, or take --flexrs_goal COST_OPTIMIZED."
        )


def _show_time(command: Command, console: Console) -> None:
    profile, corpus = estimate.measure(command.files, command.options, SAMPLE_DOCUMENTS)
    _say(console, _corpus(command, corpus))
    here = estimate.seconds_here(profile, corpus)
    _say(console, f"{profile.runtime}, on this machine: {duration(here.value)}")


def _machine(prices: Prices, job: Launch, profile: Path | None) -> str:
    """The job's machine type as the prices name it.

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
        raise UserError(f"{cost.PRICES.name} has no machine type {job.machine_type}{gpu}.")
    return machine


def _measure(command: Command, models: tuple[str, ...], machine: Machine) -> tuple[Profile, Corpus, float]:
    """How fast a worker will be, what there is to do, and how far off the first may be.

    Raises:
        UserError: the models cannot do what is asked for, or --profile is of others.
    """
    scoring = replace(command.options.scoring, models=models, device="cpu")
    for directory in models:
        config.check_model(directory, scoring.precision, scoring.max_tokens)
    options = replace(command.options, scoring=estimate.as_on(machine, scoring))
    here, corpus = estimate.measure(command.files, options, SAMPLE_DOCUMENTS)
    if command.profile:
        return estimate.read_profile(command.profile, here), corpus, 1.0
    return here, corpus, estimate.OTHER_MACHINE


def _corpus(command: Command, corpus: Corpus) -> str:
    slices = f"{corpus.slices:,} slice{'s' * (corpus.slices != 1)}"
    return f"{_files(command)}: {corpus.documents} documents, {slices}, {corpus.tokens} tokens"


def _files(command: Command) -> str:
    size = sum(file.size for file in command.files)
    count = len(command.files)
    return f"{count:,} file{'s' * (count != 1)}, {size / 1e6:,.1f} MB"


def _say(console: Console, *lines: object) -> None:
    for line in lines:
        console.print(str(line), highlight=False, soft_wrap=True, markup=False)

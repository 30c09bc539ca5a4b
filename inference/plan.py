"""What a run would do, take and cost, from a sample of its corpus; nothing is run or submitted."""

import datetime
from dataclasses import replace

from apache_beam.options.pipeline_options import WorkerOptions
from rich.console import Console

from inference import cost, estimate, launch
from inference.config import Command
from inference.cost import Prices
from inference.estimate import Corpus, Offer, Profile
from inference.launch import Launch, Setting
from models.errors import UserError

SAMPLE_DOCUMENTS = 300


def show(command: Command, console: Console) -> None:
    """Prints files, slices, documents, time or price; on Dataflow the settings with their reasons.

    The number of workers is set where the user did not.

    Raises:
        UserError: the estimate is above --max_cost, or was asked for and cannot be made.
    """
    job = command.launch
    if job is None:
        _show_time(command, console)
        return
    _say(console, *job.settings)
    prices = cost.load_prices()
    if warning := prices.warning(datetime.date.today()):
        _say(console, f"warning: {warning}")
    try:
        offer = _offer(command, job, prices, console)
    except UserError as error:
        _say(console, f"{_files(command)}; what it will cost is not known: {error}")
        if command.max_cost is not None:
            raise UserError(f"--max_cost {command.max_cost:g}: the cost cannot be estimated: {error}") from None
        return
    _say(
        console,
        f"estimate: ${offer.bill.total:,.2f} (${offer.low:,.2f} to ${offer.high:,.2f}), {offer.bill.hours:.1f} hours "
        f"with at most {offer.bill.workers:,} at work; with other machines: python -m inference.estimate_cost --help",
    )
    if command.max_cost is not None and offer.high > command.max_cost:
        raise UserError(
            f"the job may cost ${offer.high:,.2f}, more than --max_cost {command.max_cost:g}: raise it, label less "
            "with --limit, or take --flexrs_goal COST_OPTIMIZED."
        )


def _show_time(command: Command, console: Console) -> None:
    profile, corpus = estimate.measure(command.files, command.options, SAMPLE_DOCUMENTS)
    _say(console, _corpus(command, corpus))
    here = estimate.seconds_here(profile, corpus)
    _say(console, f"{profile.runtime}, on this machine: {estimate.duration(here.value)}")


def _offer(command: Command, job: Launch, prices: Prices, console: Console) -> Offer:
    """What the job will cost, with the workers that it was given, or as many as it needs.

    Raises:
        UserError: it cannot be known here.
    """
    machine = prices.find(job.machine_type, job.gpu)
    if job.gpu:
        raise UserError("a GPU's speed has to be measured on it, with python -m inference.estimate_cost --json.")
    if machine is None:
        raise UserError(f"{cost.PRICES.name} has no machine type {job.machine_type}.")
    profile, corpus = _measure(command, job)
    _say(console, _corpus(command, corpus))
    worker = command.beam.view_as(WorkerOptions)
    workers = worker.max_num_workers or worker.num_workers
    offer = estimate.offer(prices, corpus, profile, machine, workers, flexrs=job.flexrs, spread=estimate.OTHER_MACHINE)
    if not workers:
        worker.max_num_workers = offer.bill.workers
        reason = f"as many as finish in {estimate.DEADLINE_HOURS:g} hours"
        _say(console, Setting("max_num_workers", offer.bill.workers, reason))
    return offer


def _measure(command: Command, job: Launch) -> tuple[Profile, Corpus]:
    options = command.options
    models = launch.models_here(options.scoring.models, job.image)
    options = replace(options, scoring=replace(options.scoring, models=models, device="cpu"))
    return estimate.measure(command.files, options, SAMPLE_DOCUMENTS)


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

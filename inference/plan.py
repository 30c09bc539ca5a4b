"""What a run would do, take and cost, from a sample of its corpus; nothing is run or submitted."""

import datetime
from dataclasses import replace

from apache_beam.options.pipeline_options import WorkerOptions
from rich.console import Console

from inference import cost, estimate_cost
from inference.config import Command
from inference.estimate_cost import Corpus, Offer, Profile
from inference.launch import Launch, Setting
from models.errors import UserError

SAMPLE_DOCUMENTS = 300


def show(command: Command, console: Console) -> None:
    """Prints files, slices, documents, time or price; on Dataflow the settings with their reasons.

    The number of workers is set where the user did not.

    Raises:
        UserError: the estimate is above --max_cost, or was asked for and cannot be made.
    """
    launch = command.launch
    if launch:
        _say(console, *launch.settings)
    measured = _measure(command)
    if measured is None:
        _say(console, f"{_files(command)}; what it will cost is not known: {_why_unknown(launch)}.")
        if command.max_cost is not None:
            raise UserError(f"--max_cost {command.max_cost:g}: the cost cannot be estimated: {_why_unknown(launch)}.")
        return
    profile, corpus = measured
    documents, tokens = estimate_cost.about(corpus.documents), estimate_cost.about(corpus.tokens)
    slices = f"{corpus.slices:,} slice{'s' * (corpus.slices != 1)}"
    _say(console, f"{_files(command)}: {documents} documents, {slices}, {tokens} tokens")
    if launch is None:
        here = estimate_cost.seconds_here(profile, corpus)
        _say(console, f"{profile.runtime}, on this machine: {estimate_cost.duration(here.value)}")
        return
    offer = _offer(command, launch, profile, corpus, console)
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


def _measure(command: Command) -> tuple[Profile, Corpus] | None:
    options, launch = command.options, command.launch
    if launch:
        if launch.local_models is None or launch.machine not in cost.load_prices().machines or launch.gpu:
            return None
        scoring = replace(options.scoring, models=launch.local_models, device="cpu")
        options = replace(options, scoring=scoring)
    return estimate_cost.measure(command.files, options, SAMPLE_DOCUMENTS)


def _why_unknown(launch: Launch | None) -> str:
    if launch and launch.local_models is None:
        return "no model can be read on this machine; pull the image, or name models in gs://"
    if launch and launch.gpu:
        return "a GPU's speed has to be measured on it, with python -m inference.estimate_cost --json"
    return f"{cost.PRICES.name} has no machine type {launch.machine if launch else ''}"


def _offer(command: Command, launch: Launch, profile: Profile, corpus: Corpus, console: Console) -> Offer:
    prices = cost.load_prices()
    if warning := prices.warning(datetime.date.today()):
        _say(console, f"warning: {warning}")
    worker = command.beam.view_as(WorkerOptions)
    workers = worker.max_num_workers or worker.num_workers
    offer = estimate_cost.offer(
        prices, corpus, profile, launch.machine, workers, flexrs=launch.flexrs, spread=estimate_cost.OTHER_MACHINE
    )
    if not workers:
        worker.max_num_workers = offer.bill.workers
        reason = f"as many as finish in {estimate_cost.DEADLINE_HOURS:g} hours"
        _say(console, Setting("max_num_workers", offer.bill.workers, reason))
    return offer


def _files(command: Command) -> str:
    size = sum(file.size for file in command.files)
    count = len(command.files)
    return f"{count:,} file{'s' * (count != 1)}, {size / 1e6:,.1f} MB"


def _say(console: Console, *lines: object) -> None:
    for line in lines:
        console.print(str(line), highlight=False, soft_wrap=True, markup=False)

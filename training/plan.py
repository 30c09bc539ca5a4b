"""Says what a training would take before it starts: time, memory and disk, from some of its own updates."""

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from models import hardware
from models import network as networks
from training import base_model, data_splits, fit
from training.jobs import Job
from training.terminal import counted
from training.token_file import TokenFile

UPDATES = 16  # updates that are made to learn their speed
SECONDS = 120.0  # time after which no further update is made
FORWARD = 1 / 3  # share of an update that computes the scores, which an evaluation does too (two more for gradients)
KEPT = 2  # checkpoints that a training keeps
COPIES = 3  # of each weight in a checkpoint: itself, and the two moments of AdamW


@dataclass(frozen=True)
class Plan:
    """What one training takes."""

    documents: int
    tokens: int  # computed in an epoch, padding included
    padding: float  # share of these
    updates: int  # in all epochs
    seconds: float  # of all updates
    evaluations: int
    evaluation_seconds: float  # of all evaluations
    memory_mib: int  # most memory of the process so far
    gpu_memory_mib: int | None
    disk_mib: int  # of checkpoints and token files during the training
    model_mib: int  # of the state dict
    measured: int  # updates that were timed


class _EnoughError(Exception):
    """The updates that were wanted have been made."""


class _Stopwatch(TrainerCallback):
    """Times updates, and ends the training after some. The first update warms up and is not counted."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._began = self._step_began = time.monotonic()

    @property
    def seconds(self) -> list[float]:
        """The times of all updates but the first."""
        return self._times[1:]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note when an update began."""
        self._step_began = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count an update."""
        now = time.monotonic()
        self._times.append(now - self._step_began)
        if len(self.seconds) == UPDATES or now - self._began > SECONDS:
            raise _EnoughError


def measure(job: Job) -> Plan:
    """Make some updates of a job, and return what all of it takes. Nothing is written.

    Batches come in the order of the training, in which the longest text is first. So the memory is that of the largest
    batch. Time is taken to grow with the tokens of a batch.

    Raises:
        UserError: the base model cannot be trained.
    """
    config = job.config
    prepared = data_splits.limited(job.prepared, config)
    network = base_model.start(config, prepared.schema)
    stopwatch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        fit.fit(network, prepared, config, Path(folder) / "checkpoints", [stopwatch])
    train, validation = (
        TokenFile(part, network.tokenizer, config.text) for part in (prepared.splits.train, prepared.splits.validation)
    )
    tokens = fit.tokens_of_updates(train.lengths, config.training)
    timed = len(stopwatch.seconds)
    pace = float(np.median(stopwatch.seconds / np.resize(tokens, timed + 1)[1:]))  # seconds a token
    updates = int(len(tokens) * config.training.epochs)
    every = config.training.evaluate_every or len(tokens)
    parameters = 4 * networks.num_parameters(network.module)
    cuda = torch.cuda.is_available()
    return Plan(
        documents=len(train),
        tokens=int(tokens.sum()),
        padding=float(1 - train.lengths.sum() / tokens.sum()),
        updates=updates,
        seconds=float(pace * tokens.sum() * config.training.epochs),
        evaluations=max(updates // every, 1),
        evaluation_seconds=float(FORWARD * pace * validation.lengths.sum() * max(updates // every, 1)),
        memory_mib=hardware.peak_memory() >> 20,
        gpu_memory_mib=torch.cuda.max_memory_allocated() >> 20 if cuda else None,
        disk_mib=int(KEPT * COPIES * parameters + 4 * (train.lengths.sum() + validation.lengths.sum())) >> 20,
        model_mib=parameters >> 20,
        measured=timed,
    )


def show(plan: Plan, jobs: Sequence[Job]) -> None:
    """Print the plan of the first job, and the time of all of them, which grows with their documents."""
    share = sum(len(data_splits.limited(job.prepared, job.config).splits.train) for job in jobs) / plan.documents
    total = share * (plan.seconds + plan.evaluation_seconds)
    gpu = "" if plan.gpu_memory_mib is None else f", {plan.gpu_memory_mib:,} MiB on the GPU"
    print(f"training    {plan.documents:,} documents, {plan.tokens:,} tokens an epoch, {plan.padding:.1%} padding")
    print(f"time        {_minutes(plan.seconds)} for {counted(plan.updates, 'update')}, by {plan.measured} of them")
    print(f"            {_minutes(plan.evaluation_seconds)} for {counted(plan.evaluations, 'evaluation')}")
    if len(jobs) > 1:
        print(f"            {_minutes(total)} for {len(jobs)} models")
    print(f"memory      {plan.memory_mib:,} MiB{gpu}")
    print(f"disk        {plan.disk_mib:,} MiB while it trains, {plan.model_mib:,} MiB for the model")


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:,.0f} s"
        if seconds < 100
        else f"{seconds / 60:,.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:,.1f} h"
    )

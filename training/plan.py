"""Says what a training would take before it starts: time, memory and disk, from some of its own updates."""

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl

from models import hardware
from models import network as networks
from training import base_model, data_splits, fit
from training.jobs import Job
from training.terminal import counted
from training.token_file import TokenFile

UPDATES = 16  # updates that are made to learn their speed
SECONDS = 120.0  # time after which no further update is made
FORWARD = 1 / 3  # share of an update that computes the scores, which an evaluation does too (two more for gradients)
KEPT = 3  # checkpoints on the disk: two that a training keeps, and the one that it writes
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
    """Times updates, and ends the training after some."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.train: TokenFile | None = None  # the tokens that the training reads
        self._began = self._step_began = time.monotonic()

    def on_train_begin(self, *_: Any, train_dataloader: DataLoader[Any], **__: Any) -> None:
        """Start the time that all updates may take."""
        self.train = cast(TokenFile, train_dataloader.dataset)
        self._began = time.monotonic()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note when an update began."""
        self._step_began = time.monotonic()

    def on_step_end(self, _args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        """Count an update, and leave out what would follow it."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds.append(now - self._step_began)
        control.should_evaluate = control.should_save = False
        if len(self.seconds) > UPDATES or (len(self.seconds) > 1 and now - self._began > SECONDS):
            raise _EnoughError

    def on_epoch_end(self, _args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        """Leave out the evaluation and the checkpoint."""
        control.should_evaluate = control.should_save = False

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End a training that has few updates."""
        raise _EnoughError


def measure(job: Job) -> Plan:
    """Make some updates of a job, and return what all of it takes. Nothing is written, and no tracker hears of it.

    Batches come in the order of the training, in which the longest text is first. So the memory is that of the largest
    batch. Time is taken to grow with the tokens of a batch.

    Raises:
        UserError: the base model cannot be trained.
    """
    training = job.config.training.model_copy(update={"report_to": ()})
    config = job.config.model_copy(update={"training": training})
    prepared = data_splits.limited(job.prepared, config)
    network = base_model.start(config, prepared.schema)
    stopwatch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        fit.fit(network, prepared, config, Path(folder) / "checkpoints", [stopwatch])
    train, validation = stopwatch.train, TokenFile(prepared.splits.validation, network.tokenizer, config.text)
    assert train is not None  # the training has begun
    tokens = fit.tokens_of_updates(train, training, max(torch.cuda.device_count(), 1))
    paces = stopwatch.seconds / np.resize(tokens, len(stopwatch.seconds))  # seconds a token of each update
    pace = float(np.median(paces[1:] if len(paces) > 1 else paces))  # the first one warms up
    updates = int(len(tokens) * training.epochs)
    evaluations = max(updates // (training.evaluate_every or len(tokens)), 1)
    kept = evaluations if training.keep_epochs else KEPT
    parameters = 4 * networks.num_parameters(network.module)
    cuda = torch.cuda.is_available()
    return Plan(
        documents=len(train),
        tokens=int(tokens.sum()),
        padding=float(1 - train.lengths.sum() / tokens.sum()),
        updates=updates,
        seconds=float(pace * tokens.sum() * training.epochs),
        evaluations=evaluations,
        evaluation_seconds=float(FORWARD * pace * validation.lengths.sum() * evaluations),
        memory_mib=hardware.peak_memory() >> 20,
        gpu_memory_mib=torch.cuda.max_memory_allocated() >> 20 if cuda else None,
        disk_mib=int(kept * COPIES * parameters + 4 * (train.lengths.sum() + validation.lengths.sum())) >> 20,
        model_mib=parameters >> 20,
        measured=len(paces),
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

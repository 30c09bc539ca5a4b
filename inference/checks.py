"""Checks a run before it starts: every problem is reported in one message, and nothing is written."""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from inference.corpus import slices, storage
from inference.corpus.files import InputFile, find_files
from inference.runs import run_folder
from inference.runs.options import RunOptions
from inference.runs.progress import Loudness
from inference.scoring import model_files, runtimes
from inference.scoring.options import ScoringOptions
from inference.scoring.runtimes import Runtime
from models import trained_model
from models.arguments import refuse
from models.errors import UserError

if TYPE_CHECKING:
    from inference.dataflow.launch import Job

LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", "PrismRunner")


@dataclass(frozen=True)
class CheckedRun:
    """A run that has passed every check."""

    options: RunOptions
    files: list[InputFile]
    description: dict[str, Any]  # for run.json
    beam_options: PipelineOptions
    runtime: Runtime | None  # the runtime, if this machine scores
    overwrite: bool
    max_failure_rate: float
    job: "Job | None" = None  # the job, if the run is on Dataflow
    plan: bool = False  # say what would run, and run nothing
    max_cost: float | None = None  # dollars
    profile: Path | None = None  # the speed of the job's machine type, measured there
    wait: bool = True  # until the job has ended
    loudness: Loudness = "normal"
    json: bool = False  # the result as JSON on standard output, messages on standard error


def check(flags: argparse.Namespace, beam_flags: Sequence[str], command: str) -> CheckedRun:
    """Check everything that `inference.beam_runner` was asked for; `command` is what was typed.

    Raises:
        UserError: all problems in one message.
    """
    beam_options = storage.configure(beam_flags)
    standard = beam_options.view_as(StandardOptions)
    standard.runner = standard.runner or "DirectRunner"
    on_dataflow = standard.runner.split(".")[-1].lower() in ("dataflowrunner", "dataflow")
    scoring, problems = check_scoring(flags, here=not on_dataflow)
    files: list[InputFile] = []
    try:
        files = find_files(flags.input)
    except UserError as error:
        problems.append(str(error))
    problems += _place_problems(flags, files, beam_options)
    job = None
    if on_dataflow:
        from inference.dataflow import launch  # what it needs takes a second to load, which local runs do not wait for

        job, against = launch.prepare(beam_options, flags.model, files, flags.output, flags.accelerator)
        problems += against
    elif flags.max_cost or flags.profile or flags.accelerator or flags.no_wait:
        problems.append(
            "--max_cost, --profile, --accelerator and --no_wait are for --runner DataflowRunner; drop them."
        )
    refuse(problems)
    if flags.limit:
        files = slices.limit_lines(files, flags.limit)
    options = RunOptions(
        output=flags.output,
        slice_bytes=slices.slice_bytes(files, flags.slice_mb),
        scoring=_with_threads(scoring, beam_options),
        id_field=flags.id_field,
        keep_fields=flags.keep_fields,
        file_format=flags.format,
        limit=flags.limit,
        redact_failures=flags.redact_failures,
    )
    fingerprints = job.fingerprints if job else list(map(model_files.fingerprint, scoring.models))
    description = run_folder.describe(options, files, fingerprints, command)
    refuse(run_folder.check(description, flags.output, flags.overwrite))
    return CheckedRun(
        options=options,
        files=files,
        description=description,
        beam_options=beam_options,
        runtime=_runtime_here(options.scoring, standard.runner),
        overwrite=flags.overwrite,
        max_failure_rate=flags.max_failure_rate,
        job=job,
        plan=flags.plan,
        max_cost=flags.max_cost,
        profile=flags.profile,
        wait=not flags.no_wait,
        loudness=flags.loudness,
        json=flags.json,
    )


def check_scoring(flags: argparse.Namespace, *, here: bool = True) -> tuple[ScoringOptions, list[str]]:
    """Check models, device and fields; return the options and a sentence for each problem.

    If another machine scores (`here` is false), local models and this machine's devices are not looked at.
    """
    problems = []
    for name in dict.fromkeys(name for name in flags.model if here or storage.is_remote(name)):
        try:
            model_files.check(model_files.local(name), flags.precision, flags.max_tokens)
        except UserError as error:
            problems.append(str(error))
    try:
        if here:
            runtimes.choose(flags.runtime, flags.precision, flags.device)
    except UserError as error:
        problems.append(str(error))
    columns = ["id", *flags.keep_fields, *map(trained_model.model_name, flags.model)]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        problems.append(
            f"the output would have two columns named {', '.join(twice)}: ids, --keep_fields and the folder names of "
            "models must all differ; rename a folder or drop a field."
        )
    options = ScoringOptions(
        models=tuple(flags.model),
        runtime=flags.runtime,
        precision=flags.precision,
        device=flags.device,
        max_tokens=flags.max_tokens,
        text_fields=flags.text_fields,
        scores=flags.scores,
        threads=flags.threads,
    )
    return options, problems


def _place_problems(
    flags: argparse.Namespace, files: Sequence[InputFile], beam_options: PipelineOptions
) -> Iterator[str]:
    """Yield what is wrong with where the run reads and writes."""
    folder = _absolute(flags.output).rstrip("/") + "/"
    if inside := [file.path for file in files if _absolute(file.path).startswith(folder)]:
        yield f"--output {flags.output}: the input {inside[0]} lies in it; name a folder apart from the input."
    if problem := storage.bucket_problem(flags.output):
        yield f"--output {problem}"
    if beam_options.view_as(StandardOptions).streaming:
        yield "--streaming: a corpus is labelled by a batch job; drop the flag."


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)


def _runtime_here(options: ScoringOptions, runner: str) -> Runtime | None:
    if runner.split(".")[-1] not in LOCAL_RUNNERS:
        return None
    return runtimes.choose(options.runtime, options.precision, options.device, options.threads)


def _with_threads(options: ScoringOptions, beam_options: PipelineOptions) -> ScoringOptions:
    """Divide this machine's cores among its worker processes, so that threads never outnumber cores."""
    direct = beam_options.view_as(DirectOptions)
    if options.threads or direct.direct_running_mode != "multi_processing":
        return options
    cores = runtimes.cores()
    workers = direct.direct_num_workers or cores
    return replace(options, threads=max(cores // workers, 1))

"""Checks a run before it starts. It reports every problem in one message, and writes nothing."""

import argparse
import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from inference import engines, scoring_flags
from inference.corpus import look, slices, storage
from inference.corpus.files import InputFile, find_files
from inference.corpus.records import DocumentRecipe, Reason
from inference.engines import Engine
from inference.runs import lineage, pipeline, run_folder
from inference.runs.options import RunOptions
from inference.runs.progress import Verbosity
from inference.scoring import model_files, runtimes, work
from inference.scoring.options import ScoringOptions
from inference.scoring.runtimes import Runtime
from models import hardware
from models.arguments import refuse
from models.errors import UserError
from models.text import TextRecipe

if TYPE_CHECKING:
    from inference.dataflow.launch import Job


SLICE_SECONDS = 60.0  # work of a slice: a kill costs little, and what a slice costs by itself is little too


@dataclass(frozen=True)
class CheckedRun:
    """A run that has passed every check."""

    options: RunOptions  # options that the workers get
    files: list[InputFile]  # input files, capped by --limit
    description: dict[str, Any]  # content of run.json
    beam_options: PipelineOptions  # options of Apache Beam
    engine: Engine  # engine that runs the pipeline
    runtime: Runtime | None  # runtime on this machine; None if only other machines score
    overwrite: bool  # whether to delete the files of an earlier run
    max_failure_rate: float  # share of failed documents, and of their bytes, above which the exit code is 3
    allow_damaged_files: bool = False  # whether the exit code may be 0 although a file is damaged or holds an array
    job: "Job | None" = None  # job on Dataflow; None if another runner is used
    plan: bool = False  # whether this is a dry run
    max_cost: float | None = None  # cost in dollars above which the job is refused
    profile: Path | None = None  # file with the speed of the job's machine type, measured on it
    wait: bool = True  # whether to wait until the job ends
    resubmissions: int = 0  # times that a failed job is submitted again
    verbosity: Verbosity = "normal"  # amount of messages: quiet, normal or verbose
    json: bool = False  # whether standard output gets the result as JSON, and standard error the messages


def check(flags: argparse.Namespace, beam_flags: Sequence[str], command: str) -> CheckedRun:
    """Check the flags of `inference.beam_runner`, the models, the input and the output.

    Args:
        flags: The parsed flags of the command.
        beam_flags: Beam's flags, as they were typed.
        command: The whole command, as it was typed.

    Raises:
        UserError: has a line for each problem.
    """
    beam_options = storage.configure(beam_flags)
    try:
        engine, problems = engines.choose(beam_options, beam_flags), []
    except UserError as error:
        engine, problems = Engine("FnApiRunner", "here"), [str(error)]
    on_dataflow = engine.workers == "dataflow"
    scoring, scoring_problems = scoring_flags.check(flags, here=not on_dataflow, scores=engine.workers == "here")
    problems += scoring_problems
    files: list[InputFile] = []
    try:
        files = find_files(flags.input, flags.input_format)
    except UserError as error:
        problems.append(str(error))
    problems += _path_problems(flags, files, beam_options)
    paths = [("model", path) for path in flags.model] + [("input", file.path) for file in files[:1]]
    problems += engines.problems(engine, beam_options, [*paths, ("output", flags.output)])
    job = None
    if on_dataflow:
        from inference.dataflow import launch  # it takes a second to load, which a local run should not wait for

        job, job_problems = launch.prepare(beam_options, scoring, files, flags)
        problems += job_problems
    refuse([*problems, *_contradictions(flags, on_dataflow=on_dataflow)])
    if job and job.gpu:
        scoring = replace(scoring, device="cuda")
    delta = lineage.of_inputs(files)
    if flags.limit:
        files = slices.limit_lines(files, flags.limit)
    options = RunOptions(
        output=flags.output,
        slice_bytes=_slice_bytes(flags, files, scoring, here=not on_dataflow),
        scoring=_with_threads(scoring, beam_options),
        id_field=flags.id_field,
        keep_fields=flags.keep_fields,
        file_format=flags.format,
        limit=flags.limit,
        redact_failures=flags.redact_failures,
        retry_failures=flags.retry_failures,
    )
    refuse(look.problems(files, _recipe(options, here=not on_dataflow), max(flags.max_failure_rate, look.ALLOWED)))
    fingerprints = (
        job.fingerprints if job else [model_files.fingerprint(path, scoring.precision) for path in scoring.models]
    )
    description = run_folder.describe(options, files, fingerprints, command, delta)
    if job:
        description["versions"]["image"] = job.image.reference  # it stands for the versions of the workers
    refuse([*lineage.problems(description), *run_folder.check(description, flags.output, flags.overwrite)])
    return CheckedRun(
        options=options,
        files=files,
        description=description,
        beam_options=beam_options,
        engine=engine,
        runtime=_runtime(options.scoring) if engine.workers == "here" else None,
        resubmissions=engine.resubmissions if flags.resubmit is None else flags.resubmit,
        overwrite=flags.overwrite,
        max_failure_rate=flags.max_failure_rate,
        allow_damaged_files=flags.allow_damaged_files,
        job=job,
        plan=flags.plan,
        max_cost=flags.max_cost,
        profile=flags.profile,
        wait=not flags.no_wait,
        verbosity=flags.verbosity,
        json=flags.json,
    )


def _slice_bytes(flags: argparse.Namespace, files: Sequence[InputFile], scoring: ScoringOptions, *, here: bool) -> int:
    """Return the size of a slice: that of the flag, that of a run which is resumed, or what SLICE_SECONDS suffice for.

    If the models are not on this machine (`here` is false), the size of the corpus alone decides.
    """
    if flags.slice_mb:
        return max(int(flags.slice_mb * slices.MIB), 1)
    with contextlib.suppress(OSError):  # `run_folder.check` says what is wrong with the folder
        if not flags.overwrite and (earlier := run_folder.read(flags.output)):
            return int(earlier["options"]["slice_bytes"])
    length = slices.line_length(files)
    if not here or not length:
        return slices.slice_bytes(files)
    documents = work.document_limit(scoring, length, SLICE_SECONDS)
    return slices.slice_bytes(files, min(math.ceil(documents * length), slices.MAX_SLICE_BYTES))


def _contradictions(flags: argparse.Namespace, *, on_dataflow: bool) -> Iterator[str]:
    """Yield a sentence for each flag that does not fit the others."""
    if flags.max_cost and flags.resubmit:
        yield (
            "--max_cost and --resubmit: expected one of them, found both, and each submission may cost --max_cost; "
            "drop one."
        )
    if not on_dataflow and (flags.max_cost or flags.profile or flags.prices or flags.accelerator or flags.no_wait):
        yield (
            "--max_cost, --profile, --prices, --accelerator and --no_wait need --runner DataflowRunner; add it or drop "
            "them."
        )
    reasons = [reason for group in get_args(Reason) for reason in get_args(group)]
    if flags.retry_failures not in ("", "all", *reasons):
        yield f"--retry_failures {flags.retry_failures}: expected one of {', '.join(reasons)}, or no reason for all."
    if flags.retry_failures and flags.overwrite:
        yield "--retry_failures and --overwrite: expected one of them, found both; drop one."


def _recipe(options: RunOptions, *, here: bool) -> DocumentRecipe:
    """Return the recipe of documents. It is without the text fields of models that lie in another machine's image."""
    scoring = options.scoring
    models = tuple(model for model in scoring.models if here or storage.is_remote(model))
    recipe = pipeline.document_recipe(replace(options, scoring=replace(scoring, models=models)))
    if scoring.text_fields and not models:
        return replace(recipe, recipes=(TextRecipe(fields=scoring.text_fields),))
    return recipe


def _path_problems(
    flags: argparse.Namespace, files: Sequence[InputFile], beam_options: PipelineOptions
) -> Iterator[str]:
    """Yield a sentence for each problem with the paths that the run reads and writes."""
    folder = _absolute(flags.output).rstrip("/") + "/"
    if files_inside := [file.path for file in files if _absolute(file.path).startswith(folder)]:
        yield (
            f"--output {flags.output}: expected a folder without input, found the input {files_inside[0]} in it; name "
            "another folder."
        )
    if problem := storage.bucket_problem(flags.output):
        yield f"--output {problem}"
    if beam_options.view_as(StandardOptions).streaming:
        yield "--streaming: expected a batch job, found a streaming one; drop the flag."


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.realpath(path)


def _runtime(options: ScoringOptions) -> Runtime:
    return runtimes.choose(options.runtime, options.precision, options.device, options.threads)


def _with_threads(options: ScoringOptions, beam_options: PipelineOptions) -> ScoringOptions:
    """Divide this machine's cores among its worker processes, so that threads do not outnumber cores."""
    direct = beam_options.view_as(DirectOptions)
    if options.threads or direct.direct_running_mode != "multi_processing":
        return options
    cores = hardware.cores()
    workers = direct.direct_num_workers or cores
    return replace(options, threads=max(cores // workers, 1))

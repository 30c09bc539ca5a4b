"""The flags of a run and every check before it starts: all problems are reported together, and nothing is written."""

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from inference import conversions, cost, model_files, run_folder, runtimes, slices, storage
from inference.command_line import Parser, names, positive, rate, refuse, scores
from inference.files import InputFile, compression_of, find_files
from inference.progress import Loudness
from inference.run_folder import RunOptions
from inference.runtimes import Runtime
from inference.scorer import ScoringOptions
from models import trained_model, weights
from models.errors import UserError

if TYPE_CHECKING:
    from inference.launch import Launch

LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", "PrismRunner")
MIB = 1024 * 1024
LARGEST_SLICE_BYTES, SMALLEST_SLICE_BYTES = 8 * MIB, MIB // 4
FEWEST_SLICES = 64  # of a corpus large enough: progress shows, and a kill costs little

PROG = "python -m inference.beam_runner"
DESCRIPTION = f"""\
Labels a JSONL corpus with one or more trained models.

  {PROG} --model models/trained/ai --input 'corpus/*.jsonl.gz' --output runs/ai

The same command again goes on where the last one stopped. Defaults stand in brackets.
"""
EPILOG = """\
Every flag of Apache Beam can follow: --runner DirectRunner (the default) or DataflowRunner, for instance, or
--max_num_workers 20.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 done with more failures than --max_failure_rate.
"""


@dataclass(frozen=True)
class Command:
    """A run that has passed every check."""

    options: RunOptions
    files: list[InputFile]
    run: dict[str, Any]  # for run.json
    beam: PipelineOptions
    runtime: Runtime | None  # what computes, where that is this machine
    overwrite: bool
    max_failure_rate: float
    launch: "Launch | None" = None  # where it runs on Dataflow
    plan: bool = False  # say what it would do, no more
    max_cost: float | None = None  # dollars
    profile: Path | None = None  # how fast the machine type of the job is, measured there
    wait: bool = True  # until the job has ended
    loudness: Loudness = "normal"
    json: bool = False  # the result on standard output as JSON, what people read on standard error


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that decide what is read of a record and how it is scored."""
    reading = parser.add_argument_group("reading")
    reading.add_argument("--text_fields", type=names, default=(), metavar="A,B", help="instead of the model's own")
    reading.add_argument("--id_field", default="id", metavar="NAME", help="--id_field= uses file and line number (id)")
    reading.add_argument("--keep_fields", type=names, default=(), metavar="A,B", help="input fields to carry along")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--scores", type=scores, default="predicted", metavar="WHICH", help="predicted, all or top:K")
    scoring.add_argument(
        "--max_tokens", type=positive(int), metavar="N", help="tokens read, instead of the model's own"
    )
    scoring.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if there)")
    scoring.add_argument(
        "--runtime",
        choices=("auto", *get_args(runtimes.RuntimeName)),
        default="auto",
        help="what computes (auto: torch on a GPU, on a CPU openvino if installed)",
    )
    scoring.add_argument(
        "--precision",
        choices=("auto", *get_args(runtimes.Precision)),
        default="auto",
        help="(auto: bf16 where hardware has it, else fp32; int8 after inference.optimize)",
    )
    scoring.add_argument(
        "--threads",
        type=positive(int),
        default=0,
        metavar="N",
        help="that compute, in a process (its share of the cores)",
    )


def make_parser() -> Parser:
    """The parser of `inference.beam_runner`."""
    parser = Parser(
        prog=PROG,
        usage=f"{PROG} --model DIR --input GLOB --output DIR [flags] [Apache Beam's flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    run = parser.add_argument_group("what to run")
    run.add_argument("--model", action="append", required=True, metavar="DIR", help="trained model; may be repeated")
    run.add_argument("--input", action="append", required=True, metavar="GLOB", help="JSON lines; may be repeated")
    run.add_argument("--output", required=True, metavar="DIR", help="folder of the run")
    run.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the predictions (jsonl)")
    run.add_argument("--overwrite", action="store_true", help="delete what an earlier run wrote, start anew")
    run.add_argument("--limit", type=positive(int), metavar="N", help="only the first N lines of the input")
    run.add_argument(
        "--slice_mb", type=positive(float), metavar="MIB", help="(8, less where that makes fewer than 64 slices)"
    )
    run.add_argument(
        "--max_failure_rate", type=rate, default=0.01, metavar="SHARE", help="above it the run exits 3 (0.01)"
    )
    run.add_argument("--redact_failures", action="store_true", help="write nothing of the texts into failures/")
    add_scoring_flags(parser)
    dataflow = parser.add_argument_group("before it runs, and on Dataflow")
    dataflow.add_argument("--plan", action="store_true", help="say what would run, how long, for how much; run nothing")
    dataflow.add_argument(
        "--max_cost", type=positive(float), metavar="DOLLARS", help="refuse a job that may cost more (no limit)"
    )
    dataflow.add_argument(
        "--profile", type=Path, metavar="FILE", help="what estimate_cost --json wrote on such a machine, for the price"
    )
    dataflow.add_argument("--accelerator", choices=tuple(cost.GPUS), help="a GPU for each worker (none)")
    dataflow.add_argument("--no_wait", action="store_true", help="return when the job was submitted")
    telling = parser.add_argument_group("what it tells")
    telling.add_argument(
        "--quiet", dest="loudness", action="store_const", const="quiet", default="normal", help="errors and warnings"
    )
    telling.add_argument(
        "--verbose", dest="loudness", action="store_const", const="verbose", help="each finished slice, and every log"
    )
    telling.add_argument("--json", action="store_true", help="the result as JSON; all else goes to standard error")
    return parser


def parse(argv: Sequence[str]) -> Command:
    """Flags to a checked command.

    Raises:
        UserError: all problems in one message.
    """
    flags, beam, problems = make_parser().parse_with_beam(argv)
    on_dataflow = _is_dataflow(beam)
    scoring, found = check_scoring(flags, here=not on_dataflow)
    problems += found
    files: list[InputFile] = []
    try:
        files = find_files(flags.input)
    except UserError as error:
        problems.append(str(error))
    problems += _inside(files, flags.output)
    if problem := storage.bucket_problem(flags.output):
        problems.append(f"--output {problem}")
    if beam.view_as(StandardOptions).streaming:
        problems.append("--streaming: a corpus is labelled by a batch job; drop the flag.")
    job = None
    if on_dataflow:
        from inference import launch  # what it needs takes a second to load, which local runs do not wait for

        job, found = launch.prepare(beam, flags.model, files, flags.output, flags.accelerator)
        problems += found
    elif flags.max_cost or flags.profile or flags.accelerator or flags.no_wait:
        problems.append(
            "--max_cost, --profile, --accelerator and --no_wait are for --runner DataflowRunner; drop them."
        )
    refuse(problems)
    beam.view_as(StandardOptions).runner = beam.view_as(StandardOptions).runner or "DirectRunner"
    if flags.limit:
        files = slices.limit_lines(files, flags.limit)
    options = RunOptions(
        output=flags.output,
        slice_bytes=slice_bytes(files, flags.slice_mb),
        scoring=_with_threads(scoring, beam),
        id_field=flags.id_field,
        keep_fields=flags.keep_fields,
        file_format=flags.format,
        limit=flags.limit,
        redact_failures=flags.redact_failures,
    )
    fingerprints = job.fingerprints if job else [trained_model.fingerprint(path) for path in scoring.directories()]
    run = run_folder.describe(options, files, fingerprints, f"{PROG} {shlex.join(argv)}")
    refuse(run_folder.check(run, flags.output, flags.overwrite))
    return Command(
        options=options,
        files=files,
        run=run,
        beam=beam,
        runtime=_runtime_here(options.scoring, beam),
        overwrite=flags.overwrite,
        max_failure_rate=flags.max_failure_rate,
        launch=job,
        plan=flags.plan,
        max_cost=flags.max_cost,
        profile=flags.profile,
        wait=not flags.no_wait,
        loudness=flags.loudness,
        json=flags.json,
    )


def _is_dataflow(beam: PipelineOptions) -> bool:
    return str(beam.view_as(StandardOptions).runner or "").split(".")[-1].lower() in ("dataflowrunner", "dataflow")


def _runtime_here(options: ScoringOptions, beam: PipelineOptions) -> Runtime | None:
    if beam.view_as(StandardOptions).runner.split(".")[-1] not in LOCAL_RUNNERS:
        return None
    return runtimes.choose(options.runtime, options.precision, options.device, options.threads)


def check_scoring(flags: argparse.Namespace, *, here: bool = True) -> tuple[ScoringOptions, list[str]]:
    """Checks models, device and fields; the problems found come beside the options.

    `here` says that this machine scores; for another one its own models and devices are not looked at.
    """
    problems = []
    for name in dict.fromkeys(name for name in flags.model if here or storage.is_remote(name)):
        try:
            check_model(model_files.local(name), flags.precision, flags.max_tokens)
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


def check_model(directory: str, precision: str, max_tokens: int | None) -> None:
    """Checks the files of a model on this machine, and that it can do what is asked for.

    Raises:
        ModelError: it cannot.
    """
    manifest = trained_model.verify(directory)
    if precision == "int8":
        conversions.check_int8(manifest, directory)
    if max_tokens:
        weights.check_max_tokens(directory, max_tokens)


def _inside(files: Sequence[InputFile], output: str) -> list[str]:
    folder = _absolute(output).rstrip("/") + "/"
    inside = [file.path for file in files if _absolute(file.path).startswith(folder)]
    if inside:
        return [f"--output {output}: the input {inside[0]} lies in it; name a folder apart from the input."]
    return []


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)


def slice_bytes(files: Sequence[InputFile], slice_mb: float | None) -> int:
    """The size at which files are cut; depends on the input alone, so that the same command finds its slices again."""
    if slice_mb:
        return max(int(slice_mb * MIB), 1)
    expanded = sum(file.size * (4 if compression_of(file.path) else 1) for file in files)
    return min(max(expanded // FEWEST_SLICES, SMALLEST_SLICE_BYTES), LARGEST_SLICE_BYTES)


def _with_threads(options: ScoringOptions, beam: PipelineOptions) -> ScoringOptions:
    """Worker processes on this machine share its cores: never more runnable threads than cores."""
    direct = beam.view_as(DirectOptions)
    if options.threads or direct.direct_running_mode != "multi_processing":
        return options
    cores = runtimes.cores()
    workers = direct.direct_num_workers or cores
    return ScoringOptions(**{**vars(options), "threads": max(cores // workers, 1)})

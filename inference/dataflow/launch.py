"""Prepares a job on Dataflow: chooses settings and gives their reasons, and checks everything before the launch."""

import argparse
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

from inference.corpus import gcs, storage
from inference.corpus.files import InputFile
from inference.cost import pricing
from inference.cost.pricing import Prices
from inference.dataflow import images, workers
from inference.dataflow.images import MODELS_FOLDER, ImageFacts
from inference.scoring import model_files
from inference.scoring.options import PrecisionChoice, ScoringOptions
from models import trained_model
from models.errors import UserError
from models.paths import GS

MACHINE = "n2-highcpu-8"  # machine type of workers without a GPU
ONE_PROCESS = "no_use_multiple_sdk_containers"  # experiment of Beam with which a worker runs a single process
THREADS = 4  # threads of a worker's process: while one computes, others read, tokenise and write
MULTI_REGIONS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}  # prefix of the regions in each multi-region


@dataclass(frozen=True)
class Setting:
    """A flag that is set because the user did not set it."""

    flag: str  # name of the flag, without dashes
    value: Any
    reason: str  # reason that is printed beside the flag

    def __str__(self) -> str:
        return f"--{self.flag} {self.value}: {self.reason}"


@dataclass(frozen=True)
class Job:
    """A job that has passed every check."""

    settings: tuple[Setting, ...]  # flags that the launch chose
    image: ImageFacts  # labels of the image
    fingerprints: tuple[str, ...]  # SHA-256 of each model, in the order of --model
    machine_type: str  # machine type of the workers
    gpu: str | None  # name of the GPU in the prices file
    flexrs: bool  # whether the job uses FlexRS
    prices: Prices  # prices and machine types, with the job's if it is a custom one, and its disk


def prepare(
    beam_options: PipelineOptions,
    scoring: ScoringOptions,
    files: Sequence[InputFile],
    flags: argparse.Namespace,
) -> tuple[Job | None, list[str]]:
    """Set the flags that the user did not set, and check everything. Submit nothing.

    Args:
        beam_options: Beam's options, which are changed.
        scoring: The models and the options of their scoring.
        files: The input files of the run.
        flags: The flags of the command, of which output, accelerator and prices are used.

    Returns:
        The job, and a sentence for each problem. If there are problems, the job is None.
    """
    output = flags.output
    settings = [*_set_defaults(beam_options, output, flags.accelerator)]
    cloud, worker = beam_options.view_as(GoogleCloudOptions), beam_options.view_as(WorkerOptions)
    gpu, flexrs = pricing.gpu_of(_accelerators(beam_options)), cloud.flexrs_goal == "COST_OPTIMIZED"
    problems = [*_missing(beam_options, output, files), *_region_problems(beam_options, files, output)]
    machine_type = worker.machine_type
    if gpu and scoring.device == "auto":
        settings.append(Setting("device", "cuda", "a worker that does not see its GPU fails, instead of using its CPU"))
    if (count := pricing.gpus_of(_accelerators(beam_options))) > 1:
        problems.append(
            f"worker_accelerator: expected count:1, found count:{count}; a worker computes on one GPU, so take more "
            "workers instead."
        )
    if gpu and flexrs:
        problems.append("--flexrs_goal COST_OPTIMIZED: FlexRS has no GPUs; drop this flag or the accelerator.")
    image, image_problems = _image(beam_options)
    fingerprints, model_problems = _models(scoring, image)
    problems += [*image_problems, *model_problems]
    try:
        prices = pricing.load_prices(flags.prices or pricing.PRICES).with_custom(machine_type, gpu)
        prices = prices.with_disk(worker.disk_size_gb, worker.disk_type)
        problems += workers.problems(scoring, image, prices, machine_type, gpu) if image else ()
    except UserError as error:
        problems.append(str(error))
    problems = problems or PipelineOptionsValidator(beam_options, DataflowRunner()).validate()  # Beam's own checks
    if problems or not image:
        return None, problems
    return Job(tuple(settings), image, tuple(fingerprints), machine_type, gpu, flexrs, prices), []


def models_here(scoring: ScoringOptions, image: ImageFacts) -> tuple[str, ...]:
    """Return folders on this machine that hold the models of a job.

    If this machine has the image's folders, as a template's launcher does, they are used. Otherwise the models are
    copied out of the image, if this machine's engine has it.

    Raises:
        UserError: a model can be read in neither way.
    """
    return tuple(_model_here(path, image, scoring.precision) for path in scoring.models)


def _model_here(path: str, image: ImageFacts, precision: PrecisionChoice) -> str:
    if storage.is_remote(path):
        return model_files.local(path)
    sha256 = image.models[model_files.name_of(trained_model.model_name(path), precision)]
    try:
        if os.path.isdir(path) and model_files.fingerprint(path, precision) == sha256:
            return path
        copy = partial(images.copy_out, image.reference, path)
        return model_files.cached(sha256, trained_model.model_name(path), copy)
    except UserError as error:
        raise UserError(
            f"the speed of {path} cannot be measured on this machine: {error} A model in gs:// needs no engine."
        ) from None


def _set_defaults(beam_options: PipelineOptions, output: str, accelerator: str | None) -> Iterator[Setting]:
    """Set the flags of Beam that the user left out, and yield a setting for each."""
    setup, worker = beam_options.view_as(SetupOptions), beam_options.view_as(WorkerOptions)
    debug, cloud = beam_options.view_as(DebugOptions), beam_options.view_as(GoogleCloudOptions)
    if setup.sdk_location in (None, "default"):
        setup.sdk_location = "container"
        yield Setting("sdk_location", "container", "the image holds everything that workers need")
    setup.save_main_session = False  # the image holds all modules
    if not worker.machine_type:
        worker.machine_type = pricing.GPUS[accelerator].machine if accelerator else MACHINE
        reason = "has the GPU" if accelerator else "a run needs little memory, so more is not paid for"
        yield Setting("machine_type", worker.machine_type, reason)
    if not worker.disk_size_gb:
        worker.disk_size_gb = int(pricing.DISK_GB)
        yield Setting("disk_size_gb", worker.disk_size_gb, "holds the image and nothing else")
    if not debug.number_of_worker_harness_threads:
        debug.number_of_worker_harness_threads = THREADS
        reason = "one slice is computed while others are read, tokenised and written"
        yield Setting("number_of_worker_harness_threads", THREADS, reason)
    if not any("use_multiple_sdk_containers" in experiment for experiment in debug.experiments or ()):
        debug.add_experiment(ONE_PROCESS)
        yield Setting("experiments", ONE_PROCESS, "one process per worker holds each model in memory once")
    if accelerator and not pricing.gpu_of(_accelerators(beam_options)):
        value = f"worker_accelerator=type:{pricing.GPUS[accelerator].type};count:1;install-nvidia-driver"
        cloud.dataflow_service_options = [*(cloud.dataflow_service_options or ()), value]
        yield Setting("dataflow_service_options", f"'{value}'", "one GPU per worker, with its driver")
    if not cloud.job_name:
        cloud.job_name = _job_name(output)
        reason = "derived from --output, because Dataflow refuses a second job of the same name while one is running"
        yield Setting("job_name", cloud.job_name, reason)


def _accelerators(beam_options: PipelineOptions) -> list[str]:
    """Return the options of Beam that may name a GPU. Older launches name it as an experiment."""
    service_options = beam_options.view_as(GoogleCloudOptions).dataflow_service_options or ()
    return [*service_options, *(beam_options.view_as(DebugOptions).experiments or ())]


def _job_name(output: str) -> str:
    folder = re.sub(r"[^a-z0-9]+", "-", posixpath.basename(output.rstrip("/")).lower()).strip("-")[:40]
    return f"labelbeam-{folder or 'run'}-{hashlib.sha256(output.rstrip('/').encode()).hexdigest()[:8]}"


def _missing(beam_options: PipelineOptions, output: str, files: Sequence[InputFile]) -> Iterator[str]:
    cloud, worker = beam_options.view_as(GoogleCloudOptions), beam_options.view_as(WorkerOptions)
    for flag, value, expected in (
        ("project", cloud.project, "the project that pays"),
        ("region", cloud.region, "a region such as us-central1"),
        ("temp_location", cloud.temp_location, "a folder such as gs://BUCKET/tmp"),
        ("sdk_container_image", worker.sdk_container_image, "the image that `python -m inference.container` built"),
    ):
        if not value:
            yield f"--{flag}: expected {expected}, found nothing; add the flag."
    for flag, path in (("output", output), ("temp_location", cloud.temp_location or GS)):
        if not path.startswith(GS):
            yield f"--{flag} {path}: expected a gs:// path, which every worker can reach; name one."
    if local := [file.path for file in files if not file.path.startswith(GS)]:
        yield f"--input {local[0]}: expected a gs:// path, which every worker can reach; copy the corpus to one."


def _region_problems(beam_options: PipelineOptions, files: Sequence[InputFile], output: str) -> Iterator[str]:
    cloud = beam_options.view_as(GoogleCloudOptions)
    staging = cloud.temp_location or ""
    paths = [("input", file.path) for file in files] + [("output", output), ("temp_location", staging)]
    flags_by_bucket = {bucket: f"--{flag} {path}" for flag, path in paths if (bucket := gcs.bucket_of(path))}
    for bucket, flag in flags_by_bucket.items():
        try:
            location = gcs.bucket_location(bucket)
        except Exception as error:  # credentials, network and storage raise errors of their own types
            yield storage.explanation(flag, error)
            continue
        if location is None and bucket == gcs.bucket_of(staging):
            yield (
                f"{flag}: this account may not read the bucket's metadata, which staging the job needs; grant it "
                "storage.buckets.get on the bucket, which is in roles/storage.legacyBucketReader."
            )
        if location and cloud.region and not _is_near(location, cloud.region):
            yield (
                f"{flag}: expected a bucket in {cloud.region}, where the job runs, found one in {location.lower()}; "
                "change --region or the bucket, because transfers between them cost money."
            )


def _is_near(location: str, region: str) -> bool:
    """Return whether a region lies in a bucket's location. Locations that are not known here count as near."""
    if location in MULTI_REGIONS:
        return region.startswith(MULTI_REGIONS[location])
    return "-" not in location or location.lower() == region


def _image(beam_options: PipelineOptions) -> tuple[ImageFacts | None, list[str]]:
    reference = beam_options.view_as(WorkerOptions).sdk_container_image
    if not reference:
        return None, []
    problems = [problem for problem in [images.tag_problem(reference)] if problem]
    try:
        facts = images.inspect(reference)
    except UserError as error:
        return None, [*problems, str(error)]
    for name, here, inside in (
        ("Python", images.python_version(), facts.python_version),
        ("Beam", apache_beam.__version__, facts.beam_version),
    ):
        if inside != here:
            problems.append(
                f"image {reference}: expected {name} {here} as on this machine, found {name} {inside}; build the image "
                "again."
            )
    return facts, problems


def _models(scoring: ScoringOptions, image: ImageFacts | None) -> tuple[list[str], list[str]]:
    """Return the fingerprint of each model, and a sentence for each problem of using a model on a worker."""
    fingerprints, problems = [], []
    for path in scoring.models:
        name = trained_model.model_name(path)
        key = model_files.name_of(name, scoring.precision)
        try:
            if path.startswith(GS):
                fingerprints.append(model_files.fingerprint(path, scoring.precision))
            elif posixpath.dirname(path.rstrip("/")) != MODELS_FOLDER:
                place = "in another storage" if storage.is_remote(path) else "on this machine"
                problems.append(
                    f"--model {path}: expected a model that every worker can reach, found one {place}; name one in the "
                    f"image, {MODELS_FOLDER}/{name}, or in gs://."
                )
            elif image and name not in image.models:
                names = ", ".join(key for key in image.models if "." not in key) or "none"
                problems.append(
                    f"--model {path}: expected a model in image {image.reference} ({names}), found no such model; "
                    "name one of them, or build the image again."
                )
            elif image and key not in image.models:
                problems.append(
                    f"--model {path}: expected an int8 variant in image {image.reference}, found none; make one with "
                    "`python -m inference.optimize`, and build the image again."
                )
            elif image:
                fingerprints.append(image.models[key])
        except UserError as error:
            problems.append(str(error))
    return fingerprints, problems

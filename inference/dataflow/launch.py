"""What a job on Dataflow needs: settings that suit this work, with reasons, and every check before it starts."""

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

from inference.corpus import storage
from inference.corpus.files import InputFile
from inference.cost import pricing
from inference.dataflow import images
from inference.dataflow.images import MODELS_FOLDER, ImageFacts
from inference.scoring import model_files
from models import trained_model
from models.errors import UserError

MACHINE = "n2-highcpu-8"
ONE_PROCESS = "no_use_multiple_sdk_containers"
THREADS = 4  # of the one process: while one computes, others read, tokenise and write
GPU_MACHINES = {"l4": "g2-standard-8", "t4": "n1-standard-8", "a100": "a2-highgpu-1g"}  # that carry one
MULTI_REGIONS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}


@dataclass(frozen=True)
class Setting:
    """A flag of Beam that was set because the user did not."""

    flag: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"--{self.flag} {self.value}: {self.reason}"


@dataclass(frozen=True)
class Job:
    """A job that has passed every check."""

    settings: tuple[Setting, ...]
    image: ImageFacts
    fingerprints: tuple[str, ...]  # of the models, in order
    machine_type: str
    gpu: str | None  # as the prices name it
    flexrs: bool


def prepare(
    beam_options: PipelineOptions,
    models: Sequence[str],
    files: Sequence[InputFile],
    output: str,
    accelerator: str | None,
) -> tuple[Job | None, list[str]]:
    """Sets what the user did not set, and checks everything; nothing is submitted.

    Returns:
        The launch, and what stands against it: one sentence for each problem.
    """
    settings = tuple(_set_defaults(beam_options, output, accelerator))
    cloud = beam_options.view_as(GoogleCloudOptions)
    gpu, flexrs = pricing.gpu_of(cloud.dataflow_service_options or ()), cloud.flexrs_goal == "COST_OPTIMIZED"
    problems = [*_missing(beam_options, output, files), *_region_problems(beam_options, files, output)]
    if gpu and flexrs:
        problems.append("--flexrs_goal COST_OPTIMIZED: FlexRS has no GPUs; drop this flag or the accelerator.")
    image, found = _image(beam_options)
    problems += found
    fingerprints, found = _models(models, image)
    problems += found
    problems = (
        problems or PipelineOptionsValidator(beam_options, DataflowRunner()).validate()
    )  # what Beam itself would refuse
    if problems or not image:
        return None, problems
    machine_type = beam_options.view_as(WorkerOptions).machine_type
    return Job(settings, image, tuple(fingerprints), machine_type, gpu, flexrs), []


def models_here(models: Sequence[str], image: ImageFacts) -> tuple[str, ...]:
    """Folders on this machine that hold the models of a launch.

    A model lies in its own place where this machine has the image's layout, as a template's launcher does; else it is
    copied out of the image, if the engine here has it.

    Raises:
        UserError: one can be read neither way.
    """
    return tuple(_model_here(path, image) for path in models)


def _model_here(path: str, image: ImageFacts) -> str:
    if storage.is_remote(path):
        return model_files.local(path)
    sha256 = image.models[trained_model.model_name(path)]
    if os.path.isdir(path) and trained_model.fingerprint(path) == sha256:
        return path
    try:
        copy = partial(images.copy_out, image.reference, path)
        return model_files.kept(sha256, trained_model.model_name(path), copy)
    except UserError as error:
        raise UserError(f"{path} would be timed on this machine, but {error} A model in gs:// needs none.") from None


def _set_defaults(beam_options: PipelineOptions, output: str, accelerator: str | None) -> Iterator[Setting]:
    """Sets Beam's flags that were left out; every one can be given by hand instead."""
    setup, worker = beam_options.view_as(SetupOptions), beam_options.view_as(WorkerOptions)
    debug, cloud = beam_options.view_as(DebugOptions), beam_options.view_as(GoogleCloudOptions)
    if setup.sdk_location in (None, "default"):
        setup.sdk_location = "container"
        yield Setting("sdk_location", "container", "the image holds all that workers need")
    setup.save_main_session = False  # all of the code is in modules that the image holds
    if not worker.machine_type:
        worker.machine_type = GPU_MACHINES[accelerator] if accelerator else MACHINE
        reason = "carries the GPU" if accelerator else "few gigabytes are needed, so memory is not paid for"
        yield Setting("machine_type", worker.machine_type, reason)
    if not worker.disk_size_gb:
        worker.disk_size_gb = int(pricing.DISK_GB)
        yield Setting("disk_size_gb", worker.disk_size_gb, "holds the image; nothing else is kept there")
    if not debug.number_of_worker_harness_threads:
        debug.number_of_worker_harness_threads = THREADS
        reason = "while one slice is computed, others are read, tokenised and written"
        yield Setting("number_of_worker_harness_threads", THREADS, reason)
    if not any("use_multiple_sdk_containers" in experiment for experiment in debug.experiments or ()):
        debug.add_experiment(ONE_PROCESS)
        yield Setting("experiments", ONE_PROCESS, "one process a worker: each model is in memory once")
    if accelerator and not pricing.gpu_of(cloud.dataflow_service_options or ()):
        value = f"worker_accelerator=type:{pricing.GPUS[accelerator]};count:1;install-nvidia-driver"
        cloud.dataflow_service_options = [*(cloud.dataflow_service_options or ()), value]
        yield Setting("dataflow_service_options", f"'{value}'", "one GPU a worker, with its driver")
    if not cloud.job_name:
        cloud.job_name = _job_name(output)
        reason = "made of --output: Dataflow refuses a second job of one name while the first is at work"
        yield Setting("job_name", cloud.job_name, reason)


def _job_name(output: str) -> str:
    folder = re.sub(r"[^a-z0-9]+", "-", posixpath.basename(output.rstrip("/")).lower()).strip("-")[:40]
    return f"labelbeam-{folder or 'run'}-{hashlib.sha256(output.rstrip('/').encode()).hexdigest()[:8]}"


def _missing(beam_options: PipelineOptions, output: str, files: Sequence[InputFile]) -> Iterator[str]:
    cloud, worker = beam_options.view_as(GoogleCloudOptions), beam_options.view_as(WorkerOptions)
    for flag, value, what in (
        ("project", cloud.project, "the project that pays"),
        ("region", cloud.region, "a region such as us-central1"),
        ("temp_location", cloud.temp_location, "a folder such as gs://BUCKET/tmp"),
        ("sdk_container_image", worker.sdk_container_image, "the image that `python -m inference.container` built"),
    ):
        if not value:
            yield f"--{flag}: expected {what}, found nothing; Dataflow needs it."
    for flag, path in (("output", output), ("temp_location", cloud.temp_location or storage.GS)):
        if not path.startswith(storage.GS):
            yield f"--{flag} {path}: expected a gs:// path, which every worker can reach."
    if here := [file.path for file in files if not file.path.startswith(storage.GS)]:
        yield f"--input {here[0]}: lies on this machine; copy the corpus to a gs:// path, which every worker can reach."


def _region_problems(beam_options: PipelineOptions, files: Sequence[InputFile], output: str) -> Iterator[str]:
    cloud = beam_options.view_as(GoogleCloudOptions)
    staging = cloud.temp_location or ""
    paths = [("input", file.path) for file in files] + [("output", output), ("temp_location", staging)]
    used = {bucket: f"--{flag} {path}" for flag, path in paths if (bucket := storage.bucket_of(path))}
    for bucket, what in used.items():
        try:
            location = storage.bucket_location(bucket)
        except Exception as error:  # credentials, network and storage raise their own kinds
            yield storage.explained(what, error)
            continue
        if location is None and bucket == storage.bucket_of(staging):
            yield (
                f"{what}: this account may not look at the bucket, which staging the job needs: grant it "
                "storage.buckets.get there, which roles/storage.legacyBucketReader has."
            )
        if location and cloud.region and not _is_in(location, cloud.region):
            yield (
                f"{what}: its bucket is in {location.lower()}, the job would run in {cloud.region}: every byte between "
                "them is paid for; take --region where the bucket is, or another bucket."
            )


def _is_in(location: str, region: str) -> bool:
    """Whether a region's machines read a bucket without crossing; places not known here are taken to be right."""
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
    here = {"Python": images.python_version(), "Beam": apache_beam.__version__}
    for name, found in (("Python", facts.python), ("Beam", facts.beam)):
        if found != here[name]:
            problems.append(f"image {reference}: it has {name} {found}, this machine {here[name]}; they must be equal.")
    return facts, problems


def _models(models: Sequence[str], image: ImageFacts | None) -> tuple[list[str], list[str]]:
    """The models' fingerprints, and what stands against using them on a worker."""
    fingerprints, problems = [], []
    for path in models:
        name = trained_model.model_name(path)
        try:
            if storage.is_remote(path):
                fingerprints.append(trained_model.fingerprint(model_files.local(path)))
            elif posixpath.dirname(path.rstrip("/")) != MODELS_FOLDER:
                problems.append(
                    f"--model {path}: lies on this machine; name one in the image, {MODELS_FOLDER}/{name}, or in gs://."
                )
            elif image and name not in image.models:
                has = ", ".join(image.models) or "none"
                problems.append(f"--model {path}: image {image.reference} has no such model, it has {has}.")
            elif image:
                fingerprints.append(image.models[name])
        except UserError as error:
            problems.append(str(error))
    return fingerprints, problems

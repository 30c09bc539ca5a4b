"""Knows the engines that run the pipeline: where their workers are, and what a launch has to check for each of them."""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    S3Options,
    StandardOptions,
)

from inference.corpus import storage
from models.errors import UserError

SLICES_AT_ONCE = 2  # default of FnApiRunner: while one slice is computed, another one is read, tokenised or written
RESUBMISSIONS = 3  # default of --resubmit where workers are elsewhere
CONNECT_SECONDS = 5.0  # time to wait for a job server to answer
LOOPBACK, EXTERNAL = "LOOPBACK", "EXTERNAL"  # environments of Beam: workers in this process, or in a pool
ENVIRONMENTS = (EXTERNAL, "DOCKER", "PROCESS", LOOPBACK)
# Runners by their names in lower case. Beam has others, which lose documents or have never been tried.
RUNNERS = {
    name.lower(): name
    for name in ("FnApiRunner", "PrismRunner", "PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")
}
CLUSTERS = ("FlinkRunner", "SparkRunner")  # runners whose workers are on several machines
# What engines say of a job that another submission would not help, and the sentence for the user.
_LASTING = {
    r"No module named '(?:inference|models)[.']": "a worker cannot import labelbeam; install it, with its "
    "requirements, for the `python` that starts the workers.",
    r"didn't get control connection|No module named 'apache_beam'": "no worker has answered; check that the `python` "
    "on the PATH of the worker pool can import apache_beam and labelbeam.",
    r"in state CANCELLED": "the job was cancelled on its server.",
    r"Service failed to start up": "Prism did not start; --verbose shows why.",
}
# What engines say of a job that another submission may help, and the sentence for the user.
_PASSING = {
    r"SDK worker disconnected": "a worker died.",
    r"StatusCode\.UNAVAILABLE": "the connection to the job server broke.",
}


@dataclass(frozen=True)
class Engine:
    """A Beam runner, and where its workers are."""

    runner: str  # name of the runner
    workers: Literal["here", "elsewhere", "dataflow"]  # place of the workers; `here` is this machine's own processes
    endpoint: str = ""  # address of the job server, if there is one

    @property
    def resubmissions(self) -> int:
        """Return how often a failed job is submitted again by default. Dataflow repeats work by itself."""
        return RESUBMISSIONS if self.workers == "elsewhere" else 0


def choose(beam_options: PipelineOptions, beam_flags: Sequence[str]) -> Engine:
    """Return the engine of a launch. Set the options of Beam that the user has left out.

    Raises:
        UserError: Beam has no such runner, or it is not one that labelbeam supports.
    """
    standard, portable = beam_options.view_as(StandardOptions), beam_options.view_as(PortableOptions)
    name = (standard.runner or "DirectRunner").rpartition(".")[2].lower()
    # Beam's DirectRunner downloads Prism and runs that where it finds the web.
    runner = RUNNERS.get({"directrunner": "fnapirunner", "dataflow": "dataflowrunner"}.get(name, name))
    if runner is None:
        raise UserError(
            f"--runner {standard.runner}: expected DirectRunner or one of {', '.join(RUNNERS.values())}, found "
            "another; name one of them."
        )
    standard.runner = runner
    if runner == "DataflowRunner":
        return Engine(runner, "dataflow")
    if runner == "FnApiRunner":
        if not any(flag.partition("=")[0] == "--direct_num_workers" for flag in beam_flags):
            beam_options.view_as(DirectOptions).direct_num_workers = SLICES_AT_ONCE
        return Engine(runner, "here")
    environment = (portable.environment_type or (LOOPBACK if runner == "PrismRunner" else "")).upper()
    portable.environment_type = environment or None
    place: Literal["here", "elsewhere"] = "here" if environment == LOOPBACK else "elsewhere"
    return Engine(runner, place, portable.job_endpoint or "")


def problems(engine: Engine, beam_options: PipelineOptions, paths: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a sentence for each reason why the workers of an engine, other than Dataflow, could not do a run.

    Args:
        engine: The engine.
        beam_options: The options of Beam.
        paths: The flag and the path of each folder and file of the run.
    """
    if engine.runner == "PortableRunner" and not engine.endpoint:
        yield "--job_endpoint: expected the address of a job server, such as localhost:8073, found nothing; add it."
    if sentence := silence(engine):
        yield sentence
    if engine.workers == "elsewhere":
        yield from _environment_problems(engine, beam_options.view_as(PortableOptions))
        yield from _path_problems(engine, paths)
        yield from _flags_of_s3(beam_options)


def silence(engine: Engine) -> str | None:
    """Return a sentence if an engine's job server does not answer; None if it does, or if there is none.

    Beam itself waits for five minutes.
    """
    if engine.endpoint in ("", "embed"):
        return None
    return next(_unreachable("job_endpoint", engine.endpoint), None)


def _environment_problems(engine: Engine, portable: PortableOptions) -> Iterator[str]:
    environment, config = portable.environment_type, portable.environment_config
    if environment not in ENVIRONMENTS:
        yield (
            f"--environment_type: expected one of {', '.join(ENVIRONMENTS)}, found {environment or 'nothing'}; Beam's "
            "own image has no labelbeam, so say where workers run."
        )
    elif not (config or portable.environment_options):
        yield (
            "--environment_config: expected the pool's address for EXTERNAL, an image for DOCKER or a command for "
            "PROCESS, found nothing; add it."
        )
    # The server dials the pool, so that the address means the same here only if both are on this machine.
    elif (engine.runner, environment) == ("PortableRunner", EXTERNAL) and _are_loopback(engine.endpoint, config or ""):
        yield from _unreachable("environment_config", config)


def _path_problems(engine: Engine, paths: Sequence[tuple[str, str]]) -> Iterator[str]:
    for flag, path in paths:
        if storage.is_remote(path):
            continue
        if engine.runner in CLUSTERS:
            yield f"--{flag} {path}: expected a remote path such as gs://, which every worker can reach; name one."
        elif not os.path.isabs(path):
            yield f"--{flag} {path}: expected an absolute path, because workers have another working folder; name one."


def _flags_of_s3(beam_options: PipelineOptions) -> Iterator[str]:
    """Yield a sentence if flags of S3 are given that do not reach the workers of a pool."""
    if (beam_options.view_as(PortableOptions).environment_type or "").upper() != EXTERNAL:
        return
    given = beam_options.view_as(S3Options).get_all_options(drop_default=True, current_only=True)
    if flags := " ".join(f"--{name}" for name in sorted(given) if name.startswith("s3_")):
        yield (
            f"{flags}: expected no flag of S3 with --environment_type {EXTERNAL}, because none reaches a worker pool; "
            "set variables such as AWS_ENDPOINT_URL_S3 and AWS_ACCESS_KEY_ID here and where the pool starts."
        )


def _unreachable(flag: str, address: str) -> Iterator[str]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except ValueError:
        yield f"--{flag} {address}: expected HOST:PORT, found something else; name an address."
    except OSError as error:
        yield f"--{flag} {address}: nothing answers there ({error.strerror or error}); start it, or mend the address."


def _are_loopback(*addresses: str) -> bool:
    return all(address.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]") for address in addresses)


def explain(message: str) -> tuple[str, bool | None]:
    """Return a sentence for an engine's message, or the message itself.

    Return also whether another submission may succeed; None if the message does not tell.
    """
    for pattern, sentence in _LASTING.items():
        if re.search(pattern, message):
            return sentence, False
    passing = (sentence for pattern, sentence in _PASSING.items() if re.search(pattern, message))
    return next(((sentence, True) for sentence in passing), (message, None))

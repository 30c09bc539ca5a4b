"""Checks in a worker of an engine elsewhere that it has what a run needs, before any slice is read."""

import functools
import os
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from inference.corpus import storage
from inference.corpus.files import InputFile
from inference.runs import run_folder
from inference.runs.options import RunOptions
from inference.runs.own_files import RUN
from inference.scoring import model_files, runtimes
from models.errors import UserError


class UnfitWorker(UserError):
    """A worker lacks something that the run needs."""


@dataclass(frozen=True)
class Launcher:
    """What a worker has to share with the machine that launched the run."""

    python: tuple[int, int]  # major and minor version
    packages: tuple[tuple[str, str], ...]  # name and version of each package that decides the scores, and of Beam

    @classmethod
    def here(cls) -> "Launcher":
        """Return the facts of this machine."""
        found = {name: run_folder.version_of(name) for name in (*run_folder.DECISIVE_PACKAGES, "apache-beam")}
        return cls(sys.version_info[:2], tuple((name, _public(version)) for name, version in found.items() if version))


class CheckWorker(beam.DoFn):
    """Passes elements on, in workers that have all that a run needs. A launcher and its own processes need no check."""

    def __init__(self, options: RunOptions) -> None:
        super().__init__()
        self._options = options
        self._launcher = Launcher.here()  # in the launching process

    def process(self, element: Any) -> Iterator[Any]:
        """Yield the element.

        Raises:
            UnfitWorker: has a sentence for each problem.
        """
        require(self._options, self._launcher)
        yield element


@functools.cache
def require(options: RunOptions, launcher: Launcher) -> None:
    """Check this worker, once for each launch if it is fit.

    Raises:
        UnfitWorker: has a sentence for each problem, in one line.
    """
    if found := [*_versions(launcher), *_models(options), *_folders(options)]:
        raise UnfitWorker(f"worker {socket.gethostname()}:{os.getpid()} cannot label: " + " ".join(found))


def _versions(launcher: Launcher) -> Iterator[str]:
    here = Launcher.here()
    if here.python != launcher.python:
        yield "expected Python {}.{}, found {}.{}.".format(*launcher.python, *here.python)
    installed, optional = dict(here.packages), ("openvino", "onnxruntime")
    for name, version in launcher.packages:
        found = installed.get(name)
        if found != version and (found or name not in optional):
            yield f"expected {name} {version} as on the launching machine, found {found or 'none'}."


def _models(options: RunOptions) -> Iterator[str]:
    scoring = options.scoring
    try:
        runtimes.choose(scoring.runtime, scoring.precision, scoring.device, scoring.threads)
        model_files.refuse_changed(scoring, model_files.all_local(scoring.models))
    except UserError as error:
        yield _one_line(error)
    except Exception as error:  # a disk or storage raises its own exceptions
        yield f"a model cannot be read from there: {_one_line(error)}"


def _folders(options: RunOptions) -> Iterator[str]:
    try:
        run_folder.require_own(options)
        name = f"{RUN}.{uuid.uuid4().hex}{storage.PART_SUFFIX}"
        storage.write_file(storage.join(options.output, name), b"")
        storage.delete(options.output, [name])
        files = run_folder.read_files(options.output)
    except Exception as error:  # each storage raises its own exceptions
        yield f"--output {options.output} cannot be used from there: {_one_line(error)}"
        return
    yield from _input(files[0])


def _input(file: InputFile) -> Iterator[str]:
    try:
        storage.read_file(file.path, 1)
    except Exception as error:  # each storage raises its own exceptions
        yield f"--input {file.path} cannot be read from there: {_one_line(error)}"


def _public(version: str) -> str:
    """Return a version without the build, which tells torch for CPUs from torch for GPUs."""
    return version.partition("+")[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."

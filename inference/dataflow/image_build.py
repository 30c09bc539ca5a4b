"""Builds the image of Dataflow's workers, and compares an image with this machine."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import orjson
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound

from inference.dataflow import image_context, images
from inference.dataflow.contents import RUNTIMES, TORCH
from inference.dataflow.images import MODELS_FOLDER, ImageFacts
from inference.dataflow.probe import probe
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions
from models import trained_model
from models.arguments import refuse
from models.errors import UserError

GPU_TORCH_INDEX = "https://download.pytorch.org/whl/cu128"
SCORE_TOLERANCE = 1e-4  # largest difference of a score, because torch in fp32 may round differently elsewhere


def check_models(directories: Sequence[str], tag: str) -> list[str]:
    """Check the models and the tag of an image. Return the folder of each model on this machine.

    Raises:
        UserError: has a line for each damaged model or int8 variant, for equal model names, and for a tag that may
            change.
    """
    local = model_files.all_local(directories)
    problems = [problem for problem in [images.tag_problem(tag)] if problem]
    for directory in local:
        try:
            trained_model.verify(directory)
            model_files.fingerprints([directory])
        except UserError as error:
            problems.append(str(error))
    names = [trained_model.model_name(directory) for directory in local]
    if len(set(names)) < len(names):
        problems.append(f"--model: expected folders with different names, found {', '.join(names)}; rename one.")
    refuse(problems)
    return local


def arguments(directories: Sequence[str], *, gpu: bool) -> dict[str, str]:
    """Return the build arguments that the Dockerfile needs."""
    arguments = {
        "COMMIT": image_context.commit(),
        "MODELS": ",".join(f"{name}={sha256}" for name, sha256 in model_files.fingerprints(directories).items()),
    }
    return {**arguments, "TORCH_INDEX": GPU_TORCH_INDEX, "RUNTIMES": ""} if gpu else arguments


def build(
    client: docker.DockerClient,
    directories: Sequence[str],
    tag: str,
    arguments: dict[str, str],
    network: str | None,
) -> None:
    """Build the image and print each step.

    Raises:
        BuildError: a step failed.
        UserError: the engine refused to build, the image does not work, or the files to build from cannot be told from
            others.
    """
    with tempfile.TemporaryDirectory(prefix="labelbeam_image_") as folder:
        image_context.fill(directories, Path(folder))
        try:
            lines = client.api.build(
                path=folder, tag=tag, buildargs=arguments, network_mode=network, rm=True, forcerm=True, decode=True
            )
            for text in _steps(lines):
                print(text, flush=True)
            _add_labels(client, tag)
        except APIError as error:
            raise UserError(f"the engine refused to build: {error.explanation or error}.") from None


def _add_labels(client: docker.DockerClient, tag: str) -> None:
    """Give an image the labels that name its torch and runtimes. Only the image itself knows what was installed."""
    found = _run_probe(client, tag, ["--labels"]).decode().strip()
    layer = io.BytesIO(f"FROM {tag}\nLABEL {found}\n".encode())
    for _ in _steps(client.api.build(fileobj=layer, tag=tag, rm=True, forcerm=True, decode=True)):
        pass


def _steps(lines: Iterator[dict[str, Any]]) -> Iterator[str]:
    for line in lines:
        if "error" in line:
            raise BuildError(line["error"], iter(()))
        text = line.get("stream", "").strip()
        if text.startswith("Step "):
            yield text[:120]


def check(client: docker.DockerClient, directories: Sequence[str], tag: str) -> ImageFacts:
    """Compare the versions, models and scores in an image with those on this machine. Return the image's facts.

    Raises:
        UserError: the image is missing or does not work, or has a line for each version, model or score that differs.
    """
    try:
        facts = ImageFacts.from_labels(tag, client.images.get(tag).labels, "this machine's engine")
    except ImageNotFound:
        raise UserError(f"image {tag}: this machine's engine does not have it; build or pull it.") from None
    labels = {TORCH: facts.torch, RUNTIMES: ",".join(facts.runtimes)}
    inside = _probe_inside(client, directories, tag)
    options = ScoringOptions(tuple(directories), runtime="torch", precision="fp32", device="cpu", scores="all")
    problems = list(_differences(inside, probe(options)))
    found = inside.get("labels")
    if found is None:
        problems.append("an earlier version of labelbeam built it, which names no torch and no runtimes")
    else:
        differing = [name for name in found if labels[name] != found[name]]
        problems += [f"its label {name} is {labels[name]}, and inside is {found[name]}" for name in differing]
    labelled = {name: sha256 for name, sha256 in facts.models.items() if name.split(".")[0] in inside["scores"]}
    for name in sorted(labelled.keys() | inside["fingerprints"].keys()):
        if labelled.get(name) != inside["fingerprints"].get(name):
            problems.append(f"model {name} differs from the one that the image's labels name")
    if problems:
        raise UserError("\n".join(f"image {tag}: {problem}; build it again." for problem in problems))
    return facts


def _probe_inside(client: docker.DockerClient, directories: Sequence[str], tag: str) -> dict[str, Any]:
    models = [f"{MODELS_FOLDER}/{trained_model.model_name(directory)}" for directory in directories]
    probed: dict[str, Any] = orjson.loads(
        _run_probe(client, tag, [*models, "--runtime", "torch", "--precision", "fp32"])
    )
    return probed


def _run_probe(client: docker.DockerClient, tag: str, arguments: Sequence[str]) -> bytes:
    """Run `inference.probe` in an image and return what it prints.

    Raises:
        UserError: the image cannot be started, or the command fails in it.
    """
    command = ["-m", "inference.probe", *arguments]
    try:
        return client.containers.run(tag, command, entrypoint="python", network_mode="none", remove=True)
    except ContainerError as error:
        messages = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise UserError(f"image {tag} does not work: {messages[-1] if messages else error}") from None
    except APIError as error:
        raise UserError(f"image {tag} cannot be started: {error.explanation or error}.") from None


def _differences(inside: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    if inside["python"] != here["python"]:
        yield f"Python is {inside['python']}, here {here['python']}"
    for name, version in here["versions"].items():
        version_inside = inside["versions"].get(name)
        # 2.13.0+cpu and 2.13.0+cu128 are the same version.
        if version_inside is None or version_inside.split("+")[0] != version.split("+")[0]:
            yield f"{name} is {version_inside}, here {version}"
    changed = {name for name, sha256 in here["fingerprints"].items() if inside["fingerprints"].get(name) != sha256}
    for name in sorted(changed):
        yield f"model {name} differs from the one here"
    for name in here["scores"].keys() - changed:
        pairs = zip(inside["scores"][name], here["scores"][name], strict=True)
        difference = max(abs(a[label] - b[label]) for a, b in pairs for label in b)
        if difference > SCORE_TOLERANCE:
            yield f"model {name} gives a probe text a score that differs by {difference:.6f} from the one here"


def show_layers(client: docker.DockerClient, tag: str) -> None:
    """Print the size of the image and of each large layer."""
    image = client.images.get(tag)
    print(f"{tag}: {image.attrs['Size'] / 1e6:,.0f} MB, by layer:")
    for layer in reversed(image.history()):
        if layer["Size"] > 100_000:
            instruction = layer["CreatedBy"].split("#(nop)")[-1].split("/bin/sh -c")[-1]
            print(f"{layer['Size'] / 1e6:8,.1f} MB  {' '.join(instruction.split())[:100]}")

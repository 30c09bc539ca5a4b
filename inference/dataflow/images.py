"""Reads the labels of a container image from its registry, or from the container engine on this machine.

The build writes the labels: the versions of Python, Beam and torch, the runtimes, and the SHA-256 of each model.
"""

import contextlib
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import google.auth
import google.auth.transport.requests
import requests
from docker.errors import DockerException, ImageNotFound, NotFound
from google.auth.exceptions import GoogleAuthError

from models.errors import UserError

MODELS_FOLDER = "/models"  # folder of the models in an image
PREFIX = "org.labelbeam."
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
TIMEOUT_SECONDS = 30.0  # time in which a registry has to answer


@dataclass(frozen=True)
class ImageFacts:
    """The labels of an image that this project built."""

    reference: str  # name and tag of the image
    python_version: str  # minor version of Python, such as 3.11
    beam_version: str  # version of Apache Beam, such as 2.77.0
    commit: str  # commit of the clone that built the image
    models: dict[str, str]  # fingerprint of each model, and with int8 of each variant, as model_files.fingerprints
    torch: str | None  # version of torch with its CUDA, such as 2.13.0+cu128, or with +cpu; None without the label
    runtimes: tuple[str, ...]  # installed runtimes besides torch
    found_in: str  # registry or engine that gave the labels

    @classmethod
    def from_labels(cls, reference: str, labels: dict[str, str], found_in: str) -> "ImageFacts":
        """Return the facts in the labels of an image.

        Raises:
            UserError: this project did not build the image.
        """
        if f"{PREFIX}beam" not in labels:
            raise UserError(
                f"image {reference}: expected one that `python -m inference.container build` made, found one without "
                f"the labels {PREFIX}*; build it again."
            )
        models = dict(part.split("=", 1) for part in labels.get(f"{PREFIX}models", "").split(",") if part)
        return cls(
            reference=reference,
            python_version=labels.get(f"{PREFIX}python", ""),
            beam_version=labels[f"{PREFIX}beam"],
            commit=labels.get("org.opencontainers.image.revision", ""),
            models=models,
            torch=labels.get(f"{PREFIX}torch"),
            runtimes=tuple(name for name in labels.get(f"{PREFIX}runtimes", "").split(",") if name),
            found_in=found_in,
        )


def python_version() -> str:
    """Return the minor version of this Python, such as 3.11."""
    return "{}.{}".format(*sys.version_info)


def tag_of(reference: str) -> str:
    """Return the tag or digest in the reference of an image, or an empty string without one."""
    name = reference.rsplit("/", 1)[-1]
    return name.partition("@")[2] or name.partition(":")[2]


def tag_problem(reference: str) -> str | None:
    """Return a sentence if a reference may name another image tomorrow, else None."""
    if tag_of(reference) in ("", "latest"):
        return (
            f"image {reference}: expected a tag that stays, such as a commit, found {tag_of(reference) or 'none'!r}; "
            "name another tag."
        )
    return None


def inspect(reference: str) -> ImageFacts:
    """Return the facts of an image from its registry, where workers pull it, or else from this machine's engine.

    Raises:
        UserError: neither gives the labels, or this project did not build the image.
    """
    try:
        return ImageFacts.from_labels(reference, _labels_in_registry(reference), "its registry")
    except (requests.RequestException, GoogleAuthError, KeyError, ValueError) as error:
        registry_error = " ".join(str(error).split())[:200]
    try:
        with engine() as client:
            labels = client.images.get(reference).labels
    except ImageNotFound:
        engine_error = "this machine's engine does not have it"
    except UserError:
        engine_error = "no container engine is running here"
    else:
        return ImageFacts.from_labels(reference, labels, "this machine's engine")
    raise UserError(
        f"image {reference}: its registry cannot be read ({registry_error}), and {engine_error}; push it, or check its "
        "name."
    )


@contextlib.contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """Open a client of this machine's container engine, and close it at the end.

    Raises:
        UserError: no engine is running.
    """
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(contextlib.closing(docker.from_env()))
            client.ping()
        except (DockerException, requests.RequestException):
            raise UserError("no container engine is running: start Docker, and check that you may use it.") from None
        yield client


def copy_out(reference: str, path: str, target: Path) -> None:
    """Copy a folder out of an image on this machine into an empty folder, without running the image.

    Raises:
        UserError: no engine is running, or it has no such image, or the image has no such folder.
    """
    with engine() as client, tempfile.TemporaryFile() as packed:
        try:
            container = client.containers.create(reference)
        except ImageNotFound:
            raise UserError(f"image {reference}: this machine's engine does not have it; pull it.") from None
        try:
            for chunk in container.get_archive(path)[0]:
                packed.write(chunk)
        except NotFound:
            raise UserError(f"image {reference} has no folder {path}; check the path.") from None
        finally:
            container.remove()
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive, tempfile.TemporaryDirectory() as unpacked:
            archive.extractall(unpacked, filter="data")
            shutil.copytree(Path(unpacked) / Path(path).name, target, dirs_exist_ok=True)


def _labels_in_registry(reference: str) -> dict[str, str]:
    """Return the labels in the image's configuration, which the registry's HTTP interface gives."""
    host, name, tag = _address(reference)
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    base = f"{scheme}://{host}/v2/{name}"
    with requests.Session() as session:
        if host.endswith((".pkg.dev", "gcr.io")):
            session.headers["Authorization"] = f"Bearer {_google_token()}"
        manifest = _get(session, f"{base}/manifests/{tag}", ", ".join(MANIFEST_TYPES))
        if "manifests" in manifest:  # the image has a manifest for each platform, and workers are amd64
            chosen = next(m for m in manifest["manifests"] if m.get("platform", {}).get("architecture") == "amd64")
            manifest = _get(session, f"{base}/manifests/{chosen['digest']}", ", ".join(MANIFEST_TYPES))
        config = _get(session, f"{base}/blobs/{manifest['config']['digest']}", "*/*")
    labels: dict[str, str] = config.get("config", {}).get("Labels") or {}
    return labels


def _get(session: requests.Session, url: str, accept: str) -> dict[str, Any]:
    response = session.get(url, headers={"Accept": accept}, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    content: dict[str, Any] = response.json()
    return content


def _address(reference: str) -> tuple[str, str, str]:
    host, _, path = reference.partition("/")
    if not path or not re.search(r"[.:]|^localhost$", host):
        raise ValueError("its name has no registry")
    tag = tag_of(reference)
    return host, path.removesuffix(tag).rstrip(":@"), tag


def _google_token() -> str:
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
    return str(credentials.token)

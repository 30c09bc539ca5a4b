"""What a container image says of itself, asked of the registry that holds it or of the engine on this machine.

The build writes it into the image's labels: versions of Python and Beam, and each model's name and SHA-256.
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

MODELS_FOLDER = "/models"  # in the image
PREFIX = "org.labelbeam."
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
SECONDS = 30.0  # for an answer of a registry


@dataclass(frozen=True)
class ImageFacts:
    """What the labels of an image built by this project say."""

    reference: str
    python: str  # minor version, such as 3.11
    beam: str
    commit: str
    models: dict[str, str]  # name: SHA-256 of model.json
    found_in: str  # where it was asked

    @classmethod
    def from_labels(cls, reference: str, labels: dict[str, str], found_in: str) -> "ImageFacts":
        """Reads the labels.

        Raises:
            UserError: the image was not built by this project.
        """
        if f"{PREFIX}beam" not in labels:
            raise UserError(
                f"image {reference}: expected one that `python -m inference.container build` made, found one without "
                f"labels {PREFIX}*; build it again."
            )
        models = dict(part.split("=", 1) for part in labels.get(f"{PREFIX}models", "").split(",") if part)
        return cls(
            reference=reference,
            python=labels.get(f"{PREFIX}python", ""),
            beam=labels[f"{PREFIX}beam"],
            commit=labels.get("org.opencontainers.image.revision", ""),
            models=models,
            found_in=found_in,
        )


def python_version() -> str:
    """The minor version of this Python, as images name it."""
    return "{}.{}".format(*sys.version_info)


def tag_of(reference: str) -> str:
    """The image's tag or digest; empty where none is named."""
    name = reference.rsplit("/", 1)[-1]
    return name.partition("@")[2] or name.partition(":")[2]


def tag_problem(reference: str) -> str | None:
    """Why a reference would not name the same image tomorrow; None where it does."""
    if tag_of(reference) in ("", "latest"):
        return f"image {reference}: expected a tag that stays, such as a commit, found {tag_of(reference) or 'none'!r}."
    return None


def inspect(reference: str) -> ImageFacts:
    """Asks the registry, which is where workers pull from; then the engine on this machine.

    Raises:
        UserError: neither has the image or can be asked, or the project did not build it.
    """
    try:
        return ImageFacts.from_labels(reference, _labels_in_registry(reference), "its registry")
    except (requests.RequestException, GoogleAuthError, KeyError, ValueError) as error:
        in_registry = " ".join(str(error).split())[:200]
    try:
        with engine() as client:
            labels = client.images.get(reference).labels
    except ImageNotFound:
        here = "this machine's engine does not have it"
    except UserError:
        here = "no engine answers here"
    else:
        return ImageFacts.from_labels(reference, labels, "this machine's engine")
    raise UserError(
        f"image {reference}: its registry cannot be asked ({in_registry}), and {here}; push it, or check its name."
    )


@contextlib.contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A client of this machine's container engine, closed at the end.

    Raises:
        UserError: none answers.
    """
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(contextlib.closing(docker.from_env()))
            client.ping()
        except (DockerException, requests.RequestException):
            raise UserError("no container engine answers: start Docker, and check that you may use it.") from None
        yield client


def copy_out(reference: str, path: str, target: Path) -> None:
    """Copies a folder of an image on this machine into an empty one, without running the image.

    Raises:
        UserError: the engine does not answer, or has no such image or folder.
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
            raise UserError(f"image {reference} has no folder {path}.") from None
        finally:
            container.remove()
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive, tempfile.TemporaryDirectory() as unpacked:
            archive.extractall(unpacked, filter="data")
            shutil.copytree(Path(unpacked) / Path(path).name, target, dirs_exist_ok=True)


def _labels_in_registry(reference: str) -> dict[str, str]:
    """The labels in the image's configuration, by the registry's HTTP interface."""
    host, name, tag = _address(reference)
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    base = f"{scheme}://{host}/v2/{name}"
    with requests.Session() as session:
        if host.endswith((".pkg.dev", "gcr.io")):
            session.headers["Authorization"] = f"Bearer {_google_token()}"
        manifest = _get(session, f"{base}/manifests/{tag}", ", ".join(MANIFEST_TYPES))
        if "manifests" in manifest:  # one for each platform: workers are amd64
            chosen = next(m for m in manifest["manifests"] if m.get("platform", {}).get("architecture") == "amd64")
            manifest = _get(session, f"{base}/manifests/{chosen['digest']}", ", ".join(MANIFEST_TYPES))
        config = _get(session, f"{base}/blobs/{manifest['config']['digest']}", "*/*")
    labels: dict[str, str] = config.get("config", {}).get("Labels") or {}
    return labels


def _get(session: requests.Session, url: str, accept: str) -> dict[str, Any]:
    response = session.get(url, headers={"Accept": accept}, timeout=SECONDS)
    response.raise_for_status()
    content: dict[str, Any] = response.json()
    return content


def _address(reference: str) -> tuple[str, str, str]:
    host, _, path = reference.partition("/")
    if not path or not re.search(r"[.:]|^localhost$", host):
        raise ValueError("it names no registry")
    tag = tag_of(reference)
    return host, path.removesuffix(tag).rstrip(":@"), tag


def _google_token() -> str:
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
    return str(credentials.token)

"""Files on local disk and objects in Cloud Storage, by their paths: what Beam's FileSystems do not do by themselves."""

import contextlib
import io
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Self

import orjson
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed, Unauthorized
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import storage

from models.errors import UserError

GS = "gs://"
PART = ".part"  # ends the name of a local file that is still being written
LEASE_SECONDS = 120.0  # without a sign of life for so long its owner is taken to be gone
RENEWALS = 4  # in that time


def configure(beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options. They decide from now on how files are read, such as with whose credentials.

    Raises:
        UserError: a flag of Beam has a wrong value.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # argparse prints the mistake below its usage
            options = PipelineOptions(list(beam_flags))
            options.get_all_options()  # reads every flag
    except SystemExit:
        mistake = said.getvalue().strip().rpartition("error: argument ")[2]
        raise UserError(f"{mistake}; this is a flag of Apache Beam.") from None
    FileSystems.set_options(options)
    return options


def is_remote(path: str) -> bool:
    """Whether a path names an object of some storage, such as gs://bucket/name."""
    return "://" in path


def read_file(path: str) -> bytes:
    """A file's bytes, as they are stored."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        content: bytes = file.read()
        return content


def write_file(path: str, content: bytes) -> None:
    """Writes a file that is seen whole or not at all: an object appears on closing, a local file is renamed.

    Raises:
        UserError: this machine's disk is full, may not be written, or fails.
    """
    if is_remote(path):
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(content)
        return
    staging = f"{path}.{uuid.uuid4().hex}{PART}"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(staging, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(staging)


def matching(pattern: str) -> Iterator[str]:
    """Yield the paths that a glob matches now, in the storage's order."""
    for match in FileSystems.match([pattern]):
        yield from (metadata.path for metadata in match.metadata_list)


def delete_remote(path: str) -> None:
    """Deletes an object and all objects below its path, where there are any."""
    matches = FileSystems.match([path, FileSystems.join(path, "**")])
    if found := [metadata.path for match in matches for metadata in match.metadata_list]:
        FileSystems.delete(found)


def bucket_of(path: str) -> str:
    """The bucket of a gs:// path; empty for others."""
    return path.removeprefix(GS).split("/")[0] if path.startswith(GS) else ""


def bucket_location(bucket: str) -> str | None:
    """Where a bucket is, such as US-CENTRAL1 or EU; None where this account may not look at it.

    Roles for objects alone, such as objectAdmin, do not include buckets.get.
    """
    try:
        return str(_client().get_bucket(bucket).location)
    except Forbidden:
        return None


def bucket_problem(path: str) -> str | None:
    """What is wrong with the bucket that a gs:// path is in; None where its objects can be listed."""
    if not path.startswith(GS):
        return None
    try:
        next(iter(_client().list_blobs(bucket_of(path), max_results=1)), None)
    except Exception as error:  # credentials, network and storage raise their own kinds
        return explained(path, error)
    return None


class Lease:
    """One owner at a time, by an object in Cloud Storage whose generation every write names: a context manager.

    The owner renews it while the body runs. One that was killed leaves the object behind; after LEASE_SECONDS
    without a renewal another may take it.
    """

    def __init__(self, path: str, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Takes the lease.

        Raises:
            UserError: another holds it, or the bucket cannot be written.
        """
        try:
            self._blob = storage.Blob.from_uri(self._path, client=_client())
            generation = self._free_generation()
            self._write(generation)
        except PreconditionFailed:
            raise UserError(f"{self._path}: another run has just begun here; wait for it or stop it.") from None
        except GoogleAPIError as error:
            raise UserError(explained(self._path, error)) from None
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives it back."""
        self._stop.set()
        self._renewer.join()
        with contextlib.suppress(Exception):  # left behind, it runs out
            self._blob.delete(if_generation_match=self._generation)

    def _free_generation(self) -> int:
        """The generation to replace: 0 where there is none."""
        generation, held = self._read()
        age = time.time() - held.get("renewed", 0.0)
        if age < LEASE_SECONDS:
            raise UserError(
                f"{self._path}: another run ({held['owner']}) is at work here, last seen {age:.0f} s ago; wait for it "
                f"or stop it. If it was killed, try again in {LEASE_SECONDS - age:.0f} s."
            )
        return generation

    def _write(self, generation: int) -> None:
        content = orjson.dumps({"owner": self._owner, "token": self._token, "renewed": time.time()})
        try:
            self._blob.upload_from_string(content, "application/json", if_generation_match=generation)
            self._generation = int(self._blob.generation)
        except PreconditionFailed:
            found, held = self._read()
            if held.get("token") != self._token:  # else it was written, and the answer was lost
                raise
            self._generation = found

    def _read(self) -> tuple[int, dict[str, Any]]:
        """The object's generation and what it says; 0 and nothing where there is none."""
        try:
            self._blob.reload()
            generation = int(self._blob.generation)
            return generation, orjson.loads(self._blob.download_as_bytes(if_generation_match=generation))
        except NotFound:
            return 0, {}

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / RENEWALS):
            with contextlib.suppress(Exception):  # of storage or network; the next renewal may do better
                self._write(self._generation)


def create_file(path: str, content: bytes) -> bool:
    """Writes a file only where there is none; False where there is one.

    Two that try at once, on whatever machines, never both succeed in Cloud Storage.
    """
    if not path.startswith(GS):
        if FileSystems.exists(path):
            return False
        write_file(path, content)
        return True
    try:
        storage.Blob.from_uri(path, client=_client()).upload_from_string(content, if_generation_match=0)
    except PreconditionFailed:
        return False
    return True


def _client() -> storage.Client:
    """A client with the credentials that Beam's own reads and writes use, flags such as --no_auth included."""
    return gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions([]))


def explained(path: str, error: Exception) -> str:
    """What is wrong with a path that a storage refuses, and what to do, in one sentence."""
    while details := getattr(error, "exception_details", None):  # Beam wraps what the storage raises, even twice
        error = next(iter(details.values()))
    if isinstance(error, NotFound):
        return f"{path}: there is no such bucket or object; check the name."
    if isinstance(error, Forbidden | Unauthorized | DefaultCredentialsError):
        return (
            f"{path}: permission denied; run `gcloud auth application-default login`, or grant this account access "
            "to the bucket."
        )
    said = getattr(error, "strerror", None) or " ".join(str(error).split())[:300].rstrip(".")
    return f"{path} cannot be reached: {said}."

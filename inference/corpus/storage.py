"""Adds to Beam's FileSystems: whole-file writes, leases, and messages about files on disk and in Cloud Storage."""

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
PART_SUFFIX = ".part"  # suffix of a local file that is still being written
LEASE_SECONDS = 120.0  # a lease that is not renewed for this long is free
RENEWALS = 4  # number of renewals in LEASE_SECONDS


def configure(beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options, and use them for all later access to files, such as for the credentials.

    Raises:
        UserError: a flag of Beam has a wrong value.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):  # argparse prints its usage and then the mistake
            options = PipelineOptions(list(beam_flags))
            options.get_all_options()  # this call parses every flag
    except SystemExit:
        mistake = stderr.getvalue().strip().rpartition("error: argument ")[2]
        raise UserError(f"{mistake}; this is a flag of Apache Beam.") from None
    FileSystems.set_options(options)
    return options


def is_remote(path: str) -> bool:
    """Return whether a path names an object in remote storage, such as gs://bucket/name."""
    return "://" in path


def read_file(path: str) -> bytes:
    """Return a file's bytes as they are stored, without decompression."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        content: bytes = file.read()
        return content


def write_file(path: str, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing.

    An object appears when its upload is complete; a local file is written under another name and renamed.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    if is_remote(path):
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(content)
        return
    staging = f"{path}.{uuid.uuid4().hex}{PART_SUFFIX}"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(staging, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; check the disk and its permissions.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(staging)


def matching(pattern: str) -> Iterator[str]:
    """Yield the paths that a glob matches, in the storage's order."""
    for match in FileSystems.match([pattern]):
        yield from (metadata.path for metadata in match.metadata_list)


def delete_remote(path: str) -> None:
    """Delete an object and all objects below its path, if there are any."""
    matches = FileSystems.match([path, FileSystems.join(path, "**")])
    if paths := [metadata.path for match in matches for metadata in match.metadata_list]:
        FileSystems.delete(paths)


def bucket_of(path: str) -> str:
    """Return the bucket of a gs:// path; an empty string for other paths."""
    return path.removeprefix(GS).split("/")[0] if path.startswith(GS) else ""


def bucket_location(bucket: str) -> str | None:
    """Return the location of a bucket, such as US-CENTRAL1 or EU; None if this account may not read it.

    Reading it needs buckets.get, which roles for objects alone, such as objectAdmin, do not include.
    """
    try:
        return str(_client().get_bucket(bucket).location)
    except Forbidden:
        return None


def bucket_problem(path: str) -> str | None:
    """Return what is wrong with the bucket of a gs:// path; None if its objects can be listed, or for other paths."""
    if not path.startswith(GS):
        return None
    try:
        next(iter(_client().list_blobs(bucket_of(path), max_results=1)), None)
    except Exception as error:  # credentials, network and storage raise their own exceptions
        return explanation(path, error)
    return None


class Lease:
    """A context manager that admits one owner at a time, on any machine, through an object in Cloud Storage.

    Every write names the generation of the object that it replaces, so of two writers only one succeeds. The owner
    renews the lease while the body runs. A killed owner leaves the object behind, and another may take the lease after
    LEASE_SECONDS without a renewal.
    """

    def __init__(self, path: str, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            UserError: another owner holds it, or the bucket cannot be written.
        """
        try:
            self._blob = storage.Blob.from_uri(self._path, client=_client())
            generation = self._free_generation()
            self._write(generation)
        except PreconditionFailed:
            raise UserError(f"{self._path}: another run has just started here; wait for it or stop it.") from None
        except GoogleAPIError as error:
            raise UserError(explanation(self._path, error)) from None
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lease."""
        self._stop.set()
        self._renewer.join()
        with contextlib.suppress(Exception):  # a lease that cannot be deleted runs out
            self._blob.delete(if_generation_match=self._generation)

    def _free_generation(self) -> int:
        """Return the generation to replace; 0 if there is no object.

        Raises:
            UserError: another owner holds the lease.
        """
        generation, held = self._read()
        age = time.time() - held.get("renewed", 0.0)
        if age < LEASE_SECONDS:
            raise UserError(
                f"{self._path}: another run ({held['owner']}) is at work here, last seen {age:.0f} s ago; wait for it, "
                f"stop it, or try again in {LEASE_SECONDS - age:.0f} s if it was killed."
            )
        return generation

    def _write(self, generation: int) -> None:
        content = orjson.dumps({"owner": self._owner, "token": self._token, "renewed": time.time()})
        try:
            self._blob.upload_from_string(content, "application/json", if_generation_match=generation)
            self._generation = int(self._blob.generation)
        except PreconditionFailed:
            current, held = self._read()
            if held.get("token") != self._token:  # with this token, the write succeeded and only its answer was lost
                raise
            self._generation = current

    def _read(self) -> tuple[int, dict[str, Any]]:
        """Return the object's generation and content; 0 and an empty dict if there is no object."""
        try:
            self._blob.reload()
            generation = int(self._blob.generation)
            return generation, orjson.loads(self._blob.download_as_bytes(if_generation_match=generation))
        except NotFound:
            return 0, {}

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / RENEWALS):
            with contextlib.suppress(Exception):  # storage or network may fail; the next renewal may succeed
                self._write(self._generation)


def create_file(path: str, content: bytes) -> bool:
    """Write a file unless it exists; return whether it was written.

    If two machines try at once in Cloud Storage, only one succeeds.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
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
    """Return a client with the credentials of Beam's own reads and writes, including flags such as --no_auth."""
    return gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions([]))


def explanation(path: str, error: Exception) -> str:
    """Return one sentence about a path that storage refuses: what is wrong and what to do."""
    while details := getattr(error, "exception_details", None):  # Beam wraps the error of the storage, even twice
        error = next(iter(details.values()))
    if isinstance(error, NotFound):
        return f"{path}: there is no such bucket or object; check the name."
    if isinstance(error, Forbidden | Unauthorized | DefaultCredentialsError):
        return (
            f"{path}: permission denied; run `gcloud auth application-default login`, or grant this account access "
            "to the bucket."
        )
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300].rstrip(".")
    return f"{path} cannot be reached: {reason}; check the path and the connection."

"""Cloud Storage, through one client that Beam's own reads and writes use as well.

Beam 2.77 makes a new client for each operation, with new connections and credentials.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed, Unauthorized
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from inference.corpus.objects import ConflictError
from models.paths import GS

_create = gcsio.create_storage_client  # before `adopt`
_clients: dict[tuple[str, str | None, bool], storage.Client] = {}  # by options and environment
EMULATOR = "STORAGE_EMULATOR_HOST"  # variable that names another server than the real one
CONNECTIONS = 64  # most connections of a process that are kept open
DELETERS = 16  # threads that delete objects


def client() -> storage.Client:
    """Return the client that Beam's options describe, including flags such as --no_auth."""
    return _client_for(FileSystems._pipeline_options or PipelineOptions([]))


def _client_for(options: PipelineOptions, use_credentials: bool = True) -> storage.Client:
    """Return one client for all that happens under the same options and environment.

    With --no_auth, Beam would look for credentials all the same, which takes half a minute where there are none.
    """
    use_credentials = use_credentials and not options.view_as(GoogleCloudOptions).no_auth
    given = repr(sorted(options.get_all_options(drop_default=True).items(), key=str))
    key = given, os.environ.get(EMULATOR), use_credentials
    if key not in _clients:
        made = _create(options, use_credentials)
        for scheme in ("https://", "http://"):
            made._http.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        _clients[key] = made
    return _clients[key]


def adopt() -> None:
    """Let Beam's access to Cloud Storage in this process use the client of this module."""
    gcsio.create_storage_client = _client_for


def get(path: str, size: int) -> bytes:
    """Return the bytes of an object, or the first `size` of them; all if `size` is negative."""
    blob = storage.Blob.from_uri(path, client=client())
    return bytes(blob.download_as_bytes(end=size - 1 if size > 0 else None, raw_download=True))


def is_missing(error: Exception) -> bool:
    """Return whether an error of `get` says that there is no object."""
    return isinstance(error, NotFound)


def read(path: str) -> tuple[str, bytes] | None:
    """Return the generation and the content of an object, or None if there is no object."""
    reader = client()
    while True:
        blob = storage.Blob.from_uri(path, client=reader)
        try:
            blob.reload()
        except NotFound:
            return None
        with contextlib.suppress(NotFound, PreconditionFailed):  # another generation has come in between
            return str(blob.generation), blob.download_as_bytes(if_generation_match=int(blob.generation))


def write(path: str, content: bytes, version: str | None) -> str:
    """Write an object in place of this generation, or a new one, and return its generation.

    Raises:
        ConflictError: the object has another generation.
    """
    blob = storage.Blob.from_uri(path, client=client())
    try:
        blob.upload_from_string(content, if_generation_match=int(version or 0))
    except PreconditionFailed:
        raise ConflictError(path) from None
    return str(blob.generation)


def upload(path: str, file: IO[bytes]) -> None:
    """Write an object, which appears when its upload is complete. A small one takes one request."""
    blob = storage.Blob.from_uri(path, client=client())
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    blob.upload_from_file(file, size=size, retry=DEFAULT_RETRY)  # a repetition writes the same object again


def delete(paths: Sequence[str]) -> None:
    """Delete objects. An object that is gone already is no error."""
    deleter = client()

    def delete_one(path: str) -> None:
        with contextlib.suppress(NotFound):
            storage.Blob.from_uri(path, client=deleter).delete(retry=DEFAULT_RETRY)

    if len(paths) == 1:
        delete_one(paths[0])
    elif paths:
        with ThreadPoolExecutor(DELETERS) as pool:
            list(pool.map(delete_one, paths))


def touch_bucket(path: str) -> None:
    """Ask the bucket of a path for one object."""
    next(iter(client().list_blobs(bucket_of(path), max_results=1)), None)


def explain(error: Exception) -> str | None:
    """Return what is wrong and what to do, if users can mend it."""
    if isinstance(error, NotFound):
        return ": there is no such bucket or object; check the name."
    if isinstance(error, Forbidden | Unauthorized | DefaultCredentialsError):
        return (
            ": permission denied; run `gcloud auth application-default login`, or grant this account access to the "
            "bucket."
        )
    return None


def bucket_of(path: str) -> str:
    """Return the bucket of a gs:// path; an empty string for other paths."""
    return path.removeprefix(GS).split("/")[0] if path.startswith(GS) else ""


def bucket_location(bucket: str) -> str | None:
    """Return the location of a bucket, such as US-CENTRAL1 or EU; None if this account may not read it.

    Reading it needs buckets.get, which roles for objects alone, such as objectAdmin, do not include.
    """
    try:
        return str(client().get_bucket(bucket).location)
    except Forbidden:
        return None

"""Adds to Beam's FileSystems: whole-file writes, and messages about files on disk and in Cloud Storage."""

import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed, Unauthorized
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import storage

from models.errors import UserError

GS = "gs://"
PART_SUFFIX = ".part"  # suffix of a local file that is still being written
DELETERS = 16  # threads that delete objects


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
    finally:
        _forget_handlers_of(stderr)
    FileSystems.set_options(options)
    return options


def _forget_handlers_of(stream: IO[str]) -> None:
    """Remove the log handlers that Beam has installed on a stream while it parsed its flags."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            root.removeHandler(handler)


def is_remote(path: str) -> bool:
    """Return whether a path names an object in remote storage, such as gs://bucket/name."""
    return "://" in path


def open_file(path: str) -> BinaryIO:
    """Open a file to read its bytes as they are stored, without decompression."""
    return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_file(path: str, size: int = -1) -> bytes:
    """Return a file's bytes as they are stored, or the first `size` of them."""
    with open_file(path) as file:
        return file.read(size)


def read_checked(path: str, sha256: str, remedy: str = "put it back as it was") -> bytes:
    """Return the content of a file that was written with this SHA-256. An error ends with the remedy.

    Raises:
        UserError: the file is gone, or has another SHA-256.
    """
    return b"".join(lines_checked(path, sha256, remedy))


def lines_checked(path: str, sha256: str, remedy: str = "put it back as it was") -> Iterator[bytes]:
    """Yield the lines of a file that was written with this SHA-256, with their newlines.

    Raises:
        UserError: the file is gone; or, after its last line, it has another SHA-256. The error ends with the remedy.
    """
    if not FileSystems.exists(path):
        raise UserError(f"{path}: expected this file, as its run or delta wrote it, found none; {remedy}.")
    digest = hashlib.sha256()
    with open_file(path) as file:
        for line in file:
            digest.update(line)
            yield line
    if (found := digest.hexdigest()) != sha256:
        raise UserError(
            f"{path} has changed since it was written: expected SHA-256 {sha256[:12]}…, found {found[:12]}…; {remedy}."
        )


def write_file(path: str, content: bytes | IO[bytes]) -> None:
    """Write a file, or replace it, so that readers see all of it or nothing.

    An object appears when its upload is complete; a local file is written under another name and renamed.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    if is_remote(path):
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            shutil.copyfileobj(source, file)
        return
    _write_local(path, source, os.replace)


def create_file(path: str, content: bytes) -> bool:
    """Write a file unless it exists; return whether it holds this content now.

    If two processes try at once, only one succeeds, on a local disk and in Cloud Storage. Other storages have no such
    operation, so there both may succeed, and the later one's content stays.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    try:
        if path.startswith(GS):
            storage.Blob.from_uri(path, client=client()).upload_from_string(content, if_generation_match=0)
        elif is_remote(path):
            if FileSystems.exists(path):
                raise FileExistsError(path)
            write_file(path, content)
        else:
            _write_local(path, io.BytesIO(content), _link)
    except (PreconditionFailed, FileExistsError):
        return read_file(path) == content  # equal if the write succeeded and only its answer was lost
    return True


def _write_local(path: str, source: IO[bytes], publish: Callable[[str, str], None]) -> None:
    """Write a file under another name, then give it its own with `publish`."""
    staging = f"{path}.{uuid.uuid4().hex}{PART_SUFFIX}"
    try:
        with _open_new(staging) as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        publish(staging, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; check the disk and its permissions.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(staging)


def _open_new(path: str) -> IO[bytes]:
    """Create a file and its folder, which another process may delete in between if it is empty."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    try:
        return open(path, "wb")
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        return open(path, "wb")


def _link(staging: str, path: str) -> None:
    """Give a file a second name, which must not exist yet."""
    try:
        os.link(staging, path)
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links; there, two processes at the same moment both succeed
        if os.path.exists(path):
            raise FileExistsError(path) from None
        os.replace(staging, path)


def listing(folder: str, prefix: str = "") -> Iterator[str]:
    """Yield the names with a prefix of the files in a folder, not in its subfolders. The folder may be missing.

    The folder is taken literally, so no character of it is a wildcard. A remote storage looks only at names with the
    prefix, so that a lookup in a large folder is quick.

    Raises:
        UserError: the folder is remote and its name has a wildcard.
    """
    if is_remote(folder):
        refuse_wildcards(folder + prefix)
        for match in FileSystems.match([FileSystems.join(folder, f"{prefix}*")]):
            yield from (metadata.path.rpartition("/")[2] for metadata in match.metadata_list)
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from (
            entry.name for entry in entries if entry.name.startswith(prefix) and not entry.is_dir(follow_symlinks=False)
        )


def times(folder: str, prefix: str = "") -> dict[str, float]:
    """Return when each file of a folder with a prefix was last written, by name, in seconds by the storage's clock."""
    if is_remote(folder):
        refuse_wildcards(folder + prefix)
        (match,) = FileSystems.match([FileSystems.join(folder, f"{prefix}*")])
        return {found.path.rpartition("/")[2]: found.last_updated_in_seconds for found in match.metadata_list}
    written = {}
    for name in listing(folder, prefix):
        with contextlib.suppress(FileNotFoundError):
            written[name] = os.stat(os.path.join(folder, name)).st_mtime
    return written


def delete(folder: str, names: Sequence[str]) -> None:
    """Delete files of a folder. A file that is gone already is no error."""
    paths = [FileSystems.join(folder, name) for name in names]
    if is_remote(folder):
        refuse_wildcards(folder)
        with ThreadPoolExecutor(DELETERS) as pool:  # Beam deletes one after another
            list(pool.map(lambda path: FileSystems.delete([path]), paths))
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def refuse_wildcards(path: str) -> None:
    """Refuse a remote path that Beam would take for a pattern of names.

    Raises:
        UserError: the path is remote and has one of the characters * ? [.
    """
    if is_remote(path) and re.search(r"[*?\[]", path):
        raise UserError(f"{path}: expected the name of a folder, found a wildcard (* ? [); name one folder.")


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


def bucket_problem(path: str) -> str | None:
    """Return what is wrong with the storage of a path; None if it is known and a bucket's objects can be listed."""
    try:
        FileSystems.get_filesystem(path)
    except ValueError:
        return f"{path}: expected a local path or one of gs://, found {path.partition('://')[0]}://; name another."
    if not path.startswith(GS):
        return None
    if len(path.splitlines()) > 1:
        return f"{path!r}: expected a path without line breaks, found one; name another."
    try:
        next(iter(client().list_blobs(bucket_of(path), max_results=1)), None)
    except Exception as error:  # credentials, network and storage raise their own exceptions
        return explanation(path, error)
    return None


def client() -> storage.Client:
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

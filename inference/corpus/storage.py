"""Reads and writes files on disk, in Cloud Storage and in S3: whole or not at all, with messages for people.

Remote files and globs go through Beam's FileSystems. Beam takes more than a second to load, so nothing else imports it.
"""

import contextlib
import errno
import functools
import hashlib
import importlib
import io
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from inference.corpus.objects import ConflictError, Objects
from models.errors import UserError
from models.paths import GS, S3, problem
from models.paths import is_remote as is_remote

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileMetadata
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

OBJECTS = {GS: "gcs", S3: "s3"}  # module of this room for each remote storage
PART_SUFFIX = ".part"  # suffix of a local file that is still being written
SETTLE_SECONDS = 1.0  # most time to wait for the content of a local file that another process has just created


def configure(beam_flags: Sequence[str]) -> "PipelineOptions":
    """Return Beam's options, and use them for all later access to files, such as for the credentials.

    Raises:
        UserError: a flag of Beam has a wrong value.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

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
    objects(S3).adopt()
    return options


def _forget_handlers_of(stream: IO[str]) -> None:
    """Remove the log handlers that Beam has installed on a stream while it parsed its flags."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            root.removeHandler(handler)


def objects(path: str) -> Objects:
    """Return the storage of a remote path."""
    return _storage(path[:5])


@functools.cache
def _storage(scheme: str) -> Objects:
    return cast(Objects, importlib.import_module(f"inference.corpus.{OBJECTS[scheme]}"))


def join(folder: str, *names: str) -> str:
    """Return the path of a file below a folder."""
    return "/".join([folder.rstrip("/"), *names]) if is_remote(folder) else os.path.join(folder, *names)


def exists(path: str) -> bool:
    """Return whether a path is that of a file."""
    return bool(_beam(path).exists(path)) if is_remote(path) else os.path.exists(path)


def size(path: str) -> int:
    """Return the number of bytes of a file as it is stored."""
    return _beam(path).get_filesystem(path).metadata(path).size_in_bytes if is_remote(path) else os.path.getsize(path)


def match(pattern: str, limit: int | None = None) -> list["FileMetadata"]:
    """Return what the storage knows of each file, or of the first ones, whose path matches a pattern of Beam."""
    return list(_beam(pattern).match([pattern], limits=[limit])[0].metadata_list)


def _beam(path: str) -> type["FileSystems"]:
    """Return Beam's access to files, ready for a path. Workers and programs in Python never call `configure`."""
    from apache_beam.io.filesystems import FileSystems

    if is_remote(path):
        objects(path).adopt()
    return FileSystems


def open_file(path: str) -> BinaryIO:
    """Open a file to read its bytes as they are stored, without decompression."""
    if not is_remote(path):
        return open(path, "rb")
    return cast(BinaryIO, _beam(path).open(path, compression_type="uncompressed"))


def read_file(path: str, size: int = -1) -> bytes:
    """Return a file's bytes as they are stored, or the first `size` of them."""
    if is_remote(path):
        return objects(path).get(path, size)
    with open_file(path) as file:
        return file.read(size)


def read_if_there(path: str) -> bytes | None:
    """Return a file's bytes as they are stored, or None if there is no file."""
    try:
        return read_file(path)
    except Exception as error:  # each storage raises its own exceptions
        if objects(path).is_missing(error) if is_remote(path) else isinstance(error, FileNotFoundError):
            return None
        raise


def read_checked(path: str, sha256: str, remedy: str = "put it back as it was") -> bytes:
    """Return the content of a file that was written with this SHA-256. An error ends with the remedy.

    Raises:
        UserError: the file is gone, or has another SHA-256.
    """
    content = read_if_there(path)
    if content is None:
        raise UserError(f"{path}: expected this file, as its run or delta wrote it, found none; {remedy}.")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(
            f"{path} has changed since it was written: expected SHA-256 {sha256[:12]}…, found {found[:12]}…; {remedy}."
        )
    return content


def write_file(path: str, content: bytes | IO[bytes]) -> None:
    """Write a file, or replace it, so that readers see all of it or nothing.

    An object appears when its upload is complete; a local file is written under another name and renamed.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    if is_remote(path):
        objects(path).upload(path, source)
        return
    _write_local(path, source, os.replace)


def create_file(path: str, content: bytes) -> bool:
    """Write a file unless it exists; return whether it holds this content now.

    If two processes try at once, only one succeeds.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    try:
        if is_remote(path):
            objects(path).write(path, content, None)
        else:
            _write_local(path, io.BytesIO(content), _link)
    except (ConflictError, FileExistsError):
        return read_settled(path) == content  # equal if the write succeeded and only its answer was lost
    return True


def replace_file(path: str, content: bytes, require_own: Callable[[], None]) -> None:
    """Write a file of a fixed name, or replace it, while its folder belongs to this process.

    `require_own` raises an error if the folder belongs to another process. If one writes the file after that call, a
    remote storage writes nothing, and `require_own` is asked again.

    Raises:
        UserError: the local disk is full, is read-only, or fails.
    """
    if not is_remote(path):
        require_own()
        write_file(path, content)
        return
    while True:
        version, found = objects(path).read(path) or (None, None)
        if found == content:  # the write succeeded and only its answer was lost
            return
        require_own()
        with contextlib.suppress(ConflictError):
            objects(path).write(path, content, version)
            return


def read_settled(path: str) -> bytes:
    """Return the content of a file, which `_link` may give to a local one a moment after its name."""
    end = time.monotonic() + SETTLE_SECONDS
    while not (content := read_file(path)) and not is_remote(path) and time.monotonic() < end:
        time.sleep(0.01)
    return content


@contextlib.contextmanager
def new_file(path: str) -> Iterator[IO[bytes]]:
    """Open a file to write a large content. It appears, or replaces an earlier one, when all of it is written.

    Raises:
        UserError: the local disk is full, is read-only, or fails, or the remote storage does.
    """
    if not is_remote(path):
        with _staged(path, os.replace) as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        try:
            objects(path).upload(path, file)
        except Exception as error:  # each storage raises its own exceptions
            raise UserError(explanation(path, error)) from None


def _write_local(path: str, source: IO[bytes], publish: Callable[[str, str], None]) -> None:
    with _staged(path, publish) as file:
        shutil.copyfileobj(source, file)


@contextlib.contextmanager
def _staged(path: str, publish: Callable[[str, str], None]) -> Iterator[IO[bytes]]:
    """Open a file under another name. When it is written, give it its own with `publish`."""
    staging = f"{path}.{uuid.uuid4().hex}{PART_SUFFIX}"
    try:
        with _open_new(staging) as file:
            yield file
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
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "a folder of its path is a file") from None
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
    except OSError:  # some file systems have no links; there, a file is empty for a moment
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
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
        yield from (found.path.rpartition("/")[2] for found in match(join(folder, f"{prefix}*")))
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from (
            entry.name for entry in entries if entry.name.startswith(prefix) and not entry.is_dir(follow_symlinks=False)
        )


def times(folder: str, prefix: str = "") -> dict[str, float]:
    """Return when each file of a folder with a prefix was last written, by name, in seconds by the storage's clock."""
    if is_remote(folder):
        refuse_wildcards(folder + prefix)
        found = match(join(folder, f"{prefix}*"))
        return {file.path.rpartition("/")[2]: file.last_updated_in_seconds for file in found}
    written = {}
    for name in listing(folder, prefix):
        with contextlib.suppress(FileNotFoundError):
            written[name] = os.stat(os.path.join(folder, name)).st_mtime
    return written


def ages(folder: str, prefix: str = "") -> dict[str, float]:
    """Return how many seconds ago each file of a folder with a prefix was written, by the storage's own clock.

    Two machines' clocks may differ. A file that is written now, and deleted at once, tells the storage's time.
    """
    probe = f"{prefix}{uuid.uuid4().hex}"
    write_file(join(folder, probe), b"")
    written = times(folder, prefix)
    delete(folder, [probe])
    now = written.pop(probe)
    return {name: now - then for name, then in written.items()}


def delete(folder: str, names: Sequence[str]) -> None:
    """Delete files of a folder. A file that is gone already is no error."""
    paths = [join(folder, name) for name in names]
    if is_remote(folder):
        refuse_wildcards(folder)
        objects(folder).delete(paths)
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


def require_conditions(folder: str) -> None:
    """Check that a folder can be written and that its storage lets only one of two writers succeed.

    Raises:
        UserError: it cannot be written, or its server ignores the conditions of writes, as old servers for S3 do.
    """
    try:
        if folder.startswith(S3):
            from inference.corpus import s3

            s3.require_conditions(folder)
    except UserError:
        raise
    except Exception as error:  # each storage raises its own exceptions
        raise UserError(explanation(f"--output {folder}", error)) from None


def bucket_problem(path: str) -> str | None:
    """Return what is wrong with the storage of a path; None if it is known and a bucket's objects can be listed."""
    if wrong := problem(path):
        return f"{path}: {wrong}."
    if not is_remote(path):
        return None
    if len(path.splitlines()) > 1:
        return f"{path!r}: expected a path without line breaks, found one; name another."
    try:
        objects(path).touch_bucket(path)
    except Exception as error:  # credentials, network and storage raise their own exceptions
        return explanation(path, error)
    return None


def explanation(path: str, error: Exception) -> str:
    """Return one sentence about a path that storage refuses: what is wrong and what to do."""
    while details := getattr(error, "exception_details", None):  # Beam wraps the error of the storage, even twice
        error = next(iter(details.values()))
    for scheme in OBJECTS:
        if scheme in path and (reason := objects(scheme).explain(error)):  # the name of a flag may precede the path
            return f"{path}{reason}"
    reason = getattr(error, "strerror", None) or " ".join(str(getattr(error, "message", error)).split())[:300].rstrip(
        "."
    )
    return f"{path} cannot be reached: {reason}; check the path and the connection."

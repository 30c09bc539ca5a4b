"""S3, through the client that Beam's own reads use as well, and what Beam's access to S3 lacks.

Beam 2.77 makes a new client for each operation, which takes 0.1 s, and repeats a request for eight minutes if the
endpoint or the credentials are wrong. It cannot write an empty object, and completes an object whose writer failed.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from typing import IO, Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.io.aws.s3io import parse_s3_path
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from inference.corpus.objects import ConflictError
from models.errors import UserError
from models.paths import problem

CONNECTIONS = 64  # most connections of a process that are kept open
BATCH = 1000  # most objects that one request deletes
PAUSES = (0.1, 0.3, 1.0)  # seconds before a write is repeated that met another one, or a read that broke off
# Together they end a request that gets no answer before a lease runs out, and boto3's own values do not.
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 20}  # seconds
ATTEMPTS = 4  # number of times that a request is tried, unless the user's settings of AWS say otherwise
SETTINGS = {  # flags of Beam as arguments of boto3
    "s3_region_name": "region_name",
    "s3_api_version": "api_version",
    "s3_verify": "verify",
    "s3_endpoint_url": "endpoint_url",
    "s3_access_key_id": "aws_access_key_id",
    "s3_secret_access_key": "aws_secret_access_key",
    "s3_session_token": "aws_session_token",
}


def client(options: PipelineOptions | None = None) -> Any:
    """Return the client that Beam's options describe. What they leave open, boto3 takes from its environment."""
    given = (options or FileSystems._pipeline_options or PipelineOptions([])).view_as(S3Options)
    settings = {name: value for flag, name in SETTINGS.items() if (value := getattr(given, flag)) is not None}
    return _client(use_ssl=not given.s3_disable_ssl, **settings)


@cache
def _client(**settings: Any) -> Any:
    if missing := problem("s3://b"):
        raise UserError(f"{missing}.")
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    retries = None if Session().get_config_variable("max_attempts") else {"total_max_attempts": ATTEMPTS}
    config = Config(max_pool_connections=CONNECTIONS, retries=retries, **TIMEOUTS)
    return boto3.session.Session().client("s3", config=config, **settings)


class _BeamClient(boto3_client.Client):
    """The client of one operation of Beam, which shares boto3's client with all others.

    Until the storage has answered for the first time, Beam does not repeat a request after boto3 has given up.
    """

    answered = False

    def __init__(self, options: PipelineOptions | dict[str, Any]) -> None:
        if isinstance(options, dict):  # as some runners of Beam hand them on
            super().__init__(options)
            return
        self.client = client(options)
        self._download_request = self._download_stream = None
        self._download_pos = 0

    def get_object_metadata(self, request: Any) -> Any:
        """Return what the storage knows of an object."""
        return _first_time(super().get_object_metadata, request)

    def list(self, request: Any) -> Any:
        """Return one page of a listing."""
        return _first_time(super().list, request)


def _first_time(ask: Callable[[Any], Any], request: Any) -> Any:
    try:
        answer = ask(request)
    except S3ClientError as error:
        if error.code is not None and error.code < 500:
            _BeamClient.answered = True
        elif not _BeamClient.answered:
            error.code = 0  # Beam would repeat it
        raise
    _BeamClient.answered = True
    return answer


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error; None if there was no answer, on which Beam's own function fails."""
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None


def adopt() -> None:
    """Let Beam's access to S3 in this process use the client of this module."""
    if boto3_client.Client is not _BeamClient:
        boto3_client.Client, boto3_client.get_http_error_code = _BeamClient, _status
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))  # Beam cannot open S3 without options


def read(path: str) -> tuple[str, bytes] | None:
    """Return the ETag and the content of an object, or None if there is no object."""
    try:
        return _download(path)
    except client().exceptions.NoSuchKey:
        return None


def get(path: str, size: int) -> bytes:
    """Return the bytes of an object, or the first `size` of them; all if `size` is negative."""
    return _download(path, **({"Range": f"bytes=0-{size - 1}"} if size > 0 else {}))[1]


def _download(path: str, **part: str) -> tuple[str, bytes]:
    """Return the ETag and the bytes of an object. Ask again if an answer breaks off, which boto3 does not."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    bucket, key = parse_s3_path(path)
    for pause in (*PAUSES, None):
        found = client().get_object(Bucket=bucket, Key=key, **part)
        try:
            return str(found["ETag"]), found["Body"].read()
        except (HTTPClientError, IncompleteReadError):
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError  # the last pause is None


def is_missing(error: Exception) -> bool:
    """Return whether an error of `get` says that there is no object."""
    return _status(error) == 404


def write(path: str, content: bytes, version: str | None) -> str:
    """Write an object in place of that with this ETag, or a new one, and return its ETag.

    Equal contents may have equal ETags, so a content that is replaced must never come back.

    Raises:
        ConflictError: the object has another ETag, or is gone.
    """
    bucket, key = parse_s3_path(path)
    condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
    for pause in (*PAUSES, None):
        try:
            return str(client().put_object(Bucket=bucket, Key=key, Body=content, **condition)["ETag"])
        except client().exceptions.ClientError as error:
            status = _status(error)
            if status == 412 or (version and status == 404):
                raise ConflictError(path) from None
            if status != 409 or pause is None:  # 409: another conditional write was under way
                raise
        time.sleep(pause)
    raise AssertionError  # the last pause is None


def upload(path: str, file: IO[bytes]) -> None:
    """Write an object of any size, which appears when its upload is complete."""
    from boto3.s3.transfer import TransferConfig

    bucket, key = parse_s3_path(path)
    client().upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))


def delete(paths: Sequence[str]) -> None:
    """Delete objects of one bucket. An object that is gone already is no error.

    Raises:
        OSError: an object could not be deleted.
    """
    names = [parse_s3_path(path) for path in paths]
    for start in range(0, len(names), BATCH):
        keys = [{"Key": key} for _, key in names[start : start + BATCH]]
        answer = client().delete_objects(Bucket=names[0][0], Delete={"Objects": keys, "Quiet": True})
        for error in answer.get("Errors", []):
            raise OSError(f"{error['Key']} could not be deleted: {error['Message']}")


def touch_bucket(path: str) -> None:
    """Ask the bucket of a path for one object."""
    client().list_objects_v2(Bucket=parse_s3_path(f"{path}/", object_optional=True)[0], MaxKeys=1)


def require_conditions(folder: str) -> None:
    """Check on an object of its own that the server obeys the conditions of writes. An old one ignores them.

    Raises:
        UserError: a write succeeded whose condition was not met.
    """
    path = f"{folder.rstrip('/')}/.lock.{uuid.uuid4().hex}"
    try:
        with contextlib.suppress(ConflictError):  # the object is there, but the first answer was lost
            write(path, b"", None)
        for condition, version in (("If-None-Match", None), ("If-Match", f'"{uuid.uuid4().hex}"')):
            try:
                write(path, condition.encode(), version)
            except ConflictError:
                continue
            raise UserError(
                f"--output {folder}: expected a server that obeys {condition} in PutObject, found one that ignores it, "
                "so two runs could mix; update the server, or write to another storage."
            )
    finally:
        delete([path])


def explain(error: Exception) -> str | None:
    """Return what is wrong and what to do, if users can mend it."""
    code = error.code if isinstance(error, S3ClientError) else _status(error)
    if code == 404:
        return ": there is no such bucket or object; check the name."
    if code in (401, 403) or "Unable to locate credentials" in str(error):
        return (
            ": permission denied; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure`, or grant this "
            "account access to the bucket."
        )
    return None

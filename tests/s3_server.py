"""S3 for tests: moto's server, which fails on demand and can forget what conditions of writes are."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.cloud_storage import LOST, Fault

BROKEN = "broken"  # a fault: an answer of which only half the body arrives
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
CONDITIONS = {"If-None-Match": "HTTP_IF_NONE_MATCH", "If-Match": "HTTP_IF_MATCH"}


class S3:
    """A running server. `fault` and `ignored` may be set at any time."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault = lambda method, path: None
        self.ignored: tuple[str, ...] = ()  # conditions that the server does not know
        self.requests: list[tuple[str, str]] = []
        self.failed = 0
        self.at_once = threading.Lock()  # moto compares and writes in two steps
        self.app = DomainDispatcherApplication(create_backend_app)

    def reset(self, bucket: str) -> None:
        """Forget everything, and make one bucket."""
        with self.at_once:
            s3_backends.reset()
        self.fault, self.ignored, self.failed = lambda method, path: None, (), 0
        self.client.create_bucket(Bucket=bucket)
        self.requests.clear()

    @cached_property
    def client(self) -> Any:
        """Return a client that works with any environment."""
        return boto3.session.Session().client("s3", endpoint_url=self.url, **CREDENTIALS)

    def upload(self, bucket: str, name: str, content: bytes) -> str:
        """Write an object, and return its path."""
        self.client.put_object(Bucket=bucket, Key=name, Body=content)
        return f"s3://{bucket}/{name}"

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=bucket, Key=name)

    def contents(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return the content of every object below a prefix, by the rest of its name."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {
            name.removeprefix(prefix): self.client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names
        }

    def writes(self) -> int:
        """Return how many objects were written."""
        return sum(method == "PUT" for method, _ in self.requests)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer a request, or do what the fault says."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        for condition in self.ignored:
            environ.pop(CONDITIONS[condition], None)
        fault = self.fault(method, path)
        self.failed += fault is not None
        if isinstance(fault, float):
            time.sleep(fault)
        if fault in (None, LOST, BROKEN) or isinstance(fault, float):
            with self.at_once:
                answer = list(self.app(environ, start_response if fault != LOST else lambda *_: None))
            if fault == BROKEN:
                body = b"".join(answer)
                return [body[: len(body) // 2]]
            if fault != LOST:
                return answer
        start_response(f"{fault if isinstance(fault, int) else 500} Fault", [("Content-Length", "0")])
        return []


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Print no line for each request."""


@contextmanager
def running() -> Iterator[S3]:
    """Run the server without a bucket. The caller has to set AWS_ENDPOINT_URL_S3 and the credentials."""
    state = S3()
    server = make_server("127.0.0.1", 0, state, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Cloud Storage for tests: the emulator, taught preconditions, made to fail on demand."""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unittest import mock

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

# What happens to a request (method, path) instead of being answered: nothing, an HTTP status, its connection is cut, or
# it is done and the answer is lost.
Fault = Callable[[str, str], "str | int | None"]
DROP, LOST = "drop", "lost"


class CloudStorage:
    """A running emulator. `fault` may be set at any time; `requests` are the methods and paths that came."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.failed = 0

    @property
    def client(self) -> storage.Client:
        """Works whatever the environment says."""
        options = {"api_endpoint": self.url}
        return storage.Client("test", credentials=AnonymousCredentials(), client_options=options)

    def upload(self, bucket: str, name: str, content: bytes) -> str:
        """Writes an object; returns its path."""
        self.client.bucket(bucket).blob(name).upload_from_string(content)
        return f"gs://{bucket}/{name}"

    def contents(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Every object of a bucket below a prefix, by the rest of its name."""
        blobs = self.client.list_blobs(bucket, prefix=prefix)
        return {blob.name.removeprefix(prefix): blob.download_as_bytes() for blob in blobs}


@contextmanager
def running(bucket: str) -> Iterator[CloudStorage]:
    """Starts the emulator with one bucket. To set STORAGE_EMULATOR_HOST is up to the caller."""
    state = CloudStorage()
    handlers = tuple(
        (pattern, {method: _with_precondition(handle) for method, handle in methods.items()})
        for pattern, methods in server.HANDLERS
    )
    handler = type("Handler", (_Handler,), {"state": state})
    with mock.patch.object(server, "HANDLERS", handlers), mock.patch.object(server, "RequestHandler", handler):
        emulator = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
        emulator.start()
        while emulator._api._httpd is None:
            threading.Event().wait(0.01)
        state.url = f"http://127.0.0.1:{emulator._api._httpd.server_address[1]}"
        try:
            yield state
        finally:
            emulator.stop()


class _Handler(server.RequestHandler):
    state: CloudStorage

    def _or_fault(self, answer: Callable[[], None]) -> None:
        self.state.requests.append((self.command, self.path))
        fault = self.state.fault(self.command, self.path)
        if fault is None:
            answer()
            return
        self.state.failed += 1
        if fault == LOST:
            self.wfile = io.BytesIO()
            answer()
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if isinstance(fault, int):
            self.send_error(fault)
        else:
            self.close_connection = True

    def do_GET(self) -> None:
        self._or_fault(super().do_GET)

    def do_POST(self) -> None:
        self._or_fault(super().do_POST)

    def do_PUT(self) -> None:
        self._or_fault(super().do_PUT)

    def do_DELETE(self) -> None:
        self._or_fault(super().do_DELETE)


def _with_precondition(handle: Callable[..., None]) -> Callable[..., None]:
    """The emulator does not know ifGenerationMatch: compares it first. Requests come one at a time."""

    def checked(request: Any, response: Any, store: Any) -> None:
        if wanted := request.query.get("ifGenerationMatch"):
            name = request.params.get("object_id") or request.query.get("name", [""])[0] or request.data["meta"]["name"]
            try:
                generation = store.get_file_obj(request.params["bucket_name"], name)["generation"]
            except NotFound:
                generation = "0"
            if generation != wanted[0]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        handle(request, response, store)

    return checked


def every(count: int, fault: str | int, of: str = "") -> Fault:
    """A fault that hits one in `count` of the requests whose path matches."""
    seen = 0

    def decide(method: str, path: str) -> str | int | None:
        nonlocal seen
        if not re.search(of, path):
            return None
        seen += 1
        return fault if seen % count == 0 else None

    return decide


def serve(folder: Path) -> None:
    """Holds what lies in FOLDER/in as a bucket until standard input ends, then writes the bucket to FOLDER/out."""
    with running("bucket") as cloud:
        for file in (folder / "in").iterdir():
            cloud.upload("bucket", file.name, file.read_bytes())
        print(cloud.url, flush=True)
        sys.stdin.read()
        for name, content in cloud.contents("bucket").items():
            (folder / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "out" / name).write_bytes(content)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

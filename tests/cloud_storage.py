"""Cloud Storage for tests: an emulator that checks preconditions and fails on demand."""

import io
import itertools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest import mock
from urllib.parse import quote

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

# A fault maps the method and path of a request to what goes wrong: nothing (None), an HTTP status as the answer, a cut
# connection (DROP), a lost answer after the request was carried out (LOST), or seconds of delay (a float).
Fault = Callable[[str, str], "str | int | float | None"]
DROP, LOST = "drop", "lost"


class CloudStorage:
    """A running emulator. `fault` may be set at any time, and `requests` lists methods and paths of all requests."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.failed = 0
        self.finished: dict[tuple[str, str], bytes] = {}  # lost answers to uploads, for their repetition
        self.at_once = threading.Lock()  # the emulator's own code answers one request at a time

    @property
    def client(self) -> storage.Client:
        """Return a client that works with any environment."""
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth has no types for it
        return storage.Client("test", credentials=credentials, client_options={"api_endpoint": self.url})

    def upload(self, bucket: str, name: str, content: bytes) -> str:
        """Write an object, and return its path."""
        self.client.bucket(bucket).blob(name).upload_from_string(content)
        return f"gs://{bucket}/{name}"

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self.client.bucket(bucket).blob(name).delete()

    def writes(self) -> int:
        """Return how many objects were written."""
        return sum(method == "POST" and "upload" in path for method, path in self.requests)

    def contents(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return the content of every object below a prefix, by the rest of its name."""
        blobs = self.client.list_blobs(bucket, prefix=prefix)
        return {blob.name.removeprefix(prefix): blob.download_as_bytes() for blob in blobs}


@contextmanager
def running(bucket: str) -> Iterator[CloudStorage]:
    """Run the emulator with one bucket. The caller has to set STORAGE_EMULATOR_HOST."""
    state = CloudStorage()
    handlers = tuple(
        (pattern, {method: _with_precondition(handle) for method, handle in methods.items()})
        for pattern, methods in server.HANDLERS
    )
    handler = type("Handler", (_Handler,), {"state": state})
    with (
        mock.patch.object(Storage, "_write_config_to_file"),  # it writes all of it again after every write
        mock.patch.object(server, "server", SimpleNamespace(HTTPServer=ThreadingHTTPServer)),
        mock.patch.object(server, "HANDLERS", handlers),
        mock.patch.object(server, "RequestHandler", handler),
        mock.patch.object(objects, "_make_object_resource", _with_quoted_link),
    ):
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
    rfile: BinaryIO
    wfile: BinaryIO

    def _or_fault(self, answer: Callable[[], None]) -> None:
        """Answer, or do what the fault says. A client that is slow, or stopped, keeps no other one waiting."""
        if length := self.headers.get("Content-Length"):
            body = self.rfile.read(int(length))
            if len(body) < int(length):  # the client was killed while it sent, and nothing of it is kept
                self.close_connection = True
                return
            self.rfile = io.BytesIO(body)
        self.state.requests.append((self.command, self.path))
        if answered := self.state.finished.pop((self.command, self.path), None):
            self.wfile.write(answered)
            return
        fault = self.state.fault(self.command, self.path)
        self.state.failed += fault is not None
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault != DROP:
            time.sleep(fault if isinstance(fault, float) else 0)
            client, self.wfile = self.wfile, io.BytesIO()
            with self.state.at_once:
                answer()
            answered = self.wfile.getvalue()
            if fault == LOST and self.command == "PUT":  # the service answers a finished upload again
                self.state.finished[self.command, self.path] = answered
            client.write(b"" if fault == LOST else answered)
            self.wfile = client

    def do_GET(self) -> None:
        self._or_fault(super().do_GET)

    def do_POST(self) -> None:
        self._or_fault(super().do_POST)

    def do_PUT(self) -> None:
        self._or_fault(super().do_PUT)

    def do_DELETE(self) -> None:
        self._or_fault(super().do_DELETE)


def _with_precondition(handle: Callable[..., None]) -> Callable[..., None]:
    """Compare ifGenerationMatch before the emulator, which ignores it, answers."""

    def checked(request: Any, response: Any, store: Any) -> None:
        if expected := request.query.get("ifGenerationMatch"):
            name = request.params.get("object_id") or request.query.get("name", [""])[0] or request.data["meta"]["name"]
            try:
                generation = store.get_file_obj(request.params["bucket_name"], name)["generation"]
            except NotFound:
                generation = "0"
            if generation != expected[0]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        handle(request, response, store)

    return checked


_make_object_resource = objects._make_object_resource


def _with_quoted_link(base_url: str, bucket: str, name: str, *details: Any, **more: Any) -> dict[str, Any]:
    """Quote the name in the link to an object's content, as the real service does and the emulator does not."""
    resource: dict[str, Any] = _make_object_resource(base_url, bucket, name, *details, **more)
    resource["mediaLink"] = resource["mediaLink"].replace(f"/o/{name}?", f"/o/{quote(name, safe='')}?")
    return resource


def every(count: int, fault: str | int, pattern: str = "") -> Fault:
    """Return a fault that hits every `count`-th request whose path matches the pattern."""
    seen = itertools.count(1)

    def decide(method: str, path: str) -> str | int | None:
        return fault if re.search(pattern, path) and next(seen) % count == 0 else None

    return decide


def serve(folder: Path) -> None:
    """Serve the files of FOLDER/in as a bucket until standard input ends, then write the bucket to FOLDER/out."""
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

"""Stubs for tests of a launch: Dataflow's service, a registry with one image, and a container engine."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import apache_beam

from inference.dataflow import images
from models import trained_model

JOB = {"id": "2026-11-21_job", "projectId": "paper-labels", "name": "x", "location": "us-central1"}


class Service:
    """Answers requests to a registry with one image, to Dataflow, and to an engine without images."""

    def __init__(self, model: Path) -> None:
        self.labels = {
            "org.labelbeam.python": images.python_version(),
            "org.labelbeam.beam": apache_beam.__version__,
            "org.labelbeam.torch": "2.13.0+cpu",
            "org.labelbeam.runtimes": "openvino",
            "org.labelbeam.models": f"colours={trained_model.fingerprint(model)}",
            "org.opencontainers.image.revision": "0123abc",
        }
        self.jobs: list[dict[str, Any]] = []
        self.state = "JOB_STATE_DONE"
        self.vcpu_seconds = 0
        self.requests: list[dict[str, Any]] = []  # changes of a job's state
        self.address = ""

    @property
    def image(self) -> str:
        return f"{self.address}/labelbeam:1"

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any] | None:
        if path == "/v2/labelbeam/manifests/1":
            return {"config": {"digest": "sha256:c0"}}
        if path == "/v2/labelbeam/blobs/sha256:c0":
            return {"config": {"Labels": self.labels}}
        if re.fullmatch(r"(/v[\d.]+)?/(version|_ping)", path):
            return {"ApiVersion": "1.44"}
        if re.search(r"/jobs(\?|$)", path) and method == "POST":
            self.jobs.append(json.loads(body))
            return JOB
        if re.search(r"/jobs(\?|$)", path):
            active = self.state in ("JOB_STATE_RUNNING", "JOB_STATE_QUEUED")
            return {"jobs": [{**JOB, "name": job["name"]} for job in self.jobs if active]}
        if "/messages" in path:
            messages = [
                {"id": "1", "time": "2026-11-21T10:00:00Z", "messageImportance": "JOB_MESSAGE_ERROR", "messageText": m}
                for m in ["The worker ran out of memory."]
            ]
            return {"jobMessages": messages if self.state == "JOB_STATE_FAILED" else []}
        if path.endswith("/metrics") or "/metrics?" in path:
            name = {"origin": "dataflow/v1b3", "name": "TotalVcpuTime"}
            return {"metrics": [{"name": name, "scalar": self.vcpu_seconds}]}
        if "/jobs/" in path and method == "PUT":
            self.requests.append(json.loads(body))
            self.state = "JOB_STATE_CANCELLED"
        return {**JOB, "currentState": self.state} if "/jobs/" in path else None


@contextmanager
def running(model: Path) -> Iterator[Service]:
    """Serve the stubs until the context ends."""
    stub = Service(model)

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = stub.answer(self.command, self.path, body)
            content = json.dumps(answer or {"message": "No such image"}).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = handle_one

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stub.address = f"localhost:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

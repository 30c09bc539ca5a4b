"""A base model is fetched from a stub of the hub, and a training without the hub then finds it."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import datasets
import pytest

from models import trained_model
from models.errors import UserError
from tests.training.conftest import toy_rows, write_rows
from training import hub_access, tables
from training.config import DataConfig

ROOT = Path(__file__).parents[2]
COMMIT = "1" * 40


@pytest.fixture
def endpoint(base: Path) -> Iterator[str]:
    """Return the address of a hub that has one model, me/tiny."""

    class Stub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/me/tiny/tree/"):
                tree = [{"type": "file", "path": one.name, "size": 1, "oid": COMMIT} for one in base.iterdir()]
                content = json.dumps(tree).encode()
            elif path.startswith("/api/models/me/tiny"):
                files = [{"rfilename": file.name} for file in base.iterdir()]
                content = json.dumps({"id": "me/tiny", "sha": COMMIT, "siblings": files, "tags": []}).encode()
            elif path.startswith("/me/tiny/resolve/") and (base / Path(path).name).is_file():
                content = (base / Path(path).name).read_bytes()
            elif path == "/":
                content = b"the hub"
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(tmp_path: Path, write_config: Callable[..., Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command on the configuration, in a process with a hub and a cache of its own."""
    write_rows(tmp_path / "rows.jsonl", toy_rows(60))
    config = write_config(
        data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}\nnear_duplicate = 1.0',
        labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
        text="max_tokens = 16",
        model='base = "me/tiny"\npooling = "mean"',
        training="epochs = 1",
    )

    def run(module: str, endpoint: str, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", module, str(config), "--data_dir", str(tmp_path), *flags]
        here = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": ""}
        environment = {**os.environ, **here, **variables}
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_what_was_fetched_is_enough_for_a_job_without_network(
    tmp_path: Path, endpoint: str, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    fetched = command("training.fetch", endpoint)
    assert fetched.returncode == 0, fetched.stderr
    assert "base model me/tiny: " in fetched.stdout
    nowhere = "http://127.0.0.1:9"
    for number, variables in enumerate(({"HF_HUB_OFFLINE": "1"}, {})):
        trained = command("training.train", nowhere, "--output", str(tmp_path / f"m{number}"), **variables)
        assert trained.returncode == 0, trained.stderr
    assert trained_model.verify(tmp_path / "m0").base_model == "me/tiny"


def test_a_hub_that_never_answers_is_said_at_once(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.setblocking(False)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = command("training.train", address, "--output", str(tmp_path / "m"))
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                asked += 1
    assert done.returncode == 2
    assert f"'me/tiny': expected the hub at {address}, found that it cannot be reached" in done.stderr
    assert asked == 1  # within hub_access.TIMEOUT
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_in_the_cache_needs_no_hub(cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    if cached:
        assert hub_access.check("model.base 'x'", cached=True) is False
        return
    with pytest.raises(UserError, match=r"^model.base 'x': expected the hub at http://127.0.0.1:9"):
        hub_access.check("model.base 'x'", cached=False)


@pytest.mark.parametrize("there", [True, False])
def test_a_fetched_dataset_is_read_from_the_cache_if_the_hub_is_away(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline: list[bool] = []

    def load(*_: object, **__: object) -> datasets.Dataset:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        if not there:
            raise ConnectionError("offline mode is enabled")
        return datasets.Dataset.from_dict({"text": ["a"]})

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    config = DataConfig(train=("train",), dataset="me/data")
    if there:
        assert [*tables.read_dataset(config, "train", tmp_path).of(["text"])] == [{"text": "a"}]
    else:
        with pytest.raises(UserError, match=r"^data.dataset 'me/data': expected the hub at http://127.0.0.1:9"):
            tables.read_dataset(config, "train", tmp_path)
    assert offline == [True]
    assert datasets.config.HF_HUB_OFFLINE is False

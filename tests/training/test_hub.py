"""Models are uploaded to a stub of the hub that keeps what it receives."""

import base64
import functools
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import safetensors
import transformers
from huggingface_hub import HfApi

from models import trained_model, weights
from models.decision import probabilities
from models.errors import UserError
from tests.tiny import tiny_model
from training import hub, measurement


class Stub(BaseHTTPRequestHandler):
    """Answers the calls of an upload, and knows the token "good" alone."""

    uploaded: dict[str, bytes] = {}
    created: list[dict[str, object]] = []

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer good":
            self.reply(401, {"error": "Invalid username or password."})
        else:
            self.reply(200, {"name": "me", "type": "user", "orgs": [], "auth": {}, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.body()
        url = f"http://{self.headers['Host']}/me/colours"
        if self.path.startswith("/api/repos/create"):
            self.created.append(json.loads(body))
            self.reply(200, {"url": url})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.reply(200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif self.path == "/api/validate-yaml":  # the hub validates the model card
            self.reply(200, {"errors": [], "warnings": []})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.uploaded[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply(200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{url}/commit/0", "hookOutput": ""})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a running stub, which the module under test takes for the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Stub, "uploaded", {})
    monkeypatch.setattr(Stub, "created", [])
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint=address, token="good"))
    yield address
    server.shutdown()
    server.server_close()


def test_the_model_and_what_explains_it_are_uploaded_but_no_scores_of_texts(
    tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(tmp_path / "colours")
    (model / "README.md").write_text("# colours\n")
    (model / "evaluation").mkdir()
    (model / "evaluation" / "val_red_scores.csv").write_text("id,truth\n")
    (model / "report.html").write_text("a text of the data")
    hub.check("me/colours")
    hub.push(model, "me/colours")
    manifest = trained_model.read_manifest(model)
    assert set(Stub.uploaded) == {"README.md", "model.json", *manifest.files}
    assert all((model / name).read_bytes() == content for name, content in Stub.uploaded.items())
    hub.push(model, "me/colours", texts=True)
    assert Stub.uploaded["report.html"] == b"a text of the data"
    assert Stub.created[0]["visibility"] == "private"
    assert f"{endpoint}/me/colours" in capsys.readouterr().out


@pytest.mark.parametrize(("task", "names"), [("multi_label", ("red", "green", "blue")), ("binary", ("no", "yes"))])
def test_what_is_uploaded_loads_in_transformers_pipeline_and_in_labelbeam(
    task: str, names: tuple[str, ...], tmp_path: Path, endpoint: str
) -> None:
    """With the same scores, apart from the temperature, which transformers knows nothing of."""
    model = tiny_model(tmp_path / "colours", pooling="stock", task=task, names=names)
    hub.push(model, "me/colours")
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in Stub.uploaded.items():
        (downloaded / name).write_bytes(content)
    keys = safetensors.safe_open(downloaded / "model.safetensors", "pt").keys()  # type: ignore[no-untyped-call]
    assert not any(key.startswith("model.") for key in keys)
    assert "classifier.weight" in keys
    classify = transformers.pipeline("text-classification", model=str(downloaded), top_k=None)
    (found,) = classify(["the sky is red"])
    loaded = weights.load(downloaded)
    logits = measurement.score(loaded.network, loaded.tokenizer, ["the sky is red"], loaded.manifest.text)
    expected = dict(zip(names, probabilities(logits, loaded.manifest.labels.task)[0], strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["a/b/c", "me/co lours", "-me/x"])
def test_a_name_that_the_hub_would_not_take(name: str, endpoint: str) -> None:
    with pytest.raises(UserError, match=r"^--push_to_hub expects USER/NAME"):
        hub.check(name)


def test_a_wrong_token_and_a_hub_that_is_away(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint=endpoint, token="bad"))
    with pytest.raises(UserError, match="refused or could not be reached"):
        hub.check("me/colours")
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint="http://127.0.0.1:9", token="good"))
    model = tiny_model(tmp_path / "colours")
    with pytest.raises(UserError, match="its upload failed: .*; the same command uploads it again"):
        hub.push(model, "me/colours")

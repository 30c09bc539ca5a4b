"""Tests runs with models, input and output in Cloud Storage, also while it fails. An emulator replaces it."""

import gzip
import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from inference import beam_runner
from inference.corpus import lease as leases
from inference.corpus import storage
from inference.corpus.records import Document
from inference.scoring import conversion_folder, model_files
from inference.scoring.conversion_folder import FOLDER
from inference.scoring.scorer import Scorer
from models import trained_model
from models.errors import ModelError, UserError
from tests import cloud_storage
from tests.cloud_storage import DROP, LOST, CloudStorage
from tests.inference.conftest import BUCKET, contents, int8_variant, jsonl, upload_folder, without_run
from tests.tiny import tiny_model

FLAGS = ("--runner", "FnApiRunner", "--slice_mb", "0.005", "--runtime", "torch")


def label_with(*flags: object) -> int:
    return beam_runner.main([*map(str, flags), *FLAGS])


def written(cloud: CloudStorage, prefix: str = "out/") -> dict[str, bytes]:
    objects = cloud.contents(BUCKET, prefix)
    of_rows = {name: content for name, content in objects.items() if name.startswith(("predictions/", "failures/"))}
    return {without_run(name): content for name, content in of_rows.items()}


def test_model_input_and_output_in_cloud_storage_give_what_local_ones_do(
    cloud: CloudStorage, colours: Path, label: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = {"a.jsonl": jsonl(200), "b.jsonl.gz": gzip.compress(jsonl(100, 200) + b"not json\n")}
    (tmp_path / "in").mkdir()
    for name, content in corpus.items():
        (tmp_path / "in" / name).write_bytes(content)
        cloud.upload(BUCKET, f"in/{name}", content)
    model = upload_folder(cloud, colours, "models/colours")
    assert label_with("--model", model, "--input", f"gs://{BUCKET}/in/*", "--output", f"gs://{BUCKET}/out") == 0

    local = contents(label("--model", colours, "--input", tmp_path / "in" / "*", *FLAGS))
    remote = written(cloud)
    assert len(remote) == len(local) > 3

    # Names hold a hash of the input's path. The content of the files does not depend on that path.
    def rows(files: dict[str, bytes]) -> list[bytes]:
        return sorted(row for name, content in files.items() if "predictions" in name for row in content.splitlines())

    assert rows(remote) == rows(local)
    summary = json.loads(cloud.contents(BUCKET, "out/")["summary.json"])
    assert (summary["predicted"], summary["failed"]) == (300, 1)
    assert ".lock" not in cloud.contents(BUCKET, "out/")


def test_a_run_resumes_where_it_stopped(cloud: CloudStorage, colours: Path) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(300))
    flags = ("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out")
    assert label_with(*flags) == 0
    before = cloud.contents(BUCKET, "out/")
    receipts = sorted(name for name in before if name.startswith("receipts/"))
    assert len(receipts) > 2
    cloud.client.bucket(BUCKET).blob(f"out/{receipts[0]}").delete()
    cloud.client.bucket(BUCKET).blob("out/summary.json").delete()
    cloud.requests.clear()
    assert label_with(*flags) == 0
    uploads = [path for method, path in cloud.requests if method == "POST" and "upload" in path]
    assert sum("predictions" in path for path in uploads) == 1 or len(uploads) < len(before)
    assert written(cloud) == {without_run(n): c for n, c in before.items() if n.startswith("predictions/")}


def test_overwrite_deletes_what_was_there(cloud: CloudStorage, colours: Path) -> None:
    first, second = cloud.upload(BUCKET, "a.jsonl", jsonl(100)), cloud.upload(BUCKET, "b.jsonl", jsonl(50))
    flags = ("--model", colours, "--output", f"gs://{BUCKET}/out")
    assert label_with(*flags, "--input", first) == 0
    assert label_with(*flags, "--input", second) == 2
    assert label_with(*flags, "--input", second, "--overwrite") == 0
    assert all("b.jsonl" in name for name in written(cloud))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cut connections leave sockets open
@pytest.mark.parametrize("fault", [503, DROP])
def test_a_storage_that_fails_now_and_then_loses_nothing(cloud: CloudStorage, colours: Path, fault: str | int) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(300))
    flags = ("--model", colours, "--input", corpus)
    assert label_with(*flags, "--output", f"gs://{BUCKET}/out") == 0
    cloud.fault = cloud_storage.every(7, fault)
    assert label_with(*flags, "--output", f"gs://{BUCKET}/again") == 0
    cloud.fault = lambda method, path: None
    assert cloud.failed > 5
    assert written(cloud, "again/") == written(cloud)


def test_a_second_run_is_refused_while_the_first_is_at_work(
    cloud: CloudStorage, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(10))
    flags = ("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out")
    with leases.Lease(f"gs://{BUCKET}/out/.lock", "elsewhere:1"):
        assert label_with(*flags) == 2
    assert "another run (elsewhere:1) is at work here, last seen 0 s ago" in capsys.readouterr().err
    assert cloud.contents(BUCKET, "out/") == {}
    assert label_with(*flags) == 0


def test_one_of_two_runs_that_begin_at_once_is_refused(cloud: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"gs://{BUCKET}/out/.lock"
    monkeypatch.setattr(leases.Lease, "_free_generation", lambda self: 0)  # both runs find it free
    with leases.Lease(path, "one"), pytest.raises(UserError, match="another run has just started here"):
        leases.Lease(path, "two").__enter__()


def test_a_lease_is_renewed_and_an_abandoned_one_is_taken_over(
    cloud: CloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"gs://{BUCKET}/out/.lock"
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    with leases.Lease(path, "one"):
        uploads = len(cloud.requests)
        while len(cloud.requests) < uploads + 8:
            pass
        with pytest.raises(UserError, match="at work here"):
            leases.Lease(path, "two").__enter__()
    cloud.upload(BUCKET, "out/.lock", b'{"owner": "killed"}')
    with pytest.raises(UserError, match=r"another run \(killed\) is at work here, last seen 0 s ago"):
        leases.Lease(path, "two").__enter__()
    time.sleep(1.1)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that is wrong changes nothing
    with leases.Lease(path, "two"):
        assert json.loads(cloud.contents(BUCKET, "out/")[".lock"])["owner"] == "two"


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_run_that_lost_its_lease_stops(
    cloud: CloudStorage,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    """Its machine slept for too long, and another run took the folder. A runner may swallow the interrupt."""
    if not interrupted:
        monkeypatch.setattr(signal, "pthread_kill", lambda *_: None)
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(300))
    score = Scorer.score

    def overtaken(self: Scorer, documents: Sequence[Document], others: int) -> object:
        cloud.upload(BUCKET, "out/.lock", b'{"owner": "another", "token": "its own"}')
        time.sleep(1.5)
        return score(self, documents, others)

    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(Scorer, "score", overtaken)
    assert label_with("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out") == 1
    error = capsys.readouterr().err
    assert f"failed: gs://{BUCKET}/out/.lock: another run has taken this folder, because this one was not seen" in error
    objects = cloud.contents(BUCKET, "out/")
    assert not [name for name in objects if name.startswith(("summary.json", "receipts/", "predictions/"))]
    assert json.loads(objects[".lock"])["owner"] == "another"


@pytest.mark.parametrize("at_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])  # the latter as a shell's job
def test_a_lease_is_lost_if_the_storage_does_not_answer(
    cloud: CloudStorage, monkeypatch: pytest.MonkeyPatch, at_ctrl_c: Any
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.4)
    before, began = signal.signal(signal.SIGINT, at_ctrl_c), time.monotonic()
    lease = leases.Lease(f"gs://{BUCKET}/out/.lock", "one").__enter__()
    monkeypatch.setattr(lease, "_write", lambda generation: 1 / 0)
    try:
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(10)  # as the main thread waits for its workers
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 5
    lease.__exit__()
    assert lease.lost
    assert "the storage did not answer for 0 s" in lease.lost


def test_a_lease_that_was_left_to_a_job_is_free_when_the_job_has_ended(cloud: CloudStorage) -> None:
    path, job = f"gs://{BUCKET}/out/.lock", {"project": "p", "region": "r", "name": "labelbeam-1"}
    with leases.Lease(path, "one", job) as lease:
        lease.leave(to_job=True)
    with pytest.raises(UserError, match="the job labelbeam-1 is at work here; wait for it or cancel it"):
        leases.Lease(path, "two", None, lambda asked: asked == job).__enter__()
    with pytest.raises(UserError, match="its engine cannot be asked .no network.; delete this object once the job"):
        leases.Lease(path, "two", None, Mock(side_effect=OSError("no network"))).__enter__()
    with leases.Lease(path, "two", None, lambda _: False):
        pass
    assert cloud.contents(BUCKET, "out/") == {}


def test_a_lease_is_left_to_its_job_only_when_the_launcher_ends(
    cloud: CloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher takes minutes to submit its job, and the engine does not know it yet."""
    path = f"gs://{BUCKET}/out/.lock"
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    with leases.Lease(path, "one", {"name": "labelbeam-1"}) as lease:
        lease.leave(to_job=True)
        requests = len(cloud.requests)
        while len(cloud.requests) < requests + 2:
            time.sleep(0.01)
        with pytest.raises(UserError, match=r"another run \(one\) is at work here"):
            leases.Lease(path, "two", None, lambda _: False).__enter__()
    with leases.Lease(path, "two", None, lambda _: False):
        pass


@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_a_wildcard_in_the_output_is_refused(
    cloud: CloudStorage, colours: Path, capsys: pytest.CaptureFixture[str], flag: tuple[str, ...]
) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(10))
    for name in ("run", "run2"):
        assert label_with("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/{name}") == 0
    before = cloud.contents(BUCKET)
    capsys.readouterr()
    for name in ("ru*", "ru[n]", "run?"):
        assert label_with("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/{name}", *flag) == 2
        assert "expected the name of a folder, found a wildcard" in capsys.readouterr().err
    assert cloud.contents(BUCKET) == before


def test_overwrite_leaves_objects_that_are_not_a_run_s(
    cloud: CloudStorage, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(10))
    flags = ("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out")
    assert label_with(*flags) == 0
    cloud.upload(BUCKET, "out/thesis.docx", b"x")
    assert label_with(*flags, "--overwrite") == 0
    assert cloud.contents(BUCKET)["out/thesis.docx"] == b"x"
    cloud.upload(BUCKET, "out/predictions/thesis.docx", b"x")
    before = cloud.contents(BUCKET)
    assert label_with(*flags, "--overwrite") == 2
    assert "holds 'predictions/thesis.docx', which does not belong to a run" in capsys.readouterr().err
    assert cloud.contents(BUCKET) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cut connections leave sockets open
def test_a_lease_whose_answer_was_lost_is_held(cloud: CloudStorage) -> None:
    path = f"gs://{BUCKET}/out/.lock"
    cloud.fault = cloud_storage.every(1, LOST, "^/upload/")
    lease = leases.Lease(path, "one")
    threading.Timer(1.5, setattr, (cloud, "fault", lambda method, path: None)).start()
    with lease, pytest.raises(UserError, match="at work here"):
        leases.Lease(path, "two").__enter__()
    assert cloud.failed
    assert cloud.contents(BUCKET, "out/") == {}


def test_a_file_is_created_once(cloud: CloudStorage) -> None:
    path = f"gs://{BUCKET}/run.json"
    assert [storage.create_file(path, b"first"), storage.create_file(path, b"second")] == [True, False]
    assert cloud.contents(BUCKET)["run.json"] == b"first"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [(None, "there is no such bucket or object"), (403, "permission denied; run `gcloud auth")],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence_for_each_flag(
    cloud: CloudStorage, capsys: pytest.CaptureFixture[str], fault: int | None, sentence: str
) -> None:
    cloud.fault = lambda method, path: fault
    flags = ("--model", "gs://elsewhere/m", "--input", "gs://elsewhere/*.jsonl", "--output", "gs://elsewhere/out")
    assert label_with(*flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if sentence not in line] == []
    assert [line.split("gs://")[0] for line in sorted(lines)] == [
        "error: --input ",
        "error: --output ",
        "error: Model ",
    ]


def test_an_output_that_may_not_be_written_is_one_sentence(
    cloud: CloudStorage, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(10))
    cloud.fault = lambda method, path: 403 if path.startswith("/upload/") else None
    assert label_with("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out") == 2
    assert capsys.readouterr().err.startswith(f"error: gs://{BUCKET}/out/.lock: permission denied; run `gcloud auth")


def test_a_remote_model_is_copied_once_and_checked(cloud: CloudStorage, colours: Path, tmp_path: Path) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    folder = model_files.local(model)
    assert Path(folder).name == "colours"
    cloud.requests.clear()
    assert model_files.local(model) == folder
    assert not any("model.pth" in path for _, path in cloud.requests)
    with pytest.raises(ModelError, match="found no model.json in it"):
        model_files.local(f"gs://{BUCKET}/models")
    manifest = json.loads((colours / "model.json").read_bytes())
    manifest["files"]["../../escaped"] = "0"
    cloud.upload(BUCKET, "models/bad/model.json", json.dumps(manifest).encode())
    with pytest.raises(ModelError, match="lies outside of it"):
        model_files.local(f"gs://{BUCKET}/models/bad")


def test_a_remote_int8_variant_belongs_to_the_fingerprint(cloud: CloudStorage, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m")
    int8_variant(model)
    remote = upload_folder(cloud, model, "m")
    first = Path(model_files.local(remote))
    one = model_files.fingerprint(remote, "int8")
    assert one == model_files.fingerprint(str(model), "int8") != model_files.fingerprint(remote, "fp32")
    assert model_files.local(remote) == str(first)
    variant = int8_variant(model, scale=1.001)
    upload_folder(cloud, model, "m")
    second = Path(model_files.local(remote))
    assert second != first
    assert model_files.fingerprint(remote, "int8") == model_files.fingerprint(str(model), "int8") != one
    assert (second / FOLDER / variant.name / "model.bin").read_bytes() == (variant / "model.bin").read_bytes()


def test_a_remote_int8_variant_that_was_changed_is_not_kept(cloud: CloudStorage, tmp_path: Path) -> None:
    variant = int8_variant(tiny_model(tmp_path / "m"))
    remote = upload_folder(cloud, tmp_path / "m", "m")
    cloud.upload(BUCKET, f"m/{FOLDER}/{variant.name}/model.bin", b"other weights")
    with pytest.raises(ModelError, match=rf"^{remote}/{FOLDER}/{variant.name}: .* found model.bin changed"):
        model_files.local(remote)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    cloud.upload(BUCKET, f"m/{FOLDER}/{variant.name}/model.bin", (variant / "model.bin").read_bytes())
    assert (Path(model_files.local(remote)) / FOLDER / variant.name).is_dir()


def test_only_conversions_that_can_be_used_are_copied(cloud: CloudStorage, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = tiny_model(tmp_path / "m")
    folder = conversion_folder.path_of(model, conversion_folder.exact(trained_model.read_manifest(model), "openvino"))
    remote = upload_folder(cloud, model, "m")
    for name in (f"{folder.name}/model.xml", f"{folder.name}/a b", "openvino-1.0-00/model.xml", ".half/model.xml"):
        cloud.upload(BUCKET, f"m/{FOLDER}/{name}", b"whatever")
    copied = Path(model_files.local(remote))
    assert [str(path.relative_to(copied / FOLDER)) for path in (copied / FOLDER).rglob("*.*") if path.is_file()] == [
        f"{folder.name}/model.xml"
    ]

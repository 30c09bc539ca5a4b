"""Tests runs with models, input and output in Cloud Storage and S3, also while these fail."""

import gzip
import itertools
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from botocore.exceptions import ClientError, ReadTimeoutError
from google.api_core.exceptions import BadRequest, ServiceUnavailable

from inference import beam_runner, compare, export, peek, read_failures, read_predictions, report, verify
from inference.corpus import gcs, storage
from inference.corpus import lease as leases
from inference.corpus.records import Document
from inference.runs import own_files, receipts, run_folder
from inference.runs.receipts import Receipt
from inference.scoring import conversion_folder, model_files
from inference.scoring.conversion_folder import FOLDER
from inference.scoring.scorer import Scorer
from models import seals, trained_model
from models.errors import ModelError, UserError
from tests import cloud_storage
from tests.cloud_storage import DROP, LOST, CloudStorage
from tests.inference.conftest import (
    BUCKET,
    Remote,
    contents,
    int8_variant,
    jsonl,
    root_of,
    upload_folder,
    without_run,
)
from tests.tiny import tiny_model

FLAGS = ("--runner", "FnApiRunner", "--slice_mb", "0.005", "--runtime", "torch")


def label_with(*flags: object) -> int:
    return beam_runner.main([*map(str, flags), *FLAGS])


def written(remote: Remote, prefix: str = "out/") -> dict[str, bytes]:
    objects = remote.contents(BUCKET, prefix)
    of_rows = {name: content for name, content in objects.items() if name.startswith(("predictions/", "failures/"))}
    return {without_run(name): content for name, content in of_rows.items()}


@pytest.mark.engine("FnApiRunner", "an emulator of Cloud Storage and a stand-in for S3; same bytes")
def test_model_input_and_output_in_a_remote_storage_give_what_local_ones_do(
    remote: Remote, colours: Path, label: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = {"a.jsonl": jsonl(200), "b.jsonl.gz": gzip.compress(jsonl(100, 200) + b"not json\n")}
    (tmp_path / "in").mkdir()
    for name, content in corpus.items():
        (tmp_path / "in" / name).write_bytes(content)
        remote.upload(BUCKET, f"in/{name}", content)
    model = upload_folder(remote, colours, "models/colours")
    assert label_with("--model", model, "--input", f"{root_of(remote)}/in/*", "--output", f"{root_of(remote)}/out") == 0

    local = contents(label("--model", colours, "--input", tmp_path / "in" / "*", *FLAGS))
    objects = written(remote)
    assert len(objects) == len(local) > 3

    # Names hold a hash of the input's path. The content of the files does not depend on that path.
    def rows(files: dict[str, bytes]) -> list[bytes]:
        return sorted(row for name, content in files.items() if "predictions" in name for row in content.splitlines())

    assert rows(objects) == rows(local)
    summary = json.loads(remote.contents(BUCKET, "out/")["summary.json"])
    assert (summary["predicted"], summary["failed"]) == (300, 1)
    assert json.loads(remote.contents(BUCKET, "out/")[".lock"])["left"]

    out = f"{root_of(remote)}/out"
    assert (verify.main([out, "--input"]), report.main([out]), compare.main([out, out])) == (0, 0, 0)
    assert read_predictions(out)["id"].tolist() == [f"d{i}" for i in range(300)]
    assert read_failures(out)["reason"].tolist() == ["not_json"]
    table = f"{root_of(remote)}/tables/labelled.jsonl"
    assert (export.main([out, "--to", table]), export.main([out, "--to", table])) == (0, 2)
    lines = remote.contents(BUCKET, "tables/")["labelled.jsonl"].splitlines()
    assert [json.loads(line)["failure"] for line in lines] == [*[None] * 300, "not_json"]
    assert peek.main([f"{root_of(remote)}/in/*"]) == 0


def test_a_run_resumes_where_it_stopped(remote: Remote, colours: Path) -> None:
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(300))
    flags = ("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out")
    assert label_with(*flags) == 0
    before = remote.contents(BUCKET, "out/")
    receipts = sorted(name for name in before if name.startswith("receipts/"))
    assert len(receipts) > 2
    remote.delete(BUCKET, f"out/{receipts[0]}")
    remote.delete(BUCKET, "out/summary.json")
    remote.requests.clear()
    assert label_with(*flags) == 0
    assert remote.writes() < len(before)
    assert written(remote) == {without_run(n): c for n, c in before.items() if n.startswith("predictions/")}


def test_overwrite_deletes_what_was_there(remote: Remote, colours: Path) -> None:
    first, second = remote.upload(BUCKET, "a.jsonl", jsonl(100)), remote.upload(BUCKET, "b.jsonl", jsonl(50))
    flags = ("--model", colours, "--output", f"{root_of(remote)}/out")
    assert label_with(*flags, "--input", first) == 0
    assert label_with(*flags, "--input", second) == 2
    assert label_with(*flags, "--input", second, "--overwrite") == 0
    assert all("b.jsonl" in name for name in written(remote))


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
    remote: Remote, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(10))
    flags = ("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out")
    with leases.Lease(f"{root_of(remote)}/out/.lock", "elsewhere:1"):
        assert label_with(*flags) == 2
    assert re.search(r"another run \(elsewhere:1\) is at work here, last seen [01] s ago", capsys.readouterr().err)
    assert remote.contents(BUCKET, "out/").keys() == {".lock"}
    assert label_with(*flags) == 0


def test_one_of_two_runs_that_begin_at_once_is_refused(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{root_of(remote)}/out/.lock"
    monkeypatch.setattr(leases.Lease, "_free_version", lambda self: None)  # both runs find it free
    with leases.Lease(path, "one"), pytest.raises(UserError, match="another run has just started here"):
        leases.Lease(path, "two").__enter__()


def test_a_lease_is_renewed_and_an_abandoned_one_is_taken_over(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{root_of(remote)}/out/.lock"
    seconds = 1.0 if isinstance(remote, CloudStorage) else 3.0  # S3 tells whole seconds
    monkeypatch.setattr(leases, "LEASE_SECONDS", seconds)
    with leases.Lease(path, "one"):
        uploads = len(remote.requests)
        while len(remote.requests) < uploads + 3:
            time.sleep(0.01)
        with pytest.raises(UserError, match="at work here"):
            leases.Lease(path, "two").__enter__()
    remote.upload(BUCKET, "out/.lock", b'{"owner": "killed"}')
    with pytest.raises(UserError, match=r"another run \(killed\) is at work here, last seen [01] s ago"):
        leases.Lease(path, "two").__enter__()
    time.sleep(seconds + 1.1)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that is wrong changes nothing
    with leases.Lease(path, "two"):
        assert json.loads(remote.contents(BUCKET, "out/")[".lock"])["owner"] == "two"


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_run_that_lost_its_lease_stops(
    remote: Remote,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    """Its machine slept for too long, and another run took the folder. A runner may swallow the interrupt."""
    if not interrupted:
        monkeypatch.setattr(signal, "pthread_kill", lambda *_: None)
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(300))
    score = Scorer.score

    def overtaken(self: Scorer, documents: Sequence[Document], others: int) -> object:
        remote.upload(BUCKET, "out/.lock", b'{"owner": "another", "token": "its own"}')
        time.sleep(1.5)
        return score(self, documents, others)

    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(Scorer, "score", overtaken)
    assert label_with("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out") == 1
    error = capsys.readouterr().err
    assert (
        f"failed: {root_of(remote)}/out/.lock: another run has taken this folder, because this one was not seen"
        in error
    )
    objects = remote.contents(BUCKET, "out/")
    assert not [name for name in objects if name.startswith(("summary.json", "receipts/", "predictions/"))]
    assert json.loads(objects[".lock"])["owner"] == "another"


@pytest.mark.parametrize(
    ("overtaken_in", "deleted"), [((run_folder, "_refuse"), set()), ((own_files, "of"), {"run.json"})]
)
def test_a_run_that_lost_its_lease_deletes_nothing(
    remote: Remote,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overtaken_in: tuple[ModuleType, str],
    deleted: set[str],
) -> None:
    """Its machine slept before --overwrite deleted an earlier run, or while it did, and another run took the folder."""
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(50))
    flags = ("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out")
    assert label_with(*flags) == 0
    before = remote.contents(BUCKET, "out/")
    module, name = overtaken_in
    work = getattr(module, name)

    def overtaken(*args: Any) -> object:
        remote.upload(BUCKET, "out/.lock", b'{"owner": "another", "token": "its own"}')
        return work(*args)

    monkeypatch.setattr(module, name, overtaken)
    assert label_with(*flags, "--overwrite") == 1
    assert "out/.lock: another run has taken this folder" in capsys.readouterr().err
    assert before.keys() - remote.contents(BUCKET, "out/").keys() == deleted


def test_a_run_that_lost_its_lease_keeps_the_summary_of_the_other(
    remote: Remote, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its machine slept between its last look at the lease and the summary, and another run came to its end."""
    corpus, look = remote.upload(BUCKET, "a.jsonl", jsonl(50)), leases.holds
    looks = itertools.count(1)

    def overtaken(path: str, token: str) -> bool:
        held = look(path, token)
        labelled = any(name.startswith("receipts/") for name in remote.contents(BUCKET, "out/"))
        if labelled and next(looks) == 2:
            remote.upload(BUCKET, "out/.lock", b'{"owner": "another", "token": "its own"}')
            remote.upload(BUCKET, "out/summary.json", b"of another")
        return held

    monkeypatch.setattr(leases, "holds", overtaken)
    assert label_with("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out") == 1
    assert "out/.lock: another run has taken this folder" in capsys.readouterr().err
    assert remote.contents(BUCKET, "out/")["summary.json"] == b"of another"


def test_a_file_whose_writing_was_overtaken_is_written_by_its_owner(remote: Remote) -> None:
    path = f"{root_of(remote)}/out/summary.json"
    late = [b"late", b"later"]

    def require_own() -> None:
        if late:
            remote.upload(BUCKET, "out/summary.json", late.pop(0))

    for content in (b"one", b"two", b"two"):
        storage.replace_file(path, content, require_own)
        assert remote.contents(BUCKET, "out/") == {"summary.json": content}
    assert not late


@pytest.mark.parametrize("overtaken", [True, False])
def test_the_first_of_two_retries_at_once_counts(remote: Remote, overtaken: bool) -> None:
    """A receipt that was replaced in between is kept, since the files of the second retry are deleted."""
    values: dict[str, Any] = {counter.name: 0 for counter in fields(Receipt)}
    old = Receipt(**{**values, "run": "0" * 32, "slice": "0000000-a"})
    first, second, output = replace(old, worker="first"), replace(old, worker="second"), f"{root_of(remote)}/out"
    receipts.write(old, output)
    find = receipts.find

    def late(*arguments: str) -> Receipt | None:
        found = find(*arguments)
        if overtaken and found == old:
            storage.write_file(receipts.path_of(*arguments), seals.seal(vars(first)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipts, "find", late)
        winner = receipts.replace_old(old, second, output, lambda: None)
    assert winner == find(output, old.run, old.slice) == (first if overtaken else second)


@pytest.mark.parametrize("at_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])  # the latter as a shell's job
def test_a_lease_is_lost_if_the_storage_does_not_answer(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, at_ctrl_c: Any
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.4)
    before, began = signal.signal(signal.SIGINT, at_ctrl_c), time.monotonic()
    lease = leases.Lease(f"{root_of(remote)}/out/.lock", "one").__enter__()
    monkeypatch.setattr(lease, "_write", lambda: 1 / 0)
    try:
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(10)  # as the main thread waits for its workers
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 5
    lease.__exit__()
    assert lease.lost
    assert "the storage did not answer for 0 s" in lease.lost


def test_a_launcher_without_its_storage_goes_on_watching_its_job(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.2)
    with leases.Lease(f"{root_of(remote)}/out/.lock", "one", {"name": "labelbeam-1"}) as lease:
        lease.leave(to_job=True)
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_write", lambda: 1 / 0)
            time.sleep(1.0)
        assert lease.lost is None
        lease.leave(to_job=False)  # the job has ended, so another run may take the folder
        monkeypatch.setattr(lease, "_write", lambda: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(10)
    assert "the storage did not answer" in (lease.lost or "")


def test_a_lease_that_was_left_to_a_job_is_free_when_the_job_has_ended(remote: Remote) -> None:
    path, job = f"{root_of(remote)}/out/.lock", {"project": "p", "region": "r", "name": "labelbeam-1"}
    with leases.Lease(path, "one", job) as lease:
        lease.leave(to_job=True)
    with pytest.raises(UserError, match="the job labelbeam-1 is at work here; wait for it or cancel it"):
        leases.Lease(path, "two", None, lambda asked: asked == job).__enter__()
    with pytest.raises(UserError, match="its engine cannot be asked .no network.; delete this object once the job"):
        leases.Lease(path, "two", None, Mock(side_effect=OSError("no network"))).__enter__()
    with leases.Lease(path, "two", None, lambda _: False):
        pass
    assert json.loads(remote.contents(BUCKET, "out/")[".lock"])["job"] is None


def test_a_lease_is_left_to_its_job_only_when_the_launcher_ends(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher takes minutes to submit its job, and the engine does not know it yet."""
    path = f"{root_of(remote)}/out/.lock"
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    with leases.Lease(path, "one", {"name": "labelbeam-1"}) as lease:
        lease.leave(to_job=True)
        requests = len(remote.requests)
        while len(remote.requests) < requests + 2:
            time.sleep(0.01)
        with pytest.raises(UserError, match=r"another run \(one\) is at work here"):
            leases.Lease(path, "two", None, lambda _: False).__enter__()
    with leases.Lease(path, "two", None, lambda _: False):
        pass


@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_a_wildcard_in_the_output_is_refused(
    remote: Remote, colours: Path, capsys: pytest.CaptureFixture[str], flag: tuple[str, ...]
) -> None:
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(10))
    for name in ("run/run.json", "run/receipts/00000-0.00000000.json", "run2/run.json"):
        remote.upload(BUCKET, name, b"{}")
    before = remote.contents(BUCKET)
    for name in ("ru*", "ru[n]", "run?"):
        assert label_with("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/{name}", *flag) == 2
        assert "expected the name of a folder, found a wildcard" in capsys.readouterr().err
    assert remote.contents(BUCKET) == before


def test_overwrite_leaves_objects_that_are_not_a_run_s(
    remote: Remote, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = remote.upload(BUCKET, "a.jsonl", jsonl(10))
    flags = ("--model", colours, "--input", corpus, "--output", f"{root_of(remote)}/out")
    assert label_with(*flags) == 0
    remote.upload(BUCKET, "out/thesis.docx", b"x")
    assert label_with(*flags, "--overwrite") == 0
    assert remote.contents(BUCKET)["out/thesis.docx"] == b"x"
    remote.upload(BUCKET, "out/predictions/thesis.docx", b"x")
    before = remote.contents(BUCKET)
    assert label_with(*flags, "--overwrite") == 2
    assert "holds 'predictions/thesis.docx', which does not belong to a run" in capsys.readouterr().err
    assert remote.contents(BUCKET) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cut connections leave sockets open
def test_a_lease_whose_answer_was_lost_is_held(cloud: CloudStorage) -> None:
    path = f"gs://{BUCKET}/out/.lock"
    cloud.fault = cloud_storage.every(1, LOST, "^/upload/")
    lease = leases.Lease(path, "one")
    threading.Timer(1.5, setattr, (cloud, "fault", lambda method, path: None)).start()
    with lease, pytest.raises(UserError, match="at work here"):
        leases.Lease(path, "two").__enter__()
    assert cloud.failed
    assert json.loads(cloud.contents(BUCKET, "out/")[".lock"])["left"]


@pytest.mark.parametrize("status", [404, 412])
def test_an_object_that_is_replaced_while_it_is_read_is_read(cloud: CloudStorage, status: int) -> None:
    """The service answers 404 or 412 for a generation that is gone."""
    path = cloud.upload(BUCKET, "x", b"first")

    def replaced(method: str, asked: str) -> int | None:
        if "alt=media" not in asked:
            return None
        cloud.fault = lambda method, path: None
        cloud.upload(BUCKET, "x", b"second")
        return status

    cloud.fault = replaced
    found = gcs.read(path)
    assert found
    assert found[1] == b"second"
    assert cloud.failed == 1
    assert gcs.read(f"gs://{BUCKET}/none") is None


def test_the_output_may_be_a_whole_bucket(remote: Remote, colours: Path, corpus: Path) -> None:
    assert label_with("--model", colours, "--input", corpus, "--output", root_of(remote)) == 0
    assert "summary.json" in remote.contents(BUCKET)


def test_a_file_is_created_once(remote: Remote) -> None:
    path = f"{root_of(remote)}/run.json"
    assert [storage.create_file(path, b"first"), storage.create_file(path, b"second")] == [True, False]
    assert remote.contents(BUCKET)["run.json"] == b"first"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (None, "there is no such bucket or object"),
        (403, "permission denied; run `gcloud auth"),
        (400, "cannot be reached: "),
    ],
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


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("gs://b/x", ServiceUnavailable("down", response=requests.Response())),  # type: ignore[no-untyped-call]
        ("--output gs://B/x", BadRequest("down", response=requests.Response())),  # type: ignore[no-untyped-call]
        ("gs://b/x", requests.ConnectionError("down")),
        ("s3://b/x", ReadTimeoutError(endpoint_url="down")),
        ("Model s3://b/x", ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "down")),
    ],
)
def test_every_error_of_a_storage_becomes_one_sentence(path: str, error: Exception) -> None:
    sentence = storage.explanation(path, error)
    assert sentence.startswith(f"{path} cannot be reached: ")
    assert "down" in sentence


def test_an_output_that_may_not_be_written_is_one_sentence(
    cloud: CloudStorage, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = cloud.upload(BUCKET, "a.jsonl", jsonl(10))
    cloud.fault = lambda method, path: 403 if path.startswith("/upload/") else None
    assert label_with("--model", colours, "--input", corpus, "--output", f"gs://{BUCKET}/out") == 2
    assert capsys.readouterr().err.startswith(f"error: gs://{BUCKET}/out/.lock: permission denied; run `gcloud auth")


def test_a_remote_model_is_copied_once_and_checked(remote: Remote, colours: Path, tmp_path: Path) -> None:
    model = upload_folder(remote, colours, "models/colours")
    folder = model_files.local(model)
    assert Path(folder).name == "colours"
    remote.requests.clear()
    assert model_files.local(model) == folder
    assert not any("model.pth" in path for _, path in remote.requests)
    with pytest.raises(ModelError, match="found no model.json in it"):
        model_files.local(f"{root_of(remote)}/models")
    manifest = json.loads((colours / "model.json").read_bytes())
    manifest["files"]["../../escaped"] = "0"
    remote.upload(BUCKET, "models/bad/model.json", json.dumps(manifest).encode())
    with pytest.raises(ModelError, match="lies outside of it"):
        model_files.local(f"{root_of(remote)}/models/bad")


def test_a_remote_int8_variant_belongs_to_the_fingerprint(remote: Remote, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m")
    int8_variant(model)
    uploaded = upload_folder(remote, model, "m")
    first = Path(model_files.local(uploaded))
    one = model_files.fingerprint(uploaded, "int8")
    assert one == model_files.fingerprint(str(model), "int8") != model_files.fingerprint(uploaded, "fp32")
    assert model_files.local(uploaded) == str(first)
    variant = int8_variant(model, scale=1.001)
    upload_folder(remote, model, "m")
    second = Path(model_files.local(uploaded))
    assert second != first
    assert model_files.fingerprint(uploaded, "int8") == model_files.fingerprint(str(model), "int8") != one
    assert (second / FOLDER / variant.name / "model.bin").read_bytes() == (variant / "model.bin").read_bytes()


def test_a_remote_int8_variant_that_was_changed_is_not_kept(remote: Remote, tmp_path: Path) -> None:
    variant = int8_variant(tiny_model(tmp_path / "m"))
    uploaded = upload_folder(remote, tmp_path / "m", "m")
    remote.upload(BUCKET, f"m/{FOLDER}/{variant.name}/model.bin", b"other weights")
    with pytest.raises(ModelError, match=rf"^{uploaded}/{FOLDER}/{variant.name}: .* found model.bin changed"):
        model_files.local(uploaded)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    remote.upload(BUCKET, f"m/{FOLDER}/{variant.name}/model.bin", (variant / "model.bin").read_bytes())
    assert (Path(model_files.local(uploaded)) / FOLDER / variant.name).is_dir()


def test_only_conversions_that_can_be_used_are_copied(remote: Remote, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = tiny_model(tmp_path / "m")
    folder = conversion_folder.path_of(model, conversion_folder.exact(trained_model.read_manifest(model), "openvino"))
    uploaded = upload_folder(remote, model, "m")
    for name in (f"{folder.name}/model.xml", f"{folder.name}/a b", "openvino-1.0-00/model.xml", ".half/model.xml"):
        remote.upload(BUCKET, f"m/{FOLDER}/{name}", b"whatever")
    copied = Path(model_files.local(uploaded))
    assert [str(path.relative_to(copied / FOLDER)) for path in (copied / FOLDER).rglob("*.*") if path.is_file()] == [
        f"{folder.name}/model.xml"
    ]

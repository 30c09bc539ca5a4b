"""Tests what holds for S3 alone: flags, credentials, many objects, old servers, and processes that are killed."""

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.io.filesystems import FileSystems
from botocore.exceptions import ResponseStreamingError

from inference import beam_runner, verify
from inference.corpus import lease, storage
from inference.corpus import s3 as objects
from inference.corpus.files import find_files
from inference.corpus.objects import ConflictError
from models import paths
from models.errors import UserError
from tests import cloud_storage, s3_server
from tests.cloud_storage import LOST, CloudStorage
from tests.dataflow import Service
from tests.inference.conftest import BUCKET, contents, jsonl, launch_flags, upload_folder, without_run
from tests.s3_server import S3

OUT = f"s3://{BUCKET}/out"
LABEL = ("--runner", "FnApiRunner", "--slice_mb", "0.005", "--runtime", "torch")
# A command that takes its time for each slice.
COMMAND = """
import sys, time
from inference import beam_runner
from inference.scoring.scorer import Scorer
score = Scorer.score
Scorer.score = lambda *args: (time.sleep(1), score(*args))[1]
sys.exit(beam_runner.main(sys.argv[1:]))
"""
SECRET = "wJalrXUtnFEMI"


def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


def test_more_objects_than_one_answer_lists(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    monkeypatch.setattr(objects, "BATCH", 10)
    names = [f"part-{number:04d}.jsonl" for number in range(985, 1005)]
    for name in [*names, "deeper/x.jsonl"]:
        s3.upload(BUCKET, f"many/{name}", b"{}\n")
    folder = f"s3://{BUCKET}/many"
    assert [file.path for file in find_files([f"{folder}/*.jsonl"])] == [f"{folder}/{name}" for name in names]
    assert sorted(storage.listing(folder)) == names
    assert sorted(storage.listing(folder, "part-100")) == names[-5:]
    ages = storage.ages(folder)
    assert ages.keys() == set(names)
    assert all(-1 <= age < 600 for age in ages.values())
    s3.requests.clear()
    storage.delete(folder, [*names, "gone"])
    assert len(s3.requests) == 3
    assert s3.contents(BUCKET).keys() == {"many/deeper/x.jsonl"}


def test_objects_of_every_size(s3: S3, tmp_path: Path) -> None:
    """Beam's own writer cannot write an empty object. A large one is sent in parts."""
    for size in (0, 1, 9_000_000):
        path = f"s3://{BUCKET}/a file #{size}"
        with (tmp_path / "file").open("w+b") as file:
            file.write(os.urandom(size))
            file.seek(0)
            storage.write_file(path, file)
        assert storage.read_file(path) == (tmp_path / "file").read_bytes()


def test_one_of_many_processes_creates_a_file(s3: S3) -> None:
    path = f"s3://{BUCKET}/receipt.json"
    with ThreadPoolExecutor(12) as pool:
        created = list(pool.map(lambda number: storage.create_file(path, b"%d" % number), range(12)))
    assert sum(created) == 1
    assert s3.contents(BUCKET)["receipt.json"] == b"%d" % created.index(True)
    s3.fault = cloud_storage.every(1, LOST, "second")
    assert storage.create_file(f"s3://{BUCKET}/first", b"")
    s3.fault = cloud_storage.every(2, LOST, "second")
    s3.requests.clear()
    assert storage.create_file(f"s3://{BUCKET}/second", b"its answer is lost")


def test_a_write_names_the_version_that_it_replaces(s3: S3) -> None:
    path = f"s3://{BUCKET}/x"
    first = objects.write(path, b"1", None)
    second = objects.write(path, b"2", first)
    assert objects.read(path) == (second, b"2")
    for version in (first, None):
        with pytest.raises(ConflictError):
            objects.write(path, b"3", version)
    s3.delete(BUCKET, "x")
    with pytest.raises(ConflictError):
        objects.write(path, b"3", second)
    assert objects.read(path) is None


def test_an_answer_that_breaks_off_is_asked_for_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAUSES", (0.0,))
    path = s3.upload(BUCKET, "a", b"0123456789")
    s3.fault = cloud_storage.every(2, s3_server.BROKEN)
    assert [storage.read_file(path, size) for size in (-1, 6)] == [b"0123456789", b"012345"]
    assert (objects.read(path) or ("", b""))[1] == b"0123456789"
    assert s3.failed == 2
    s3.fault = cloud_storage.every(1, s3_server.BROKEN)
    with pytest.raises(ResponseStreamingError):
        storage.read_file(path)


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(
    s3: S3, colours: Path, capsys: pytest.CaptureFixture[str], condition: str
) -> None:
    s3.ignored = (condition,)
    corpus = s3.upload(BUCKET, "a.jsonl", jsonl(10))
    assert beam_runner.main(["--model", str(colours), "--input", corpus, "--output", OUT]) == 2
    assert capsys.readouterr().err == (
        f"error: --output {OUT}: expected a server that obeys {condition} in PutObject, found one that ignores it, so "
        "two runs could mix; update the server, or write to another storage.\n"
    )
    assert s3.contents(BUCKET).keys() == {"a.jsonl"}


def test_a_lost_answer_does_not_refuse_a_server(s3: S3) -> None:
    lost = cloud_storage.every(1, LOST, r"\.lock\.")
    s3.fault = lambda method, path: None if s3.failed else lost(method, path)
    storage.require_conditions(OUT)
    assert s3.failed == 1
    assert s3.contents(BUCKET) == {}


def test_a_renewal_without_an_answer_ends_before_its_lease(
    s3: S3, other_environments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = objects.client().meta.config
    pauses = sum(2**number for number in range(objects.ATTEMPTS - 1))  # the longest of boto3
    longest = objects.ATTEMPTS * max(config.connect_timeout, config.read_timeout) + pauses
    assert longest < lease.LEASE_SECONDS * (1 - 1 / lease.RENEWALS)
    assert config.retries["total_max_attempts"] == objects.ATTEMPTS
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "10")
    objects._client.cache_clear()
    assert objects.client().meta.config.retries["total_max_attempts"] == 10


@pytest.mark.parametrize("fault", [0.5, 503])
def test_a_storage_without_an_answer_is_not_asked_for_minutes(
    s3: S3, other_environments: None, monkeypatch: pytest.MonkeyPatch, fault: float | int
) -> None:
    monkeypatch.setattr(objects._BeamClient, "answered", False)
    monkeypatch.setattr(objects, "TIMEOUTS", {"connect_timeout": 1, "read_timeout": 0.1})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3.fault = lambda method, path: fault
    with pytest.raises(S3ClientError, match=r"Read timeout on endpoint URL|\(503\)"):
        storage.open_file(f"{OUT}/x")


def test_an_import_leaves_beam_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3_client, "Client", objects._BeamClient.__base__)
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    runpy.run_path(str(objects.__file__))
    assert boto3_client.Client is objects._BeamClient.__base__
    assert FileSystems._pipeline_options is None


def test_a_program_that_has_set_no_options_reads_s3(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3_client, "Client", objects._BeamClient.__base__)
    assert storage.exists(s3.upload(BUCKET, "x", b"x"))
    assert boto3_client.Client is objects._BeamClient


def test_beam_may_hand_on_its_options_as_a_dict(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"s3_endpoint_url": s3.url, "s3_access_key_id": "dict", "s3_secret_access_key": SECRET}
    client = objects._BeamClient(flags).client
    assert client.meta.endpoint_url == s3.url
    assert client._request_signer._credentials.access_key == "dict"


def test_flags_of_beam_stand_for_the_environment_and_secrets_are_not_kept(
    s3: S3, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, url = s3.upload(BUCKET, "a.jsonl", jsonl(10)), s3.url
    without_environment(monkeypatch)
    given = {"endpoint_url": url, "access_key_id": "AKIA5", "secret_access_key": SECRET, "region_name": "eu-west-1"}
    flags = [word for name, value in given.items() for word in (f"--s3_{name}", value)]
    assert beam_runner.main(["--model", str(colours), "--input", corpus, "--output", OUT, *LABEL, *flags]) == 0
    written = s3.contents(BUCKET, "out/")
    assert "summary.json" in written
    assert not [name for name, content in written.items() if SECRET.encode() in content or b"AKIA5" in content]
    assert "--s3_secret_access_key '***'" in json.loads(written["run.json"])["command"]


@pytest.mark.usefixtures("other_environments")
def test_a_storage_that_cannot_be_used_is_one_sentence_for_each_flag(
    s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beam alone would ask again for eight minutes."""

    def errors(bucket: str) -> list[str]:
        monkeypatch.setattr(objects._BeamClient, "answered", False)
        objects._client.cache_clear()
        paths = ("--model", f"{bucket}/m", "--input", f"{bucket}/*.jsonl", "--output", f"{bucket}/out")
        assert beam_runner.main(list(paths)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.split("s3://")[0] for line in sorted(lines)] == [
            "error: --input ",
            "error: --output ",
            "error: Model ",
        ]
        return lines

    assert all("there is no such bucket or object; check the name." in line for line in errors("s3://elsewhere"))
    s3.fault = lambda method, path: 403
    assert all("permission denied; set AWS_ACCESS_KEY_ID" in line for line in errors(f"s3://{BUCKET}"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    began = time.monotonic()
    for line in errors(f"s3://{BUCKET}"):
        assert "cannot be reached: Could not connect to the endpoint" in line
    objects._BeamClient.answered = False
    assert verify.main([OUT]) == 2
    assert capsys.readouterr().err.startswith(f"error: {OUT}/run.json cannot be reached: Could not connect")
    without_environment(monkeypatch)
    assert all("permission denied; set AWS_ACCESS_KEY_ID" in line for line in errors(f"s3://{BUCKET}"))
    assert time.monotonic() - began < 30


def test_a_job_on_dataflow_takes_nothing_from_s3(
    cloud: CloudStorage, service: Service, s3: S3, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, model = s3.upload(BUCKET, "a.jsonl", jsonl(10)), upload_folder(s3, colours, "m/colours")
    assert beam_runner.main(launch_flags(service, model=model, input=corpus, output=OUT)) == 2
    found = sorted(line.partition(", found")[0] for line in capsys.readouterr().err.splitlines())
    reachable = "which every worker can reach; "
    assert found == [
        f"error: --input {corpus}: expected a gs:// path, {reachable}copy the corpus to one.",
        f"error: --model {model}: expected a model that every worker can reach",
        f"error: --output {OUT}: expected a gs:// path, {reachable}name one.",
    ]


@pytest.mark.usefixtures("other_environments")
def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(paths, "find_spec", lambda name: None if name == "boto3" else find(name))
    assert verify.main([OUT]) == 2
    sentence = "expected the package boto3, which s3:// needs, found none; run `pip install 'labelbeam[s3]'`"
    assert sentence in capsys.readouterr().err
    objects._client.cache_clear()
    with pytest.raises(UserError, match="run `pip install 'labelbeam"):
        storage.create_file(f"{OUT}/x", b"")


@pytest.mark.slow
def test_one_of_two_commands_goes_on_and_a_killed_one_resumes(
    s3: S3,
    colours: Path,
    label: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(300))
    corpus = s3.upload(BUCKET, "a.jsonl", jsonl(300))
    flags = ["--model", str(colours), "--input", corpus, "--output", OUT, *LABEL]
    command = [sys.executable, "-c", COMMAND, *flags]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.1)
    refused, at_work = sorted(both, key=lambda process: process.poll() is None)
    _, error = refused.communicate()
    assert refused.returncode == 2, error
    assert "another run" in error
    while not s3.contents(BUCKET, "out/receipts/"):
        time.sleep(0.1)
    at_work.send_signal(signal.SIGKILL)
    at_work.communicate()
    finished = s3.contents(BUCKET, "out/receipts/")
    assert beam_runner.main(flags) == 2
    assert "is at work here, last seen" in capsys.readouterr().err
    time.sleep(5.1)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 4.0)
    assert beam_runner.main(flags) == 0
    after = s3.contents(BUCKET, "out/")
    assert finished.items() <= {name.removeprefix("receipts/"): content for name, content in after.items()}.items()
    assert len(finished) < len([name for name in after if name.startswith("receipts/")])
    whole = contents(label("--model", colours, "--input", tmp_path / "a.jsonl", *LABEL))
    rows = {without_run(name): content for name, content in after.items() if name.startswith("predictions/")}
    assert sorted(rows.values()) == sorted(whole.values())

"""Fixtures and helpers of the inference tests: tiny models, corpora, and runs of the pipeline in this process."""

import gc
import json
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.internal.gcp.auth import _Credentials
from apache_beam.io.filesystems import FileSystems
from google.api_core.retry import retry_unary

from inference import beam_runner
from inference.corpus import counting
from inference.corpus import s3 as objects
from inference.corpus.files import find_files
from inference.corpus.slices import Slice
from inference.scoring import conversion_folder, converters
from models import seals, weights
from models.network import PooledClassifier
from models.paths import GS
from models.paths import S3 as S3_SCHEME
from tests import cloud_storage, dataflow, s3_server
from tests.cloud_storage import CloudStorage
from tests.dataflow import Service
from tests.s3_server import S3
from tests.tiny import tiny_model

WORDS = ("red", "green", "blue", "sky", "grass", "rose", "the", "of", "a", "is")


def texts(count: int) -> list[str]:
    """Return texts of 1 to 40 words. Texts of four words and more are all different."""
    return [
        " ".join(WORDS[(i * 7 + i // 40 * 3**j + j * j) % 10] for j in range(1 + i * 13 % 40)) for i in range(count)
    ]


def write_corpus(path: Path, count: int) -> Path:
    """Write a corpus of `count` documents with the ids d0, d1, ..., and return its path."""
    rows = ({"id": f"d{i}", "text": text, "year": 2000 + i % 20} for i, text in enumerate(texts(count)))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a multi-label model."""
    return tiny_model(tmp_path_factory.mktemp("models") / "colours")


@pytest.fixture(scope="session")
def offensive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a binary model with the same tokenizer that reads fewer tokens."""
    directory = tmp_path_factory.mktemp("models") / "offensive"
    return tiny_model(directory, task="binary", names=("no", "yes"), max_tokens=16, seed=1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a corpus of 300 good documents."""
    return write_corpus(tmp_path / "corpus.jsonl", 300)


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that labels into a new folder and returns it. The exit code must be `expect`."""

    def label_corpus(*flags: object, output: Path | None = None, expect: int = 0) -> Path:
        folder = output or tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        assert beam_runner.main([*map(str, flags), "--output", str(folder)]) == expect
        return folder

    return label_corpus


BUCKET = "bucket"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CloudStorage]:
    """Run an emulator of Cloud Storage with an empty bucket, which replaces the real service in this process."""
    with cloud_storage.running(BUCKET) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(
            _Credentials, "_credentials_init", True
        )  # otherwise Beam searches credentials for a long time
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(seconds / 50))
        monkeypatch.setattr(retry_unary, "time", clock)  # what waits before it asks the storage again
        yield running
        if running.failed:  # collect the cut connections now, so that no later test gets their warnings
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3]:
    """Run one server for all tests. The thread of a run that has failed may ask it once more in a later test."""
    with s3_server.running() as running:
        yield running
        forget_clients()


@pytest.fixture
def s3(s3_service: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """Run a server for S3 with an empty bucket, which boto3's variables name to this process and its children."""
    s3_service.reset(BUCKET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_service.url)
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv("AWS_DEFAULT_REGION" if name == "region_name" else name.upper(), value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    return s3_service


def forget_clients() -> None:
    """Let later requests to S3 see another environment."""
    objects._client.cache_clear()
    gc.collect()  # connections are closed when their client goes


@pytest.fixture
def other_environments(s3: S3) -> Iterator[None]:
    """Keep clients that a test makes in another environment of boto3 from all other tests."""
    forget_clients()
    yield
    forget_clients()


Remote = CloudStorage | S3


@pytest.fixture(params=["cloud", "s3"])
def remote(request: pytest.FixtureRequest) -> Remote:
    """Return each of the remote storages in turn, with an empty bucket."""
    storage: Remote = request.getfixturevalue(request.param)
    return storage


def root_of(remote: Remote) -> str:
    """Return the path of the bucket."""
    return f"{GS if isinstance(remote, CloudStorage) else S3_SCHEME}{BUCKET}"


def jsonl(count: int, start: int = 0) -> bytes:
    """Return the bytes of a corpus with `count` documents."""
    rows = ({"id": f"d{start + i}", "text": text} for i, text in enumerate(texts(count)))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def slices_of(corpus: Path, slice_bytes: int = 10**9) -> list[Slice]:
    """Return the slices of a corpus of one file."""
    return counting.count_all(find_files([str(corpus)]), slice_bytes)


def upload_folder(cloud: Remote, folder: Path, name: str) -> str:
    """Copy a folder into the bucket, and return its path there."""
    for file in folder.rglob("*"):
        if file.is_file():
            cloud.upload(BUCKET, f"{name}/{file.relative_to(folder)}", file.read_bytes())
    return f"{root_of(cloud)}/{name}"


def rows_of(folder: Path, kind: str = "predictions") -> list[dict[str, Any]]:
    """Return all rows of a run's predictions or failures, in the order of the input."""
    files = sorted((folder / kind).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every predictions and failures file of a run, by its path without the run's identity."""
    files = [*folder.glob("predictions/*"), *folder.glob("failures/*")]
    return {without_run(str(file.relative_to(folder))): file.read_bytes() for file in files}


def without_run(path: str) -> str:
    """Return the path of a run's file without the part that tells runs apart."""
    return re.sub(r"\.[0-9a-f]{8}([.-])", r"\1", path)


def edit_description(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description of a run and seal it again."""
    content = seals.unseal((run / "run.json").read_bytes())
    assert content
    change(content)
    (run / "run.json").write_bytes(seals.seal(content))


def edit_summary(run: Path, **changes: object) -> None:
    """Change the summary of a run and seal it again."""
    content = seals.unseal((run / "summary.json").read_bytes())
    assert content
    (run / "summary.json").write_bytes(seals.seal({**content, **changes}))


def identity_of(run: Path) -> str:
    """Return the identity of a run."""
    return str(json.loads((run / "run.json").read_bytes())["run"])


@pytest.fixture
def service(colours: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Run stubs of Dataflow, of a registry whose image holds the model `colours`, and of an engine without images."""
    with dataflow.running(colours) as running:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{running.address}")
        yield running
        gc.collect()  # a connection that is still open gives a warning, which fails this test


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all sleeps, because Beam polls Dataflow every five seconds."""
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.1)))


def launch_flags(service: Service, **changes: str | None) -> list[str]:
    """Return a complete command line. A flag with the value None is left out, and one with "" has no value."""
    values: dict[str, str | None] = {
        "runner": "DataflowRunner",
        "project": "paper-labels",
        "region": "us-central1",
        "temp_location": f"gs://{BUCKET}/tmp",
        "sdk_container_image": service.image,
        "model": "/models/colours",
        "input": f"gs://{BUCKET}/a.jsonl",
        "output": f"gs://{BUCKET}/out",
        "dataflow_endpoint": f"http://{service.address}",
        "no_auth": "",
        **changes,
    }
    return [part for name, value in values.items() if value is not None for part in (f"--{name}", value) if part]


@pytest.fixture
def corpus_in_the_cloud(cloud: CloudStorage) -> str:
    """Upload a corpus of 100 documents."""
    return cloud.upload(BUCKET, "a.jsonl", jsonl(100))


def int8_variant(model: Path, scale: float = 1.0) -> Path:
    """Give a model a variant that stands for int8, with its head scaled. Return the variant's folder."""
    loaded = weights.load(model)
    assert isinstance(loaded.network, PooledClassifier)
    loaded.network.head.weight.data *= scale
    kind = conversion_folder.int8(loaded.manifest)
    folder = conversion_folder.path_of(model, kind)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    converters.convert(loaded, "openvino", folder)
    conversion_folder.seal(folder, kind)
    return folder

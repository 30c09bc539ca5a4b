"""Tests the image: the files sent to the engine, the built image, and a pipeline that runs in it."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from unittest import mock

import docker
import pytest
import yaml
from docker.errors import ContainerError
from docker.utils.build import exclude_paths
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from inference import container
from inference import probe as probe_command
from inference.dataflow import contents, image_build, image_context, images
from inference.dataflow.probe import probe
from inference.scoring import conversion_folder
from inference.scoring.conversion_folder import FOLDER
from inference.scoring.options import ScoringOptions
from inference.scoring.runtimes import PACKAGES
from models import trained_model
from models.errors import UserError
from tests import job_servers
from tests.inference.conftest import int8_variant, jsonl, rows_of
from tests.tiny import tiny_model

ROOT = Path(__file__).parent.parent.parent
TAG = "labelbeam-test:1"
WORKER_PORT = 50123
WHEELS_PORT = 8099  # fixed port, so that the engine reuses its layers


OWN = ("inference", "models", "training")
# Files that a working tree may hold beside labelbeam's own. None may get into an image.
FOREIGN = [
    f"{folder}{name}"
    for folder in ("", *(f"{package}/" for package in OWN), "inference/cost/", "models/trained/", "models/trained/ai/")
    for name in (".env", "id_rsa", "service-account.json", "corpus.jsonl", "server.pem", "secrets/token")
] + [
    *("data/corpus.jsonl", "runs/a/run.json", ".venv/bin/python", ".git/config", "deploy/flex_template/.env"),
    *("models/__pycache__/a.pyc", "models/trained/ai/evaluation/scores.csv", "models/trained/ai/report.html"),
    *("models/trained/ai/runtimes/.env", "models/trained/ai/runtimes/openvino-1/model.xml"),
    *("models/trained/ai/runtimes/int8-1/id_rsa", "training/configs/.env", "inference/runs/templates/id_rsa"),
]  # fmt: skip
MODEL = [f"models/trained/ai/{name}" for name in ("model.pth", "model.json", "config.json", "tokenizer.json")]
MODEL += [f"models/trained/ai/runtimes/int8-1/{name}" for name in image_context.VARIANT]


def run_git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tracked() -> list[str]:
    """Return the files of this clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = run_git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return [name for name in listed if (ROOT / name).exists()]


@pytest.fixture
def clone(tracked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone in which FOREIGN files lie, and make image_context take it for the project."""
    root = tmp_path / "clone"
    for name in tracked:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    run_git(root, "init", "-q")
    run_git(root, "add", "--all")
    run_git(root, "commit", "-qm", "all")
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    monkeypatch.setattr(image_context, "ROOT", root)
    return root


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def needed(tracked: list[str]) -> set[str]:
    """Return the files of labelbeam that an image is built from."""
    return {*image_context.SOURCES, *(name for name in tracked if name.split("/")[0] in OWN)}


def files_of(model: Path) -> set[str]:
    manifest = json.loads((model / "model.json").read_bytes())
    return {f"models/trained/{model.name}/{name}" for name in ("model.json", *manifest["files"])}


def test_the_engine_is_sent_what_git_tracks_and_the_named_models(
    clone: Path, tracked: list[str], tmp_path: Path, colours: Path
) -> None:
    (clone / "inference/draft.py").write_text("draft")
    (clone / "inference/probe.py").unlink()
    model = shutil.copytree(colours, tmp_path / "colours")
    variant = model / FOLDER / conversion_folder.int8(trained_model.read_manifest(model)).name
    for name in (*image_context.VARIANT, "id_rsa"):
        variant.mkdir(parents=True, exist_ok=True)
        (variant / name).touch()
    (model / ".env").touch()
    image_context.fill([str(model)], tmp_path / "context")
    variants = {f"models/trained/colours/runtimes/{variant.name}/{name}" for name in image_context.VARIANT}
    assert files_below(tmp_path / "context") == needed(tracked) - {"inference/probe.py"} | files_of(model) | variants


@pytest.mark.parametrize("place", ["model", "variant", "package"])
def test_a_link_is_refused(clone: Path, tmp_path: Path, colours: Path, place: str) -> None:
    """What it leads to may be a key."""
    (tmp_path / "id_rsa").write_text("secret")
    model = shutil.copytree(colours, tmp_path / "colours")
    variant = model / FOLDER / conversion_folder.int8(trained_model.read_manifest(model)).name
    linked = {"model": model / "config.json", "variant": variant / "model.xml", "package": clone / "models/text.py"}
    linked[place].parent.mkdir(parents=True, exist_ok=True)
    linked[place].unlink(missing_ok=True)
    linked[place].symlink_to(tmp_path / "id_rsa")
    with pytest.raises(
        UserError, match=f"{linked[place]}: expected a file, found a symbolic link to {tmp_path}/id_rsa"
    ):
        image_context.fill([str(model)], tmp_path / "context")


def test_a_model_may_itself_be_reached_by_a_link(clone: Path, tmp_path: Path, colours: Path) -> None:
    (tmp_path / "link").symlink_to(colours)
    image_context.fill([str(tmp_path / "link")], tmp_path / "context")
    assert (tmp_path / "context/models/trained/link/model.pth").read_bytes() == (colours / "model.pth").read_bytes()


def test_a_folder_that_cannot_tell_its_own_files_is_refused(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / ".git")
    with pytest.raises(UserError, match="expected a git clone or an installed wheel of labelbeam"):
        image_context.fill([], tmp_path / "context")
    assert not (tmp_path / "context").exists()
    assert image_context.commit() == "unknown"


def with_model(clone: Path) -> None:
    for name in MODEL:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()


def test_a_build_by_hand_sends_what_a_pattern_names(clone: Path, tracked: list[str]) -> None:
    """The library computes the context exactly as the engine's own client does."""
    with_model(clone)
    patterns = [line for line in (clone / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    sent = {name for name in exclude_paths(str(clone), patterns) if not (clone / name).is_dir()}
    assert sent == needed(tracked) | {".dockerignore", *MODEL}


def test_a_build_in_the_cloud_uploads_what_a_pattern_names(clone: Path, tracked: list[str]) -> None:
    """Git and gcloud read the same patterns."""
    with_model(clone)
    shutil.rmtree(clone / ".git")
    run_git(clone, "init", "-q")
    uploaded = set(run_git(clone, "ls-files", "--others", "--exclude-from=.gcloudignore").splitlines())
    assert uploaded == needed(tracked) | {".dockerignore", ".gcloudignore", "cloudbuild.yaml", *MODEL}


def test_the_patterns_name_every_file_of_a_model(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "models/trained/ai")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    patterns = (tmp_path / ".dockerignore").read_text().splitlines()
    assert files_of(model) <= exclude_paths(str(tmp_path), patterns)


def test_the_dockerfile_names_the_pinned_beam() -> None:
    (version,) = re.findall(r"^ARG BEAM_VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"apache-beam=={version} " in (ROOT / "requirements.txt").read_text()


def test_cloud_build_builds_with_arguments_that_the_dockerfile_knows() -> None:
    build = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
    (script,) = (step["args"][-1] for step in build["steps"])
    known = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    given = set(re.findall(r"--build-arg (\w+)=", script))
    assert given == {"COMMIT", "MODELS", "TORCH_INDEX", "RUNTIMES"} <= known
    assert build["images"] == ["$_REPOSITORY/labelbeam:$COMMIT_SHA"]


def test_cloud_build_labels_the_image_with_what_is_in_it(tmp_path: Path) -> None:
    """Run the script in bash, with a stub of docker that notes how it was called."""
    (tmp_path / "models/trained").mkdir(parents=True)
    stub = tmp_path / "bin/docker"
    stub.parent.mkdir()
    labels = "org.labelbeam.torch=2.13.0+cpu org.labelbeam.runtimes=openvino"
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> calls\n[ "$1" = run ] && echo {labels}\n[ "$4" = - ] && cat >> calls\nexit 0\n'
    )
    stub.chmod(0o755)
    script = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"][0]["args"][-1].replace("$$", "$")
    variables = {"COMMIT_SHA": "0123abc", "_REPOSITORY": "r", "_TORCH_INDEX": "", "_RUNTIMES": ""}
    path = f"{stub.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env={**variables, "PATH": path}, capture_output=True, check=True
    )
    assert (tmp_path / "calls").read_text().splitlines()[1:] == [
        "run --rm --entrypoint python r/labelbeam:0123abc -m inference.probe --labels",
        "build --tag r/labelbeam:0123abc -",
        "FROM r/labelbeam:0123abc",
        f"LABEL {labels}",
    ]


def test_cloud_build_names_the_models_as_the_builder_does(tmp_path: Path, colours: Path) -> None:
    """Run the script's own lines in bash, with Cloud Build's $$ replaced by $."""
    models = tmp_path / "models/trained"
    for name in ("colours", "small"):
        shutil.copytree(colours, models / name)
    int8_variant(models / "small")
    script = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"][0]["args"][-1].replace("$$", "$")
    lines = script[script.index("cd models/trained") : script.index("docker build")]
    done = subprocess.run(
        ["bash", "-euc", f'{lines}\necho "$models"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    named = image_build.arguments([str(models / name) for name in ("colours", "small")], gpu=False)["MODELS"]
    assert done.stdout.strip() == named
    assert [part.split("=")[0] for part in named.split(",")] == ["colours", "small", "small.int8"]


def test_an_int8_variant_is_sent_whole_or_named(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(colours, tmp_path / "m"))
    variant = int8_variant(model)
    image_context.fill([str(model)], tmp_path / "context")
    sent_files = tmp_path / "context/models/trained/m/runtimes" / variant.name
    assert {path.name for path in sent_files.iterdir()} == {"conversion.json", "model.xml", "model.bin"}
    (variant / "model.bin").write_bytes(b"other weights")
    assert container.main(["build", "--model", str(model), "--tag", "labelbeam:1"]) == 2
    assert f"{variant}: expected the int8 variant as it was made, found model.bin changed" in capsys.readouterr().err


class Engine:
    """A stub of an engine whose one image holds a torch for CUDA and no other runtime."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.containers = self.api = self

    def run(self, tag: str, command: list[str], **_: object) -> bytes:
        assert (tag, command) == (TAG, ["-m", "inference.probe", "--labels"])
        return b"org.labelbeam.torch=2.13.0+cu128 org.labelbeam.runtimes=\n"

    def build(self, fileobj: io.BytesIO, tag: str, **_: object) -> Iterator[dict[str, str]]:
        self.built.append(fileobj.read().decode())
        yield {"stream": f"Successfully tagged {tag}"}


def test_the_labels_come_from_what_was_installed_in_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine()
    image_build._add_labels(engine, TAG)
    assert engine.built == [f"FROM {TAG}\nLABEL org.labelbeam.torch=2.13.0+cu128 org.labelbeam.runtimes=\n"]
    assert probe_command.main(["--labels"]) == 0
    found = r"org.labelbeam.torch=[\d.]+\+(cpu|cu\d+) org.labelbeam.runtimes=[a-z,]*\n"
    assert re.fullmatch(found, capsys.readouterr().out)
    assert probe_command.main([]) == 2
    assert "expected trained models or --labels, found both or neither" in capsys.readouterr().err


def test_what_an_image_computes_with_is_compared(tmp_path: Path, colours: Path) -> None:
    """Compare probes of the same model, of one with an int8 variant, and of one with another variant."""
    model = Path(shutil.copytree(colours, tmp_path / "colours"))
    options = ScoringOptions((str(model),), runtime="torch", precision="fp32", device="cpu", scores="all")
    without = probe(options)
    assert list(image_build._differences(without, probe(options))) == []
    int8_variant(model)
    first = probe(options)
    assert list(image_build._differences(without, first)) == ["model colours.int8 differs from the one here"]
    int8_variant(model, scale=1.001)
    assert list(image_build._differences(first, probe(options))) == ["model colours.int8 differs from the one here"]


def test_an_image_of_an_earlier_version_is_named(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probe prints no labels."""
    options = ScoringOptions((str(colours),), runtime="torch", precision="fp32", device="cpu", scores="all")
    inside = {name: value for name, value in probe(options).items() if name != "labels"}
    labels = {"org.labelbeam.beam": "2.77.0", "org.labelbeam.models": f"colours={trained_model.fingerprint(colours)}"}
    client = mock.Mock()
    client.images.get.return_value.labels = labels
    client.containers.run.return_value = json.dumps(inside).encode()
    with pytest.raises(UserError, match="an earlier version of labelbeam built it, which names no torch and no runt"):
        image_build.check(client, [str(colours)], TAG)


def test_an_image_whose_probe_fails_is_one_sentence() -> None:
    client = mock.Mock()
    client.containers.run.side_effect = ContainerError(mock.Mock(), 1, [], TAG, b"Traceback\nImportError: no torch\n")
    with pytest.raises(UserError, match=f"^image {TAG} does not work: ImportError: no torch$"):
        image_build._add_labels(client, TAG)


def test_a_runtime_that_lacks_a_package_is_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "is_installed", lambda name: name != "onnxscript")
    assert contents.labels()["org.labelbeam.runtimes"] == "openvino"


@pytest.mark.parametrize("asked", ["openvino", "openvino onnxruntime", f"openvino {PACKAGES['onnxruntime']}"])
def test_the_image_gets_all_that_a_runtime_needs(tmp_path: Path, asked: str) -> None:
    """The image installs the chosen pins without their dependencies, and `pip check` refuses an incomplete set."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (step,) = re.findall(r"^ +(names=.*?>> requirements.txt);", (ROOT / "Dockerfile").read_text(), re.S | re.M)
    subprocess.run(["sh", "-euc", step], check=True, cwd=tmp_path, env={**os.environ, "RUNTIMES": asked})
    always, every = ((folder / "requirements.txt").read_text() for folder in (ROOT, tmp_path))
    added, pinned = (re.findall(r"^([a-z][a-z0-9-]*)==", part, re.M) for part in (every.removeprefix(always), every))
    assert {name for name in PACKAGES if name in asked.split()} <= set(added)
    assert len(added) == len(set(added))
    for package in added:
        for needed in map(Requirement, metadata.requires(package) or ()):
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pinned, f"{package} needs {needed}"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--tag", "labelbeam"], "expected a tag that stays, such as a commit, found 'none'"),
        (["--tag", "labelbeam:latest"], "expected a tag that stays, such as a commit, found 'latest'"),
        (["--tag", "labelbeam:1", "--model", "nowhere"], "expected a directory written by"),
        (["--tag", "labelbeam:1", "--build_arg", "X"], "expected NAME=VALUE, found 'X'"),
    ],
)
def test_mistakes_are_named_before_anything_is_built(
    colours: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert container.main(["build", "--model", str(colours), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_the_wheel_in_the_image_is_made_of_every_file_of_the_packages() -> None:
    stage = (ROOT / "Dockerfile").read_text().split(" AS wheel\n")[1].split("\nFROM ")[0]
    copied = [words.split()[1:-1] for words in stage.splitlines() if words.startswith("COPY ")]
    patterns = [pattern for patterns in copied for pattern in patterns]
    for package in OWN:
        for path in (ROOT / package).rglob("*"):
            name = str(path.relative_to(ROOT))
            if path.is_file() and "__pycache__" not in name and not name.startswith("models/trained"):
                assert any(fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns), name


# The following tests need a container engine.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Build the image with one model in it, and return the model."""
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(images.engine())
        except UserError as error:
            pytest.skip(str(error))
        yield from _built(client, tmp_path_factory)


def _built(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    model = tiny_model(tmp_path_factory.mktemp("models") / "colours")
    client.api.import_image_from_data(_launcher(), repository="labelbeam-test-launcher", tag="1")
    arguments = ["LAUNCHER_IMAGE=labelbeam-test-launcher:1"]
    with _served(os.environ.get("PIP_FIND_LINKS")) as wheels:
        if wheels:  # torch is among them
            arguments += [f"PIP_FIND_LINKS={wheels}", "TORCH_INDEX="]
        flags = [part for argument in arguments for part in ("--build_arg", argument)]
        assert container.main(["build", "--model", str(model), "--tag", TAG, "--network", "host", *flags]) == 0
    yield model
    client.images.remove(TAG)


def _launcher() -> bytes:
    """Return a stub of Google's image for launchers, which holds one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("opt/google/dataflow/python_template_launcher")
        archive.addfile(entry, io.BytesIO())
    return buffer.getvalue()


@contextlib.contextmanager
def _served(folder: str | None) -> Iterator[str | None]:
    if not folder or not os.path.isdir(folder):
        yield None
        return
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", WHEELS_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{WHEELS_PORT}/"
        server.shutdown()


def run_docker(*arguments: object) -> str:
    return subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_an_image_says_what_is_in_it_and_is_checked(
    built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    facts = images.inspect(TAG)
    assert (facts.python_version, facts.found_in) == (images.python_version(), "this machine's engine")
    assert list(facts.models) == ["colours"]
    assert (facts.torch, facts.runtimes) == (contents.labels()[contents.TORCH], ("openvino",))
    assert container.main(["check", "--model", str(built), "--tag", TAG]) == 0
    out = capsys.readouterr().out
    assert re.search(r"[\d,.]+ MB  COPY", out)
    other = tiny_model(tmp_path / "colours", seed=5)
    assert container.main(["check", "--model", str(other), "--tag", TAG]) == 2
    assert f"image {TAG}: model colours differs from the one here; build it again." in capsys.readouterr().err
    images.copy_out(TAG, "/models/colours", tmp_path / "copy")
    assert (tmp_path / "copy" / "model.pth").read_bytes() == (built / "model.pth").read_bytes()


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_an_image_holds_no_compiler_or_cache_and_labels_as_any_user(built: Path) -> None:
    command = ("run", "--rm", "--network", "none", "--entrypoint")
    look = "command -v gcc cc make; find /root /home /tmp /usr/local -name .cache -o -name '*.whl' -o -path '/tmp/*'"
    assert run_docker(*command, "sh", TAG, "-c", f"{{ {look}; }} || true") == ""
    labelled = subprocess.run(
        ["docker", *command[:2], "-i", *command[2:], "python", "--user", "12345", TAG]
        + ["-m", "inference.run", "--model", "/models/colours"],
        input=jsonl(3), capture_output=True, check=True,
    )  # fmt: skip
    assert [json.loads(line)["id"] for line in labelled.stdout.splitlines()] == ["d0", "d1", "d2"]


@pytest.mark.docker
@pytest.mark.timeout(1800)
@pytest.mark.engine("PortableRunner", "Beam's embedded server, pool in a container; same rows")
def test_a_pipeline_whose_steps_run_in_the_image_without_a_network(
    built: Path, label: Callable[..., Path], tmp_path: Path
) -> None:
    """Launcher, worker and emulator of Cloud Storage share one loopback, and can reach nothing else."""
    if os.geteuid() or not shutil.which("nsenter"):
        pytest.skip("root and nsenter are needed to run the emulator in the containers' network")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(jsonl(200))
    loopback = run_docker(
        "run", "--detach", "--network", "none", "--hostname", "localhost", "--entrypoint", "sleep", TAG, "1200"
    )
    started = [loopback]
    try:
        pid = run_docker("inspect", "--format", "{{.State.Pid}}", loopback)
        emulator = subprocess.Popen(
            ["nsenter", "--target", pid, "--net", sys.executable, "-m", "tests.cloud_storage", tmp_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert emulator.stdout is not None
        url = emulator.stdout.readline().strip()
        environment = ("--env", f"STORAGE_EMULATOR_HOST={url}", "--env", "NO_GCE_CHECK=true")
        inside = ("--network", f"container:{loopback}", *environment, "--entrypoint", "python", TAG, "-m")
        pool = ("apache_beam.runners.worker.worker_pool_main", f"--service_port={WORKER_PORT}")
        started.append(run_docker("run", "--detach", *inside, *pool))
        time.sleep(3)
        flags = ("--input", "gs://bucket/a.jsonl", "--slice_mb", "0.005", "--runtime", "torch")
        ran = subprocess.run(
            ["docker", "run", "--rm", *inside, "inference.beam_runner", "--model", "/models/colours"]
            + ["--output", "gs://bucket/run", "--runner", "PortableRunner", "--job_endpoint", "embed", "--no_auth"]
            + ["--environment_type", "EXTERNAL", "--environment_config", f"127.0.0.1:{WORKER_PORT}", *flags],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        logs = subprocess.run(["docker", "logs", started[-1]], capture_output=True, text=True, check=True)
        emulator.communicate()
        assert ran.returncode == 0, ran.stdout + ran.stderr + logs.stderr
    finally:
        run_docker("rm", "--force", *started)
    here = label("--model", built, "--input", tmp_path / "in" / "a.jsonl", *flags[2:])
    assert rows_of(tmp_path / "out" / "run") == rows_of(here)
    receipts = [json.loads(file.read_bytes()) for file in (tmp_path / "out/run/receipts").iterdir()]
    assert "Starting worker with command" in logs.stderr
    assert len(receipts) > 2


@contextlib.contextmanager
def pool_in_a_container(*folders: Path) -> Iterator[str]:
    """Run a pool of workers that sees these folders of this machine, and yield its address."""
    volumes = [part for folder in folders for part in ("--volume", f"{folder}:{folder}")]
    port = job_servers.free_port()
    pool = ("apache_beam.runners.worker.worker_pool_main", f"--service_port={port}")
    started = run_docker("run", "--detach", "--network", "host", *volumes, "--entrypoint", "python", TAG, "-m", *pool)
    try:
        job_servers.wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        run_docker("rm", "--force", started)


@pytest.mark.docker
@pytest.mark.timeout(1800)
@pytest.mark.engine("PortableRunner", "Prism server, pool in a container that mounts the folders; same rows")
@pytest.mark.skipif(job_servers.PRISM is None, reason="Beam's Prism is not here")
def test_a_pool_in_a_container_labels_for_a_job_server_here(
    built: Path, label: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus := tmp_path / "a.jsonl").write_bytes(jsonl(200))
    flags = ("--model", built, "--input", corpus, "--slice_mb", "0.005")
    with job_servers.job_server(tmp_path / "prism") as server:
        portable = (*flags, "--runner", "PortableRunner", "--job_endpoint", server, "--environment_type", "EXTERNAL")
        with pool_in_a_container(tmp_path, built.parent) as pool:
            run = label(*portable, "--environment_config", pool)
        assert rows_of(run) == rows_of(label(*flags))
        with pool_in_a_container() as pool:
            blind = label(*portable, "--environment_config", pool, expect=1)
    assert not (blind / "predictions").exists()
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert re.match(
        rf"failed: worker .+ cannot label: a model cannot be read from there: .+ --output {blind} cannot be used", error
    )

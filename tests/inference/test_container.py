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
from pathlib import Path

import docker
import pytest
import yaml

from inference import container
from inference.dataflow import image_build, images
from inference.dataflow.probe import probe
from inference.scoring.options import ScoringOptions
from models.errors import UserError
from tests.inference.conftest import int8_variant, jsonl, rows_of
from tests.tiny import tiny_model

ROOT = Path(__file__).parent.parent.parent
TAG = "labelbeam-test:1"
WORKER_PORT = 50123
WHEELS_PORT = 8099  # fixed port, so that the engine reuses its layers


def sent(files: set[str]) -> set[str]:
    """Return the files, with all files of a package as PACKAGE/..."""
    return {re.sub(r"^(inference|training|models)/(?!trained/).*", r"\1/...", file) for file in files}


def test_the_engine_is_sent_what_the_dockerfile_copies(tmp_path: Path, colours: Path) -> None:
    (tmp_path / "context").mkdir()
    image_build.fill_context([str(colours)], tmp_path / "context")
    files = {str(f.relative_to(tmp_path / "context")) for f in (tmp_path / "context").rglob("*") if f.is_file()}
    model = {
        f"models/trained/colours/{name}" for name in (*json.loads((colours / "model.json").read_bytes())["files"],)
    }
    assert sent(files) == {
        *image_build.SOURCES,
        *("inference/...", "training/...", "models/..."),
        *(model | {"models/trained/colours/model.json"}),
    }
    assert not any("__pycache__" in file for file in files)


@pytest.mark.parametrize("ignore", [".gcloudignore", ".dockerignore"])
def test_what_is_uploaded_from_a_clone_is_small(tmp_path: Path, ignore: str) -> None:
    """Git and gcloud use the same patterns. Docker's differ in the slashes of folders, which are adapted here."""
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a clone")
    extra = ["data/corpus.jsonl", "runs/a/run.json", ".venv/bin/python", "secrets.json", "models/__pycache__/a.pyc"]
    extra += [f"models/trained/ai/{n}" for n in ("model.pth", "model.json", "evaluation/scores.csv", "report.html")]
    for name in [*tracked.stdout.splitlines(), *extra]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = (ROOT / ignore).read_text()
    if ignore == ".dockerignore":  # Docker looks into an ignored folder, and git does not
        patterns = re.sub(
            r"(?m)^!(deploy)/.*",
            r"!\1/\n!\1/**",
            re.sub(r"(?m)^!(inference|models|training)$", r"!\1/\n!\1/**", patterns),
        )
    (tmp_path / "patterns").write_text(patterns)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    listed = subprocess.run(
        ["git", "-C", tmp_path, "ls-files", "--others", "--exclude-from=patterns"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    uploaded = {file for file in listed.stdout.splitlines() if not file.startswith("deploy/") or "flex" in file}
    required = {*image_build.SOURCES, "inference/...", "training/...", "models/..."} - {".dockerignore"}
    required |= {"models/trained/ai/model.pth", "models/trained/ai/model.json"}
    allowed = {
        ".gcloudignore",
        "cloudbuild.yaml",
        "deploy/flex_template/metadata.json",
        "deploy/flex_template/build.sh",
    }
    assert required <= sent(uploaded) <= required | allowed


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
    (tmp_path / "context").mkdir()
    image_build.fill_context([str(model)], tmp_path / "context")
    sent_files = tmp_path / "context/models/trained/m/runtimes" / variant.name
    assert {path.name for path in sent_files.iterdir()} == {"conversion.json", "model.xml", "model.bin"}
    (variant / "model.bin").write_bytes(b"other weights")
    assert container.main(["build", "--model", str(model), "--tag", "labelbeam:1"]) == 2
    assert f"{variant}: expected the int8 variant as it was made, found model.bin changed" in capsys.readouterr().err


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
    for package in image_build.PACKAGES:
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

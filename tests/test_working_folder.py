"""Every command works from any folder, whatever it holds, from a wheel and from an editable installation."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import labelbeam
from inference.dataflow import image_context
from tests.inference.conftest import write_corpus
from tests.tiny import tiny_base, tiny_model

ROOT = Path(__file__).parent.parent
SHIPPED = ("MANIFEST.in", *image_context.SOURCES)
THEIRS = "raise SystemExit('a module of the working folder was imported')\n"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=["wheel", pytest.param("editable", marks=pytest.mark.slow)])
def bin_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment in which the project is installed; the packages that it needs are those of this one."""
    folder = tmp_path_factory.mktemp(request.param)
    tree = folder / "clone"
    for package in labelbeam.PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("trained", "__pycache__"))
    for name in SHIPPED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "env" / "bin" / "python"
    way = [str(tree)] if request.param == "wheel" else ["--editable", str(tree)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", *way], check=True)
    return python.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with packages and modules of the same names, and with a folder of trained models."""
    for package in labelbeam.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(THEIRS)
    (tmp_path / "training" / "train.py").write_text(THEIRS)
    (tmp_path / "inference" / "beam_runner.py").write_text(THEIRS)
    tiny_model(tmp_path / "models" / "trained" / "colours")
    write_corpus(tmp_path / "corpus.jsonl", 200)
    return tmp_path


@pytest.fixture
def run(bin_folder: Path, folder: Path) -> Run:
    """Runs a command in the working folder; it must succeed."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in (labelbeam.MARK, "PYTHONPATH")}
        program = [str(bin_folder / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    return run


def test_every_command_is_found(run: Run) -> None:
    for module, _ in labelbeam.COMMANDS.values():
        assert run("python", "-m", module, "--help").stdout.startswith(f"usage: python -m {module} ")
    for name in ("label", "train"):
        assert run("labelbeam", name, "--help").stdout.startswith(f"usage: python -m {labelbeam.COMMANDS[name][0]} ")


def test_folders_that_are_no_packages_hide_nothing(run: Run, folder: Path) -> None:
    for package in labelbeam.PACKAGES:
        (folder / package / "__init__.py").unlink()
    assert run("python", "-m", "training.train", "--help").stdout.startswith("usage: python -m training.train ")
    done = run("python", "-c", "import inference, models, training; print(inference, models, training)")
    assert done.stdout.count("__init__.py") == 3, "a namespace of the working folder was imported"
    assert str(folder) not in done.stdout


def test_a_text_is_labelled(run: Run, folder: Path) -> None:
    """Scoring imports all three packages, and torch."""
    run("python", "-m", "inference.run", *labelled("rows.jsonl"), "--runtime=torch")
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 200


def test_other_programs_keep_their_own_packages(bin_folder: Path, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != labelbeam.MARK}
    for command in (["-c", "import training"], ["-m", "training"], ["-m", "models.anything"]):
        program = [str(bin_folder / "python"), *command]
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert "a module of the working folder was imported" in done.stderr, command


def test_importing_the_package_brings_its_neighbours(run: Run, folder: Path) -> None:
    """A notebook's folder may hold trained models in a package-like folder."""
    (folder / "inference" / "__init__.py").unlink()
    done = run("python", "-c", "import inference, models; print(models.__file__)")
    assert done.stdout.strip().endswith("models/__init__.py")
    assert str(folder) not in done.stdout


def labelled(output: str) -> Sequence[str]:
    """The flags of a labelling that writes there."""
    return ("--model", "models/trained/colours", "--input", "corpus.jsonl", "--output", output)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorials_commands_work_twice_each(run: Run, folder: Path) -> None:
    write_labelled_data(folder)
    workers = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2", "--slice_mb", "0.005")
    for command in (
        ("labelbeam", "prepare", "words.toml", "--output", "prepared", "--overwrite"),
        ("labelbeam", "train", "words.toml", "--output", "models/trained/words", "--overwrite"),
        ("python", "-m", "training.evaluate", "--model", "models/trained/words", "--data", "words.jsonl"),
        ("labelbeam", "label", *labelled("runs/first"), *workers, "--overwrite"),
        ("python", "-m", "inference.beam_runner", *labelled("runs/second")),
        ("labelbeam", "report", "runs/first"),
        ("python", "-m", "inference.verify", "runs/first"),
        ("labelbeam", "compare", "runs/first", "runs/second"),
        ("labelbeam", "cost", *labelled("")[:4]),
        ("labelbeam", "doctor", "--model", "models/trained/words"),
    ):
        for _ in range(2):
            run(*command)
    assert (folder / "models" / "trained" / "words" / "report.html").exists()
    assert "200 lines = 200 predicted" in (folder / "runs" / "first" / "report.html").read_text()


def write_labelled_data(folder: Path) -> None:
    """A task that two words tell apart, and a configuration that trains in seconds."""
    rows = ({"id": f"t{i}", "text": f"the {word} {i}", "label": word} for i, word in enumerate(["red", "blue"] * 60))
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_base(folder / "base", ["red", "blue"])
    (folder / "words.toml").write_text(
        '[data]\ntrain = "words.jsonl"\n[labels]\ntask = "multi_class"\nnames = ["red", "blue"]\n'
        '[text]\nmax_tokens = 16\n[model]\nbase = "base"\npooling = "mean"\n[training]\nepochs = 1\n'
    )

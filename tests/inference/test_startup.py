"""Tests that inference commands answer --help and a wrong flag before they import anything that takes long to load."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import labelbeam

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(module for module in labelbeam.MODULES if module.startswith("inference."))
HEAVY = ("torch", "transformers", "apache_beam", "google.cloud", "datasets", "sklearn", "scipy", "pandas", "pyarrow")
REQUIRED = ["--model", "M", "--input", "I", "--output", "O"]
CASES = {
    **{f"{module} --help": [module, "--help"] for module in COMMANDS},
    **{f"{module} --jsno": [module, "--jsno"] for module in COMMANDS},
    "unknown flag beside Beam's": ["inference.beam_runner", *REQUIRED, "--max_num_workers", "5", "--num_workerz", "5"],
}
# The script runs all cases in one process, and prints the exit code, the output and the new heavy packages of each. A
# package counts if one of its modules is there, because a .pth file may create an empty google.cloud in every process.
SCRIPT = """
import contextlib, importlib, io, json, sys
cases, heavy = json.loads(sys.argv[1])
answers, earlier = {}, set()
for name, (module, *argv) in cases.items():
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = importlib.import_module(module).main(argv)
        except SystemExit as ended:
            code = ended.code
    loaded = {package for package in heavy if any(name.startswith(package + ".") for name in sys.modules)}
    answers[name] = [code, out.getvalue(), error.getvalue(), sorted(loaded - earlier)]
    earlier |= loaded
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    """The answer of a command."""

    code: int
    out: str
    error: str
    heavy: list[str]


def run(cases: dict[str, list[str]], heavy: Sequence[str]) -> dict[str, Answer]:
    command = [sys.executable, "-c", SCRIPT, json.dumps([cases, heavy])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return {name: Answer(*answer) for name, answer in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    """Return the answer of each case."""
    return run(CASES, HEAVY)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_nothing_heavy(answers: dict[str, Answer], module: str) -> None:
    answer = answers[f"{module} --help"]
    assert (answer.code, answer.error) == (0, "")
    assert answer.out.startswith(f"usage: python -m {module} ")
    assert answer.heavy == []


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_flag_imports_nothing_heavy(answers: dict[str, Answer], module: str) -> None:
    answer = answers[f"{module} --jsno"]
    assert (answer.code, answer.out) == (2, "")
    assert "--jsno" in answer.error.splitlines()[0]
    assert answer.heavy == []


def test_an_unknown_flag_beside_beams_flags_imports_nothing_heavy(answers: dict[str, Answer]) -> None:
    answer = answers["unknown flag beside Beam's"]
    assert (answer.code, answer.out) == (2, "")
    assert answer.error == "error: unknown flag --num_workerz: did you mean --num_workers?\n"
    assert answer.heavy == []


def test_a_heavy_import_would_be_noticed() -> None:
    answer = run({"help": ["inference.estimate_cost", "--help"]}, ["pydantic", "no_package_of_this_name"])["help"]
    assert answer.heavy == ["pydantic"]

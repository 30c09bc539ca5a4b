"""Commands answer a request for help, and a mistake in flags or configuration, before anything heavy is imported."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = ("demo_corpus", "evaluate", "prepare", "sweep", "to_state_dict", "train")
HEAVY = {
    *("torch", "transformers", "accelerate", "datasets", "apache_beam", "sklearn", "scipy", "optuna", "matplotlib"),
    *("pandas", "pyarrow", "fsspec", "huggingface_hub", "docker"),
}
RUNNER = """
import importlib, json, sys
try:
    code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
except SystemExit as ended:
    code = ended.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
CONFIG = """
[data]
train = "rows.jsonl"
[labels]
task = "multi_label"
names = ["red", "green"]
[model]
base = "tiny"
[search]
space."training.epochs" = [1, 2]
"""


@dataclass(frozen=True)
class Answer:
    """The answer of a command: its exit code, what it printed, and the heavy packages that it imported."""

    code: int
    out: str
    error: str
    heavy: set[str]


def run(command: str, *argv: str, folder: Path) -> Answer:
    whole: Sequence[str] = [sys.executable, "-c", RUNNER, f"training.{command}", *argv]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        whole, cwd=folder, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True, timeout=60
    )
    *printed, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    return Answer(code, "\n".join(printed), done.stderr, HEAVY & set(modules))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    answer = run(command, "--help", folder=tmp_path)
    assert answer.code == 0
    assert answer.out.startswith(f"usage: python -m training.{command} ")
    assert answer.heavy == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_flag_is_named_with_the_right_one(command: str, tmp_path: Path) -> None:
    required = {"evaluate": ["--model", "m", "--data", "d"], "demo_corpus": []}.get(command, ["given"])
    answer = run(command, *required, "--ouptut", "x", folder=tmp_path)
    assert (answer.code, answer.error) == (2, "error: unknown flag --ouptut: did you mean --output?\n")
    assert answer.heavy == set()


@pytest.mark.parametrize("command", ["prepare", "sweep", "train"])
@pytest.mark.parametrize(
    ("content", "flags", "sentence"),
    [
        (CONFIG + "trialz = 3\n", [], "my.toml: unknown key 'search.trialz'; did you mean 'trials'?"),
        (CONFIG, ["--set", "training.epoch=1"], "my.toml: unknown key 'training.epoch'; did you mean 'epochs'?"),
        (CONFIG, ["--set", "training.epochs=0"], "my.toml: training.epochs: Input should be greater than 0, found 0."),
        ("[data", [], "my.toml is not valid TOML"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(
    command: str, content: str, flags: list[str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text(content)
    answer = run(command, "my.toml", "--output", "out", *flags, folder=tmp_path)
    assert answer.code == 2
    assert answer.error.startswith(f"error: {sentence}")
    assert answer.error.count("\n") == 1
    assert answer.heavy == set()


def test_other_mistakes_that_need_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(CONFIG)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    space = 'search.space={"training.epoch" = [1, 2]}'
    for argv, sentence in {
        ("sweep", "my.toml", "--output", "out", "--set", space): "search.space.training.epoch: unknown key",
        ("train", "my.toml", "--output", "notes"): "--output notes is there already",
        ("prepare", "my.toml", "--output", "notes"): "--output notes is there already",
        ("evaluate", "--model", "nowhere", "--data", "x"): "Model 'nowhere': expected a directory",
        (
            "to_state_dict",
            "x",
            "--output",
            "out",
            "--cleaning",
            "lower",
        ): "--cleaning: unknown cleaning steps ['lower']",
        ("to_state_dict", "x", "--output", "out", "--task", "ranking"): "--task: expected one of binary, multi_class,",
    }.items():
        answer = run(*argv, folder=tmp_path)
        assert answer.code == 2
        assert answer.error.startswith(f"error: {sentence}")
        assert answer.heavy == set()

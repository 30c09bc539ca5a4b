"""Tests the front door: the list of commands, an unknown command, and that it runs the modules that it names."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labelbeam

ROOT = Path(__file__).parent.parent
# The script prints, for each command, its help by `labelbeam COMMAND` and by `python -m MODULE`.
SCRIPT = """
import contextlib, io, json, runpy, sys, warnings
import labelbeam

def printed(argv, run):
    out = io.StringIO()
    sys.argv = argv
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        run()
    return out.getvalue()

warnings.simplefilter("ignore")  # runpy warns about a module that is imported already
print(json.dumps({
    command: [
        printed(["labelbeam", command, "--help"], labelbeam.main),
        printed([module, "--help"], lambda: runpy.run_module(module, run_name="__main__")),
    ]
    for command, (module, _) in labelbeam.COMMANDS.items()
}))
"""


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list_has_a_line_for_each_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert labelbeam.main(argv) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(labelbeam.COMMANDS)
    assert [line.split(maxsplit=1)[1] for line in lines] == [text for _, text in labelbeam.COMMANDS.values()]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("command", "hint"),
    [("lable", "did you mean label?"), ("reprot", "did you mean report?"), ("quux", "expected one of prepare, train,")],
)
def test_an_unknown_command_is_refused(command: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert labelbeam.main([command, "--help"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: unknown command {command}: {hint}")


def test_a_command_and_its_module_print_the_same_help() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert list(texts) == list(labelbeam.COMMANDS)
    for command, (by_command, by_module) in texts.items():
        assert by_command.startswith(f"usage: python -m {labelbeam.COMMANDS[command][0]} ")
        assert by_command == by_module


def runnable_modules() -> Iterator[str]:
    """Yield the dotted name of each module of the packages that has a `__main__` part."""
    for package in labelbeam.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tests = [node.test for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
            if any(ast.unparse(test) == "__name__ == '__main__'" for test in tests):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_runnable_module_is_a_command_or_has_a_reason_not_to_be() -> None:
    without_command = {"training.demo_corpus", "inference.probe"}  # they serve the demo and the check of an image
    modules = {module for module, _ in labelbeam.COMMANDS.values()}
    assert set(runnable_modules()) == labelbeam.MODULES == modules | without_command

"""Tests that every command refuses a path it cannot use, before it writes anything."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import pytest

from models import paths

WRONG = (
    "s4://b/x",
    "hdfs://cluster/x",
    "az://c/x",
    "https://example.com/x.jsonl",
    "file:///tmp/x",
    "gs:/b/x",
    "s3:/b/x",
    "s3://",
)
LABEL = ("--model", "m", "--input", "a.jsonl", "--output", "out")
COMMANDS = {
    "inference.beam_runner": (LABEL, ("--model", "--input", "--output")),
    "inference.worker": (LABEL, ("--model", "--input", "--output")),
    "inference.run": (LABEL[:2], ("--model", "--input", "--output", "--failures")),
    "inference.estimate_cost": (LABEL[:4], ("--model", "--input")),
    "inference.delta": (("--input", "a.jsonl", "--previous", "p", "--output", "o"), ("--input", "--previous")),
    "inference.collect": (("run", "--output", "o"), ("--output", "run")),
    "inference.compare": (("before", "after"), ("--output", "before", "after")),
    "inference.report": (("run",), ("run",)),
    "inference.verify": (("run",), ("run",)),
    "inference.doctor": ((), ("--model",)),
    "inference.optimize": (("--model", "m", "--data", "d"), ("--model",)),
    "training.train": (("c.toml", "--output", "o"), ("--output",)),
    "training.demo_corpus": (("--output", "o"), ("--output",)),
}


def given(words: Sequence[str], name: str, path: str) -> list[str]:
    """Return a command line in which the argument of this name has this value."""
    if not name.startswith("--"):
        return [path if word == name else word for word in words]
    if name not in words:
        return [*words, name, path]
    place = words.index(name) + 1
    return [*words[:place], path, *words[place + 1 :]]


@pytest.mark.parametrize("path", WRONG)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_of_no_storage_is_refused_by_each_command(
    command: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main: Callable[[Sequence[str]], int] = import_module(command).main
    words, names = COMMANDS[command]
    for name in names:
        assert main(given(words, name, path)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "expected a " in line
        assert f"found {path!r}" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a/b", "/a:b/c", "./s3:/x", "a b:c.jsonl", "-", "gs://b/x:/y", "s3://b", "gs://b"])
def test_other_paths_are_taken_as_they_are(path: str) -> None:
    assert paths.anywhere(path) == path
    assert paths.is_remote(path) == path.startswith(("gs://", "s3://"))

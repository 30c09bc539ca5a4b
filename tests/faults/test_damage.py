"""Test that flipped bits in a run or a model are found and named, and that a damaged slice can be relabelled."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import compare, read_failures, read_predictions
from inference.runs import integrity
from models import trained_model
from models.errors import ModelError, UserError
from tests.inference.conftest import contents, write_corpus

FLIPS = 60


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


@pytest.fixture(params=["jsonl", "parquet"])
def run(tmp_path: Path, colours: Path, label: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    with corpus.open("ab") as file:
        file.write(b"broken\n" * 2)
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.01, "--format", request.param)
    return label(*flags, "--max_failure_rate", 1)


def test_a_bit_of_a_run(run: Path) -> None:
    chance = random.Random(0)
    files = [path for name in ("predictions", "failures", "receipts") for path in sorted((run / name).iterdir())]
    for number in range(FLIPS):
        path = files[number % len(files)]
        good = path.read_bytes()
        flip(path, chance)
        assert any(problem.startswith(f"{path}: ") for problem in integrity.verify(str(run))), (path, number)
        path.write_bytes(good)
    assert not list(integrity.verify(str(run)))


def test_a_damaged_receipt_costs_its_slice_alone(run: Path, colours: Path, label: Callable[..., Path]) -> None:
    before = contents(run)
    receipt = sorted((run / "receipts").iterdir())[1]
    flip(receipt, random.Random(1))
    suffix = next((run / "predictions").iterdir()).suffix[1:]
    corpus = run.parent / "corpus.jsonl"
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.01, "--format", suffix)
    label(*flags, "--max_failure_rate", 1, output=run)
    assert contents(run) == before
    assert not list(integrity.verify(str(run)))


@pytest.mark.parametrize("damage", ["flipped bit", "lost"])
def test_rows_that_are_not_as_they_were_written_are_not_read(
    run: Path, colours: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    before = contents(run)
    corpus, suffix = run.parent / "corpus.jsonl", next((run / "predictions").iterdir()).suffix[1:]
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.01, "--format", suffix, "--max_failure_rate", 1)
    for folder, read in (("predictions", read_predictions), ("failures", read_failures)):
        path = max((run / folder).iterdir())
        flip(path, random.Random(2)) if damage == "flipped bit" else path.unlink()
        with pytest.raises(UserError, match=f"^{path}.* found .*; put it back, or delete .* and repeat the command"):
            read(str(run))
    assert compare.main([str(run), str(run)]) == 2
    error = capsys.readouterr().err
    assert f"error: {run}/predictions/" in error
    assert "while running" not in error
    hashes = max((run / "ids").iterdir())
    flip(hashes, random.Random(2)) if damage == "flipped bit" else hashes.unlink()
    label(*flags, output=run, expect=1)
    error = capsys.readouterr().err
    assert f"failed: {hashes}" in error
    assert f"put it back, or delete {run}/receipts/" in error
    assert "Traceback" not in error
    max((run / "receipts").iterdir()).unlink()
    label(*flags, output=run)
    assert contents(run) == before


def test_a_bit_of_a_model(colours: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    model = shutil.copytree(colours, tmp_path / "colours")
    names = sorted(trained_model.read_manifest(model).files)
    assert "model.pth" in names
    for number in range(FLIPS):
        path = model / names[number % len(names)]
        good = path.read_bytes()
        flip(path, chance)
        with pytest.raises(ModelError, match=path.name):
            trained_model.verify(model)
        path.write_bytes(good)
    trained_model.verify(model)

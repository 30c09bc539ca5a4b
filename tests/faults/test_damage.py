"""Test that flipped bits in a run or a model are found and named, and that a damaged slice can be relabelled."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.runs import integrity, receipts
from models import trained_model
from models.errors import ModelError
from tests.inference.conftest import contents, identity_of, write_corpus

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


@pytest.mark.parametrize("more", [(), ("--retry_failures",)])
def test_a_run_is_not_done_with_other_predictions_than_it_wrote(
    run: Path, colours: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    before = contents(run)
    receipt = receipts.read(str(max((run / "receipts").iterdir())), identity_of(run))
    assert receipt
    path = run / next(name for name in receipt.sha256 if name.startswith("predictions/"))
    flip(path, random.Random(1))
    damaged = contents(run)
    corpus = run.parent / "corpus.jsonl"
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.01, "--format", path.suffix[1:])
    label(*flags, *more, "--max_failure_rate", 1, output=run, expect=1)
    assert f"failed: {path} has changed since it was written" in capsys.readouterr().err
    assert contents(run) == damaged
    Path(receipts.path_of(str(run), receipt.run, receipt.slice)).unlink()
    label(*flags, "--max_failure_rate", 1, output=run)
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

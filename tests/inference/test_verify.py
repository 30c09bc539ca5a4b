"""Tests the check of runs that are complete, and of runs with each kind of damage."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from inference import beam_runner, verify
from inference.corpus import storage
from inference.runs import integrity, receipts, slice_list
from models import seals
from tests.inference.conftest import edit_summary, identity_of, write_corpus


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """Label two files, which give several slices and one failure."""
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder / "a.jsonl", 200)
    with write_corpus(folder / "b.jsonl", 50).open("a") as file:
        file.write("not json\n")
    flags = ["--model", str(colours), "--input", str(folder / "*.jsonl"), "--output", str(folder / "out")]
    more = ["--slice_mb", "0.005", "--format", request.param, "--max_failure_rate", "1"]
    assert beam_runner.main([*flags, *more]) == 0
    return folder / "out"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, which a test can damage."""
    return shutil.copytree(whole, tmp_path / "run")


def first(run: Path, kind: str) -> Path:
    return min((run / kind).iterdir())


def edit_receipt(run: Path, **changes: Any) -> None:
    """Change a receipt and seal it again, as a bug in the program would."""
    path = first(run, "receipts")
    receipt = receipts.read(str(path), identity_of(run))
    assert receipt
    path.write_bytes(seals.seal(vars(replace(receipt, **changes))))


def test_a_run_that_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(run)]) == 0
    assert "every line is accounted for" in capsys.readouterr().out
    assert verify.main([str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(run), "problems": []}


def damaged_predictions(run: Path) -> None:
    path = first(run, "predictions")
    path.write_bytes(path.read_bytes()[:-5] + b"xxxx\n")


def damaged_receipt(run: Path) -> None:
    path = first(run, "receipts")
    path.write_bytes(path.read_bytes()[:20])


def lost_in_the_middle(run: Path) -> None:
    sorted((run / "receipts").iterdir())[1].unlink()


def lost_at_the_end(run: Path) -> None:
    max((run / "receipts").iterdir()).unlink()


def damaged_list(run: Path) -> None:
    path = run / "slices.json"
    path.write_bytes(path.read_bytes().replace(b"a.jsonl", b"b.jsonl"))


def shorter_list(run: Path) -> None:
    """Leave the last slice out of the list, as a bug in the program would."""
    identity = identity_of(run)
    slice_list.write((slice_list.read(str(run), identity) or [])[:-1], str(run), identity, lambda: None)


def wrong_summary(run: Path) -> None:
    edit_summary(run, predicted=7)


def flipped_summary(run: Path) -> None:
    path = run / "summary.json"
    path.write_bytes(path.read_bytes().replace(b"failure_rate_in_bytes", b"failure_rate_in_bites"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damaged_predictions, "has changed since it was written: its receipt has another SHA-256"),
        (lambda run: first(run, "predictions").unlink(), "is missing"),
        (lambda run: first(run, "failures").write_bytes(b""), "has changed since it was written"),
        (damaged_receipt, "is damaged or of another version, so its slice counts as unfinished"),
        (lambda run: edit_receipt(run, blank=3), "the counts of its receipt do not add up"),
        (lost_in_the_middle, "1 slice has no receipt, from line"),
        (lost_at_the_end, "1 slice has no receipt, from line"),
        (lambda run: edit_receipt(run, checksum="0" * 64), "its receipt is for other lines than slices.json counts"),
        (lambda run: edit_receipt(run, lines=7, predicted=7), "its receipt is for other lines than slices.json counts"),
        (lambda run: first(run, "ids").write_bytes(b""), "has changed since it was written"),
        (damaged_list, "slices.json: is missing or damaged; run the same command again"),
        (shorter_list, "b.jsonl: no slice holds the bytes from"),
        (wrong_summary, "summary.json: expected predicted 250 by the receipts, found 7"),
        (flipped_summary, "summary.json: is missing or damaged, so the run is unfinished"),
        (lambda run: (run / "summary.json").unlink(), "summary.json: is missing or damaged, so the run is unfinished"),
    ],
)
def test_what_is_wrong_is_found_and_named(
    run: Path, damage: Callable[[Path], object], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    assert verify.main([str(run)]) == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert sentence in "\n".join(problems)
    assert last.startswith("1 problem. To do" if len(problems) == 1 else f"{len(problems)} problems. To do")


def test_rows_that_do_not_match_the_receipt(run: Path) -> None:
    receipt = json.loads(first(run, "receipts").read_text())
    edit_receipt(run, predicted=receipt["predicted"] - 1, failed=receipt["failed"] + 1)
    assert any("rows that its receipt counts" in problem for problem in integrity.verify(str(run)))


def test_the_first_lines_only(
    tmp_path: Path, colours: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", 200)
    out = label("--model", colours, "--input", corpus, "--slice_mb", "0.005", "--limit", "50")
    assert verify.main([str(out)]) == 0
    lost_at_the_end(out)
    assert verify.main([str(out)]) == 1
    assert "1 slice has no receipt, from line" in capsys.readouterr().out


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert "expected the folder of a run, found no run.json in it" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "exit_code"), [((), 1), (("--limit", "100"), 0)])
def test_lines_that_were_added_to_the_input_are_found(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str], limit: tuple[str, ...], exit_code: int
) -> None:
    corpus, run = write_corpus(tmp_path / "a.jsonl", 200), tmp_path / "out"
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(run), *limit]
    assert beam_runner.main(flags) == 0
    size = corpus.stat().st_size
    with corpus.open("a") as file:
        file.write('{"id": "new", "text": "red"}\n')
    assert verify.main([str(run)]) == 0
    capsys.readouterr()
    assert verify.main([str(run), "--input"]) == exit_code
    sentence = f"{corpus}: expected {size:,} bytes as when the run began, found {size + 29:,}."
    assert (sentence in capsys.readouterr().out) == bool(exit_code)


def test_a_folder_that_may_not_be_read_is_a_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(run / "receipts")
    monkeypatch.setattr(storage, "listing", Mock(side_effect=PermissionError(13, "Permission denied", folder)))
    assert verify.main([str(run)]) == 2
    assert capsys.readouterr().err == f"error: {folder}: permission denied; ask its owner.\n"

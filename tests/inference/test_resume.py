"""Tests runs that are killed, repeated or started twice at once: nothing is lost, scored twice or mixed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from inference.scoring.scorer import Scorer
from tests.inference.conftest import contents, rows_of, write_corpus

Label = Callable[..., Path]


def command(model: Path, corpus: Path, output: Path) -> list[str]:
    flags = {"--model": model, "--input": corpus, "--output": output, "--scores": "all", "--slice_mb": 0.005}
    return [sys.executable, "-m", "inference.beam_runner", *(str(part) for flag in flags.items() for part in flag)]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


def receipts(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("receipts/*.json")}


@pytest.mark.engine("FnApiRunner", "a killed run resumes")
def test_a_killed_run_resumes_with_the_same_command(tmp_path: Path, colours: Path, label: Label) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 3_000)
    killed = tmp_path / "killed"
    with subprocess.Popen(command(colours, corpus, killed), stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(receipts(killed)) >= 3, process)
        process.send_signal(signal.SIGKILL)
    name = next((killed / "predictions").iterdir()).name
    (killed / "predictions" / f"{name}.{'0123' * 8}.part").write_text("half a fi")
    (killed / f"run.json.{'0123' * 8}.part").write_text("half a fi")
    done = receipts(killed)
    assert 3 <= len(done) < 100
    assert not (killed / "summary.json").exists()

    again = subprocess.run(command(colours, corpus, killed), check=True, capture_output=True, text=True)
    assert f"resuming: {len(done):,} slices" in again.stderr
    assert "3,000 lines = 3,000 predicted" in again.stdout
    assert {path: kept for path, kept in receipts(killed).items() if path in done} == done
    assert contents(killed) == contents(label(*command(colours, corpus, killed)[3:]))
    assert (killed / "summary.json").exists()
    assert not list(killed.rglob("*.part"))


def test_ctrl_c_while_scoring_ends_cleanly(tmp_path: Path, colours: Path, label: Label) -> None:
    corpus, run = write_corpus(tmp_path / "corpus.jsonl", 3_000), tmp_path / "run"
    start = partial(
        subprocess.Popen, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )  # like a terminal
    with start(command(colours, corpus, run), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(receipts(run)) >= 3, process)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
        assert process.returncode == 1
    assert error.endswith("\nstopped. Finished slices are kept: the same command resumes after them.\n")
    assert "Traceback" not in error
    done = receipts(run)
    label(*command(colours, corpus, run)[3:], output=run)
    assert {path: kept for path, kept in receipts(run).items() if path in done} == done


def test_a_finished_run_again_scores_nothing(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    run = label(*flags)
    before = contents(run)
    first = capsys.readouterr().out
    monkeypatch.setattr(Scorer, "score", lambda *_: pytest.fail("scored again"))
    label(*flags, output=run)
    assert contents(run) == before
    assert capsys.readouterr().out.splitlines()[0] == first.splitlines()[0]


def test_a_lost_receipt_costs_its_slice_alone(corpus: Path, colours: Path, label: Label) -> None:
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    run = label(*flags)
    before, kept = contents(run), receipts(run)
    lost, damaged = sorted(kept)[:2]
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:50])
    label(*flags, output=run)
    after = receipts(run)
    assert contents(run) == before
    assert {path for path in kept if kept[path] != after[path]} == {lost, damaged}


def test_the_second_of_two_runs_at_once_is_refused(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 3_000)
    folder = tmp_path / "both"
    with subprocess.Popen(command(colours, corpus, folder), stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (folder / "run.json").exists(), process)
        label(*command(colours, corpus, folder)[3:], output=folder, expect=2)
        assert "another run is at work in it" in capsys.readouterr().err
        label(*command(colours, corpus, folder)[3:], "--overwrite", output=folder, expect=2)
        assert process.wait(120) == 0
    assert [row["id"] for row in rows_of(folder)] == [f"d{i}" for i in range(3_000)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--scores", "all"), "scores was 'predicted', now 'all'"),
        (("--keep_fields", "year"), "keep_fields was [], now ['year']"),
        (("--limit", "5"), "limit was None, now 5"),
        (("--format", "parquet"), "format was 'jsonl', now 'parquet'"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    run = label("--model", colours, "--input", corpus)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    label("--model", colours, "--input", corpus, *change, output=run, expect=2)
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_another_model_or_changed_input_is_refused(
    corpus: Path, colours: Path, offensive: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus)
    label("--model", offensive, "--input", corpus, output=run, expect=2)
    assert "models were colours" in capsys.readouterr().err
    with corpus.open("a") as file:
        file.write('{"id": "new", "text": "red"}\n')
    label("--model", colours, "--input", corpus, output=run, expect=2)
    assert f"input {corpus} had" in capsys.readouterr().err


def test_overwrite_starts_over_and_leaves_nothing_of_the_old_run(corpus: Path, colours: Path, label: Label) -> None:
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    label("--model", colours, "--input", corpus, "--limit", 10, "--overwrite", output=run)
    assert len(list(run.glob("predictions/*"))) == len(list(run.glob("receipts/*"))) == 1
    assert len(rows_of(run)) == 10


def test_a_folder_with_other_files_is_never_touched(
    tmp_path: Path, corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    label("--model", colours, "--input", corpus, "--overwrite", output=thesis.parent, expect=2)
    assert "'thesis.tex', which does not belong to a run" in capsys.readouterr().err
    assert os.listdir(thesis.parent) == ["thesis.tex"]

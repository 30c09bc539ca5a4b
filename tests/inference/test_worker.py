"""Test that tasks that share a folder write what one command writes alone, whatever becomes of some of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import beam_runner, worker
from inference.corpus import lease
from inference.corpus.files import find_files
from inference.runs import lock, own_files, pipeline, run_folder, tasks
from inference.runs.options import RunOptions
from inference.runs.tasks import Task
from inference.scoring.options import ScoringOptions
from models.errors import UserError
from tests.inference.conftest import BUCKET, Remote, contents, root_of, slices_of, without_run, write_corpus

Label = Callable[..., Path]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often at what other tasks have done, and leave the handler of SIGTERM as it is."""
    monkeypatch.setattr(tasks, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """Return the options of a run that has just begun."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(f'{{"run": "{"0" * 32}"}}')
    return RunOptions(str(tmp_path / "run"), 1000, ScoringOptions(("m",)), run="0" * 32)


def flags(model: Path, corpus: object, output: object) -> list[str]:
    return ["--model", str(model), "--input", str(corpus), "--output", str(output), "--slice_mb", "0.005"]


def test_a_task_alone_writes_what_a_run_writes(corpus: Path, colours: Path, tmp_path: Path, label: Label) -> None:
    assert worker.main(flags(colours, corpus, tmp_path / "shared")) == 0
    whole = label(*flags(colours, corpus, tmp_path))
    assert contents(tmp_path / "shared") == contents(whole)
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {path.name for path in whole.iterdir()}
    assert worker.main(flags(colours, corpus, tmp_path / "shared")) == 0


@pytest.mark.engine("labelbeam worker", "two tasks share the slices")
def test_two_tasks_share_the_slices(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, run = write_corpus(tmp_path / "corpus.jsonl", 1_000), tmp_path / "shared"
    codes: list[int] = []
    both = [
        threading.Thread(target=lambda: codes.append(worker.main([*flags(colours, corpus, run), "--verbose"])))
        for _ in range(2)
    ]
    for task in both:
        task.start()
    for task in both:
        task.join()
    assert codes == [0, 0]
    assert contents(run) == contents(label(*flags(colours, corpus, tmp_path)))
    printed = capsys.readouterr().out
    assert printed.count("another task has written the summary") == 1
    assert printed.count("this task: 1 slices") == 2  # each has labelled some


@pytest.mark.slow
def test_the_slices_of_a_killed_task_are_taken_over(
    tmp_path: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, run = write_corpus(tmp_path / "corpus.jsonl", 3_000), tmp_path / "shared"
    command = [sys.executable, "-m", "inference.worker", *flags(colours, corpus, run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while len(list(run.glob("receipts/*"))) < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.kill()
    assert not (run / "summary.json").exists()
    (dead,) = (run / "tasks").iterdir()
    os.utime(dead, (0, 0))  # as two minutes later
    assert worker.main(flags(colours, corpus, run)) == 0
    assert contents(run) == contents(label(*flags(colours, corpus, tmp_path)))
    assert not (run / "claims").exists()


def test_a_claim_holds_as_long_as_its_task_lives(options: RunOptions, corpus: Path) -> None:
    files = find_files([str(corpus)])
    with Task(options) as one, Task(options) as two:
        all_slices = one.slices(files)
        assert two.slices(files) == all_slices
        assert sum(piece.lines for piece in all_slices) == 300
        mine = next(one.claimed(all_slices))
        others = two.claimed(all_slices)
        taken = [next(others) for _ in all_slices[1:]]
        assert sorted(piece.name for piece in (mine, *taken)) == sorted(piece.name for piece in all_slices)
        one.__exit__()
        assert next(others) == mine


def test_a_task_that_stands_still_for_too_long_counts_as_dead(
    options: RunOptions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (piece,) = slices_of(corpus)
    monkeypatch.setattr(Task, "_renew", lambda self: None)
    with Task(options) as still:
        assert next(still.claimed([piece])) == piece
        os.utime(Path(options.output, "tasks", still.name), (0, time.time() - lease.LEASE_SECONDS - 1))
        with Task(options) as other:
            assert next(other.claimed([piece])) == piece


def test_a_claim_that_led_to_nothing_for_long_is_free(options: RunOptions, corpus: Path) -> None:
    """Its task shows itself, but stands in a call that does not return."""
    (piece,) = slices_of(corpus)
    with Task(options) as stuck, Task(options) as other:
        assert next(stuck.claimed([piece])) == piece
        (claim,) = Path(options.output, "claims").iterdir()
        long_ago = time.time() - tasks.STUCK_SECONDS - 1
        os.utime(claim, (long_ago, long_ago))
        assert next(other.claimed([piece])) == piece


def test_a_run_that_another_task_begins_during_the_checks_is_joined(
    corpus: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, run = flags(colours, corpus, tmp_path / "shared"), tmp_path / "shared"
    assert worker.main(command) == 0
    (run / "summary.json").unlink()
    max((run / "receipts").iterdir()).unlink()
    read, calls = run_folder.read, iter([None])
    monkeypatch.setattr(run_folder, "read", lambda output: next(calls, read(output)))
    assert worker.main(command) == 0
    assert (run / "summary.json").exists()


def test_a_task_that_comes_as_the_run_ends_leaves_nothing(
    options: RunOptions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_write_slices", lambda *_: pytest.fail("the corpus was counted again"))
    answers = iter([False, True])
    monkeypatch.setattr(Task, "_is_finished", lambda self: next(answers, True))
    with Task(options) as late:
        assert late.slices(find_files([str(corpus)])) == []


def test_an_error_ends_a_task_with_a_sentence(
    corpus: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> Any:
        raise UserError("the disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "write_slice", full)
        assert worker.main(flags(colours, corpus, tmp_path / "shared")) == 1
    assert "failed: the disk is full. Finished slices are kept" in capsys.readouterr().err
    assert not (tmp_path / "shared" / "tasks").exists()
    assert worker.main(flags(colours, corpus, tmp_path / "shared")) == 0


def killed(when: str, corpus: Path, model: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run as a task leaves it that is killed when it is about to call a function of `inference.runs`."""

    def kill(*_: object) -> Any:
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr(f"inference.runs.{when}", kill)
        broken.setattr(own_files, "delete_empty_folders", lambda *_: None)
        broken.setattr(Task, "__exit__", lambda self, *_: self.stop())
        with pytest.raises(SystemExit):
            worker.main(flags(model, corpus, run))


@pytest.mark.parametrize("command", [worker.main, beam_runner.main])
@pytest.mark.parametrize("when", ["own_files.delete_shared", "pipeline.write_slice"])
def test_what_a_killed_task_left_is_tidied_up(
    command: Callable[[list[str]], int],
    when: str,
    corpus: Path,
    colours: Path,
    tmp_path: Path,
    label: Label,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "shared"
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
    killed(when, corpus, colours, run, monkeypatch)
    (run / "claims" / f"slices.{'0' * 8}.001.{'0' * 32}.part").write_bytes(b"half")
    assert (run / "slices.json").exists()
    assert command(flags(colours, corpus, run)) == 0
    whole = label(*flags(colours, corpus, tmp_path))
    assert contents(run) == contents(whole)
    assert {path.name for path in run.iterdir()} - {"claims", "tasks", "attempts", "report.html"} == {
        path.name for path in whole.iterdir()
    } - {"report.html"}
    assert not [*run.glob("claims/*"), *run.glob("tasks/*")]


def test_a_claim_without_sense_is_free_and_files_of_nfs_are_ignored(
    corpus: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "shared"
    killed("pipeline.write_slice", corpus, colours, run, monkeypatch)
    for claim in (run / "claims").iterdir():
        claim.write_bytes(b"\xff\xfe\x00")
    (run / "claims" / ".nfs0000000001").write_bytes(b"")
    assert worker.main(flags(colours, corpus, run)) == 0


def test_what_others_are_writing_stays_when_claims_go(options: RunOptions) -> None:
    folder = Path(options.output) / "tasks"
    folder.mkdir()
    names = ["0" * 32, f"{'1' * 32}.{'2' * 32}.part"]
    for name in names:
        (folder / name).write_bytes(b"")
    own_files.delete_shared(options.output)
    assert [path.name for path in folder.iterdir()] == names[1:]


@pytest.mark.parametrize("where", ["disk", "cloud", "s3"])
def test_tasks_and_a_run_keep_each_other_out(
    where: str,
    tmp_path: Path,
    corpus: Path,
    colours: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = str(tmp_path / "run") if where == "disk" else f"{root_of(request.getfixturevalue(where))}/run"
    command = flags(colours, corpus, output)
    assert worker.main([*command, "--limit", "5"]) == 0
    options = RunOptions(output, 0, ScoringOptions((str(colours),)), run="0" * 32)
    with lock.hold(output, shared=True), Task(options):
        assert beam_runner.main([*command, "--overwrite"]) == 2
    assert "at work in it" in capsys.readouterr().err
    monkeypatch.setattr(lock, "TIDY_SECONDS", 0.3)
    with lock.hold(output):
        assert worker.main([*command, "--limit", "5"]) == 2
    assert "at work" in capsys.readouterr().err
    assert beam_runner.main([*command, "--overwrite"]) == 0


def test_tasks_in_a_remote_storage(remote: Remote, corpus: Path, colours: Path, tmp_path: Path, label: Label) -> None:
    assert worker.main(flags(colours, corpus, f"{root_of(remote)}/run")) == 0
    whole = label(*flags(colours, corpus, tmp_path))
    shared = {without_run(n): c for n, c in remote.contents(BUCKET, "run/").items() if n.startswith("predictions/")}
    assert shared == {n: c for n, c in contents(whole).items() if n.startswith("predictions/")}
    assert not [name for name in remote.contents(BUCKET, "run/") if name.startswith(("tasks/", "claims/"))]


@pytest.mark.parametrize("more", [("--overwrite",), ("--plan",), ("--runner", "DataflowRunner"), ("--runner=x",)])
def test_flags_without_use_are_refused(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker.main([*flags(tmp_path, tmp_path, tmp_path), *more]) == 2
    name = more[0].partition("=")[0]
    assert capsys.readouterr().err == (
        f"error: {name}: tasks have no use for it; drop it, or use inference.beam_runner.\n"
    )

"""Test that every engine that can be had writes the same bytes, and goes on where a run stopped."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from inference import beam_runner, engines
from inference.corpus import slices
from inference.corpus.files import find_files
from inference.runs import launches, pipeline, receipts, run_folder, worker_check
from inference.runs.options import RunOptions
from inference.runs.worker_check import Launcher, UnfitWorker
from inference.scoring import model_files
from inference.scoring.faults import ScoringError
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from models.errors import ModelError
from tests.inference.conftest import contents, identity_of, slices_of, write_corpus
from tests.job_servers import PRISM, job_server, pool, workers_of

Label = Callable[..., Path]
needs_prism = pytest.mark.skipif(PRISM is None, reason="Beam's Prism is not here")


def test_directrunner_is_fnapirunner(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beam's DirectRunner takes Prism or FnApiRunner, by what it finds in the web."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", 20)
    label("--model", colours, "--input", corpus, "--runner", "DirectRunner")
    assert capsys.readouterr().out.startswith("runner: FnApiRunner\n")
    label("--model", colours, "--input", corpus)
    assert capsys.readouterr().out.startswith("runner: FnApiRunner\n")


@pytest.mark.engine("FnApiRunner", "a slice is read and written while another is scored")
def test_a_slice_is_read_and_written_while_another_is_scored(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = Scorer.score

    def slow(*arguments: Any) -> Any:
        time.sleep(0.2)
        return scored(*arguments)

    monkeypatch.setattr(Scorer, "score", slow)
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    found = [receipt for _, receipt in receipts.read_all(str(run), identity_of(run)) if receipt]
    spans = sorted((receipt.finished - receipt.seconds, receipt.finished) for receipt in found)
    assert sum(following < end for (_, end), (following, _) in pairwise(spans)) >= len(spans) // 2


def test_a_failure_ends_the_other_thread_before_its_next_slice(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored, calls = Scorer.score, iter(range(1_000))

    def fails_once(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise ZeroDivisionError("a mistake of the program")
        time.sleep(0.5)
        return scored(*arguments)

    monkeypatch.setattr(Scorer, "score", fails_once)
    label("--model", colours, "--input", corpus, "--slice_mb", 0.002, expect=1)
    assert "failed: a mistake of the program [while running" in capsys.readouterr().err
    time.sleep(1.5)
    assert next(calls) <= 3


def test_an_engine_shows_counters(corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    with corpus.open("a") as file:
        file.write('{"id": "x", "text": 5}\nnot json\n\n')
    results: list[Any] = []
    run_pipeline = beam.Pipeline.run

    def keep(p: beam.Pipeline) -> Any:
        results.append(run_pipeline(p))
        return results[-1]

    monkeypatch.setattr(beam.Pipeline, "run", keep)

    def counters() -> dict[str, int]:
        found = results[-1].metrics().query()["counters"]
        return {c.key.metric.name: c.committed for c in found if c.key.metric.namespace == "labelbeam"}

    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005, "--max_failure_rate", 1)
    first, count = counters(), len(list((run / "receipts").iterdir()))
    assert first["documents"] == 302
    assert first["predicted"] == 300
    assert {name for name in first if name.startswith("failed_")} == {"failed_text_not_string", "failed_not_json"}
    assert first["slices"] == count
    assert first["padded_tokens"] >= first["tokens"] > 0
    assert first["truncated"] > 0
    label("--model", colours, "--input", corpus, "--slice_mb", 0.005, "--max_failure_rate", 1, output=run)
    assert counters()["slices_found_done"] == count
    assert "documents" not in counters()


@needs_prism
@pytest.mark.engine("PrismRunner", "same bytes as FnApiRunner; a resume")
def test_prism_writes_the_same_bytes_and_resumes(tmp_path: Path, corpus: Path, colours: Path, label: Label) -> None:
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--slice_mb", 0.005)
    whole = label(*flags)
    prism = (*flags, "--runner", "PrismRunner", "--prism_location", PRISM)
    run = label(*prism)
    assert contents(run) == contents(whole)
    lost = sorted((run / "receipts").iterdir())[1::2]
    kept = {path: path.read_bytes() for path in (run / "receipts").iterdir() if path not in lost}
    for path in (*lost, run / "summary.json"):
        path.unlink()
    label(*prism, output=run)
    assert contents(run) == contents(whole)
    assert {path: path.read_bytes() for path in kept} == kept


@needs_prism
@pytest.mark.engine("PrismRunner", "a killed launcher resumes")
def test_a_killed_launcher_of_prism_resumes(tmp_path: Path, colours: Path, label: Label) -> None:
    corpus, run = write_corpus(tmp_path / "corpus.jsonl", 5_000), tmp_path / "killed"
    flags = ["--model", colours, "--input", corpus, "--slice_mb", 0.005, "--runner", "PrismRunner"]
    command = [str(flag) for flag in (*flags, "--prism_location", PRISM, "--output", run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.beam_runner", *command],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_receipts(run, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.read_bytes() for path in (run / "receipts").glob("*.json")}
    label(*command[:-2], output=run)
    assert contents(run) == contents(label(*flags[:-2]))
    assert {path: path.read_bytes() for path in done} == done


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a job server."""
    with job_server(tmp_path_factory.mktemp("prism")) as address:
        yield address


def portable(server: str, pool: str, model: Path, corpus: Path) -> list[str]:
    flags = ["--model", model, "--input", corpus, "--slice_mb", 0.005, "--runner", "PortableRunner"]
    flags += ["--job_endpoint", server, "--environment_type", "EXTERNAL", "--environment_config", pool]
    return [str(flag) for flag in flags]


@needs_prism
@pytest.mark.engine("PortableRunner", "Prism server, pool in another folder; a killed worker; same bytes")
def test_a_killed_worker_of_a_pool_costs_its_slice_only(
    tmp_path: Path, colours: Path, server: str, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, run = write_corpus(tmp_path / "corpus.jsonl", 5_000), tmp_path / "run"
    killed: list[int] = []

    def kill() -> None:
        wait_for_receipts(run, 3)
        killed.extend(workers_of(run))
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with pool(tmp_path) as address:
        killer = threading.Thread(target=kill)
        killer.start()
        label(*portable(server, address, colours, corpus), output=run)
        killer.join()
    assert killed
    assert "failed: a worker died. Submitted again; --resubmit allows 2 more." in capsys.readouterr().err
    assert contents(run) == contents(label("--model", colours, "--input", corpus, "--slice_mb", 0.005))


@needs_prism
@pytest.mark.engine("PortableRunner", "a pool without labelbeam is named")
def test_a_pool_without_labelbeam_is_named(
    tmp_path: Path, colours: Path, corpus: Path, server: str, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    packages = str(Path(beam.__file__).parents[1])  # a folder on PYTHONPATH installs nothing that is editable
    with pool(tmp_path, tmp_path / "bin", PYTHONPATH=packages) as address:
        label(*portable(server, address, colours, corpus), expect=1)
    error = capsys.readouterr().err
    assert "failed: a worker cannot import labelbeam; install it" in error
    assert "Submitted again" not in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runner", "DaskRunner"], "--runner DaskRunner: expected DirectRunner or one of"),
        (["--runner", "PortableRunner"], "--environment_type: expected one of EXTERNAL, DOCKER, PROCESS, LOOPBACK"),
        (["--runner", "PortableRunner"], "--job_endpoint: expected the address of a job server"),
        (["--runner", "PortableRunner", "--environment_type", "LOOPBACK"], "--job_endpoint: expected the address"),
        (["--runner", "PortableRunner", "--environment_type", "docker"], "--environment_config: expected the pool's"),
        (
            ["--runner", "PortableRunner", "--job_endpoint", "localhost:1", "--environment_type", "EXTERNAL"],
            "--job_endpoint localhost:1: nothing answers there (Connection refused)",
        ),
        (["--runner", "PortableRunner", "--job_endpoint", "here"], "--job_endpoint here: expected HOST:PORT"),
        (["--runner", "FlinkRunner", "--environment_type", "PROCESS"], "expected a remote path such as gs://"),
        (
            ["--runner", "PortableRunner", "--environment_type", "external", "--s3_region_name", "r"],
            "--s3_region_name: expected no flag of S3 with --environment_type EXTERNAL",
        ),
        (["--resubmit", "-1"], "expected a whole number from 0, found '-1'"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    flags: list[str], message: str, corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus, *flags, expect=2)
    assert message in capsys.readouterr().err
    assert not run.exists()


def test_paths_of_workers_elsewhere_are_absolute(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(corpus.parent)
    flags = ["--model", str(colours), "--input", corpus.name, "--output", "run", "--runner", "PortableRunner"]
    assert beam_runner.main(flags) == 2
    error = capsys.readouterr().err
    assert f"--input {corpus.name}: expected an absolute path" in error
    assert "--output run: expected an absolute path" in error


def test_a_pool_is_asked_only_if_it_is_here_for_the_server_too() -> None:
    def said(runner: str, endpoint: str, config: str) -> list[str]:
        flags = ["--runner", runner, "--job_endpoint", endpoint, "--environment_type", "external"]
        beam_options = PipelineOptions([*flags, "--environment_config", config])
        found = engines.problems(engines.choose(beam_options, flags), beam_options, [])
        return [sentence for sentence in found if sentence.startswith("--environment_config")]

    assert said("PortableRunner", "localhost:1", "localhost:1")
    assert not said("PortableRunner", "localhost:1", "worker-pool:1")
    assert not said("PortableRunner", "localhost:1", '{"url": "localhost:1"}')
    assert not said("FlinkRunner", "localhost:1", "localhost:1")


@pytest.mark.parametrize(
    ("error", "slices", "submissions"),
    [
        (RuntimeError("SDK worker disconnected"), 0, 4),
        (RuntimeError("something that the engine said"), 1, 4),
        (RuntimeError("something that the engine said"), 0, 1),
        (RuntimeError("Pipeline job-1 failed in state CANCELLED: unknown error"), 1, 1),
        (RuntimeError("No module named 'inference.runs'"), 1, 1),
        (UnfitWorker("worker a:1 cannot label: expected Python 3.9. [while running 'CheckWorker']"), 1, 1),
        (ScoringError("no memory [while running 'RunInference']"), 0, 4),
    ],
)
def test_what_may_succeed_is_submitted_again(
    error: Exception,
    slices: int,
    submissions: int,
    corpus: Path,
    colours: Path,
    label: Label,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine is a stub, which labels `slices` slices before it fails."""
    seen: list[int] = []

    def fail(self: beam.Pipeline) -> None:
        seen.append(1)
        raise error

    monkeypatch.setattr(beam.Pipeline, "run", fail)
    monkeypatch.setattr(receipts, "paths", lambda *_: ["receipt"] * slices * len(seen))
    monkeypatch.setattr(receipts, "read_each", lambda *_: [])
    label("--model", colours, "--input", corpus, "--resubmit", 3, expect=1)
    assert len(seen) == submissions


def test_a_job_server_that_is_gone_is_not_waited_for(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beam itself would wait for it for five minutes, at each submission."""
    answers = iter([None, "--job_endpoint localhost:1: nothing answers there (Connection refused); start it."])
    monkeypatch.setattr(engines, "silence", lambda _: next(answers))
    monkeypatch.setattr(engines, "_unreachable", lambda *_: iter(()))
    broken = Mock(side_effect=RuntimeError("status = StatusCode.UNAVAILABLE"))
    monkeypatch.setattr(beam.Pipeline, "run", broken)
    label(*portable("localhost:1", "localhost:2", colours, corpus), expect=1)
    assert "failed: the connection to the job server broke. --job_endpoint localhost:1: n" in capsys.readouterr().err
    assert broken.call_count == 1


@pytest.mark.parametrize(
    ("state", "cancelling", "message"),
    [
        ("RUNNING", None, "the job on localhost:1 was cancelled"),
        ("RUNNING", OSError("no\nconnection"), "the job on localhost:1 may go on: cancel it there (no connection)."),
        ("DONE", None, "stopped."),
    ],
)
def test_ctrl_c_cancels_a_job_on_a_server(
    state: str,
    cancelling: Exception | None,
    message: str,
    corpus: Path,
    colours: Path,
    label: Label,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Mock(state=state, wait_until_finish=Mock(side_effect=KeyboardInterrupt), cancel=Mock(side_effect=cancelling))
    monkeypatch.setattr(beam.Pipeline, "run", lambda _: job)
    monkeypatch.setattr(engines, "_unreachable", lambda *_: iter(()))
    flags = portable("localhost:1", "localhost:2", colours, corpus)
    label(*flags, expect=1)
    assert message in capsys.readouterr().err
    assert job.cancel.called == (state == "RUNNING")


def test_workers_elsewhere_are_checked_and_others_are_not(options: RunOptions) -> None:
    bad = replace(options, scoring=replace(options.scoring, sha256=("0" * 64,)))
    with pytest.raises(UnfitWorker, match="cannot label: .* expected the model that the run began with"):
        run_pipeline(bad, check_workers=True)
    with pytest.raises(ModelError, match=r"expected the model that the run began with"):
        run_pipeline(bad, check_workers=False)


def run_pipeline(options: RunOptions, *, check_workers: bool) -> None:
    with beam.Pipeline("FnApiRunner") as p:
        pipeline.build(p, options, check_workers=check_workers)


def test_a_failure_does_not_end_the_other_slices_of_a_worker_elsewhere(
    options: RunOptions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine gives the same slice to the same process again."""
    (piece,) = slices_of(corpus)
    step = pipeline.ReadSlice(options)
    step.setup()
    with monkeypatch.context() as broken:
        broken.setattr(slices, "read_documents", Mock(side_effect=OSError("503")))
        with pytest.raises(OSError, match="503"):
            list(step.process(piece))
    assert [len(batch) for batch in step.process(piece)] == [1]


def test_the_error_of_a_launch_keeps_no_model_alive() -> None:
    class Model:
        pass

    def score() -> weakref.ref[Model]:
        model = Model()
        with contextlib.suppress(ValueError), launches.guard("launch"):
            raise ValueError("the device is gone")
        return weakref.ref(model)

    gone = score()
    gc.collect()
    assert gone() is None
    with pytest.raises(ValueError, match="the device is gone"):
        launches.require("launch")


@pytest.fixture
def options(corpus: Path, colours: Path, tmp_path: Path) -> RunOptions:
    """Return the options of a run that has begun."""
    found = model_files.fingerprint(str(colours), "auto")
    begun = RunOptions(str(tmp_path / "begun"), 1_000, ScoringOptions((str(colours),)))
    description = run_folder.describe(begun, find_files([str(corpus)]), [found], "a command")
    with run_folder.claim(begun, description, overwrite=False) as claim:
        return claim.options


def test_a_fit_worker_leaves_nothing_behind(options: RunOptions) -> None:
    before = sorted(Path(options.output).iterdir())
    worker_check.require(options, Launcher.here())
    assert sorted(Path(options.output).iterdir()) == before


def test_all_that_a_worker_lacks_is_in_one_message(
    options: RunOptions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.unlink()
    launcher = Launcher((3, 9), (("labelbeam", "0.0.1"), ("apache-beam", "1.0"), ("onnxruntime", "9")))
    monkeypatch.setattr(run_folder, "DECISIVE_PACKAGES", ("labelbeam",))
    scoring = replace(options.scoring, sha256=("0" * 64,))
    with pytest.raises(UnfitWorker) as found:
        worker_check.require(replace(options, scoring=scoring), launcher)
    message = str(found.value)
    assert "\n" not in message
    for part in (
        "expected Python 3.9, found 3.",
        "expected labelbeam 0.0.1 as on the launching machine, found ",
        "expected apache-beam 1.0 as on the launching machine, found ",
        "expected the model that the run began with",
        f"--input {corpus} cannot be read from there: ",
    ):
        assert part in message
    assert "onnxruntime" not in message


def test_a_worker_that_does_not_see_the_output_says_so(options: RunOptions) -> None:
    with pytest.raises(UnfitWorker, match="--output /nowhere cannot be used from there: /nowhere belongs to no run"):
        worker_check.require(replace(options, output="/nowhere"), Launcher.here())


def wait_for_receipts(run: Path, count: int) -> None:
    """Wait until a run has this many receipts."""
    for _ in range(1_200):
        if len(list(run.glob("receipts/*.json"))) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{run} has not {count} receipts")

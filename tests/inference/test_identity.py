"""Tests that a run's labels, receipts and files are its own, whoever else writes into its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import beam_runner, verify
from inference.corpus import storage
from inference.corpus.records import DocumentRecipe, Failure
from inference.runs import frames, integrity, pipeline, receipts, run_folder, sink, slice_list
from inference.runs.handler import ScoredSlice, SliceHandler
from inference.runs.options import RunOptions
from inference.runs.run_folder import RunLost
from inference.scoring import runtimes
from inference.scoring.options import ScoringOptions
from inference.scoring.predictions import Predictions
from inference.scoring.tally import Counts
from tests.inference.conftest import contents, identity_of, rows_of, write_corpus
from tests.tiny import tiny_model

Label = Callable[..., Path]


def options_of(run: Path) -> RunOptions:
    """Return the options that a worker of the run has."""
    return RunOptions(str(run), 1, ScoringOptions(("m",)), run=identity_of(run))


def scored_slice(run: Path, reason: str) -> ScoredSlice:
    """Return the slice of a run's first receipt, in which this worker found that every line fails."""
    receipt = receipts.read(str(min((run / "receipts").iterdir())), identity_of(run))
    assert receipt
    pieces = slice_list.read(str(run), identity_of(run))
    assert pieces
    failures = [Failure(i, f"d{i}", "model_failed", reason, "") for i in range(receipt.lines)]
    nothing = Predictions([], [], [], {})
    return ScoredSlice(pieces[0], receipt.lines, 0, nothing, failures, Counts(), "torch in fp32", {}, 0.0, 0.0)


def test_a_worker_of_an_overwritten_run_can_neither_write_nor_change_the_new_one(
    corpus: Path, colours: Path, offensive: Path, label: Label
) -> None:
    """The launcher of a run is dead, and its worker still has a slice when another model takes the folder."""
    flags = ("--input", corpus, "--slice_mb", 0.005)
    run = label("--model", colours, *flags)
    orphan, scored = options_of(run), scored_slice(run, "of the old run")
    label("--model", offensive, *flags, "--overwrite", output=run)
    new = contents(run)
    with pytest.raises(RunLost, match="belongs to another run by now, so this run has stopped"):
        pipeline.write_slice(scored, orphan)
    with pytest.raises(RunLost):
        pipeline.read_slice(scored.slice, orphan, DocumentRecipe(()))
    with pytest.raises(RunLost):
        pipeline.write_summary(str(run), orphan, 0)
    assert contents(run) == new
    assert not list(integrity.verify(str(run)))

    sink.write_slice(scored, orphan)  # the folder changed hands between the check and the write
    assert new.items() < contents(run).items()
    assert [row["offensive"]["labels"] for row in rows_of(run)] != []
    problems = list(integrity.verify(str(run)))
    assert sorted(problem.split(": ")[1] for problem in problems) == [
        "belongs to no receipt of this run; delete it.",
        "belongs to no receipt of this run; delete it.",
        "belongs to no receipt of this run; delete it.",
        "is no receipt of this run; delete it.",
    ]
    with pytest.warns(UserWarning, match="3 files, such as predictions/.*, belong to no receipt and were not read"):
        frame = frames.read_predictions(str(run))
    assert list(frame["id"]) == [f"d{i}" for i in range(300)]
    label("--model", offensive, *flags, output=run)  # it is finished, and says so
    label("--model", offensive, *flags, "--overwrite", output=run)
    assert not list(integrity.verify(str(run)))


def test_a_worker_whose_folder_was_deleted_does_not_make_it_again(
    tmp_path: Path, corpus: Path, colours: Path, label: Label
) -> None:
    run = label("--model", colours, "--input", corpus)
    orphan, scored = options_of(run), scored_slice(run, "x")
    run.rename(tmp_path / "moved")
    with pytest.raises(RunLost, match="belongs to no run by now"):
        pipeline.write_slice(scored, orphan)
    assert not run.exists()


def test_a_worker_that_loses_the_folder_while_it_writes_a_slice_writes_no_receipt(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = label("--model", colours, "--input", corpus)
    options, scored, write = options_of(run), scored_slice(run, "x"), storage.write_file
    for receipt in (run / "receipts").iterdir():
        receipt.unlink()

    def overtaken(path: str, content: Any) -> None:
        write(path, content)
        (run / "run.json").unlink(missing_ok=True)

    monkeypatch.setattr(storage, "write_file", overtaken)
    with pytest.raises(RunLost):
        pipeline.write_slice(scored, options)
    assert not list((run / "receipts").iterdir())


def test_the_first_of_two_attempts_that_round_differently_counts(corpus: Path, colours: Path, label: Label) -> None:
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    before = contents(run)
    second = sink.write_slice(scored_slice(run, "another rounding"), options_of(run))
    assert second.predicted > 0  # the receipt of the first attempt
    assert contents(run) == before
    assert not list(integrity.verify(str(run)))


def test_a_slice_that_is_done_again_removes_its_stale_files(corpus: Path, colours: Path, label: Label) -> None:
    """An attempt wrote its files, and a kill or a damaged disk took its receipt."""
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    run = label(*flags)
    before = contents(run)
    path = min((run / "receipts").iterdir())
    scored = scored_slice(run, "another rounding")
    for lose in (path.unlink, lambda: path.write_bytes(path.read_bytes()[:50])):
        lose()
        if not path.exists():
            sink.begin_attempt(options_of(run), scored.slice.name)
        sink.write_slice(scored, options_of(run))
        assert contents(run) != before
        lose()
        if not path.exists():
            sink.begin_attempt(options_of(run), scored.slice.name)
        label(*flags, output=run)
        assert contents(run) == before


def test_a_run_of_other_versions_is_another_run(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus)
    run = label(*flags)
    version_of = run_folder.version_of
    monkeypatch.setattr(run_folder, "version_of", lambda name: "0.0.1" if name == "tokenizers" else version_of(name))
    label(*flags, output=run, expect=2)
    error = capsys.readouterr().err
    assert f"holds another run (tokenizers was {version_of('tokenizers')}, now 0.0.1)" in error
    assert f"`labelbeam delta --previous {run}` to label only what is new" in error


def test_a_resume_with_another_precision_says_so(
    corpus: Path, colours: Path, label: Label, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.005, "--runtime", "torch")
    run = label(*flags)
    min((run / "receipts").iterdir()).unlink()
    label(*flags, output=run)
    assert "warning" not in capsys.readouterr().out
    min((run / "receipts").iterdir()).unlink()
    here = str(runtimes.choose("torch", "auto", "auto").precision)
    other: Any = {"bf16": "fp32", "fp32": "bf16"}[here]
    monkeypatch.setattr(runtimes, "_precision", lambda *_: other)
    label(*flags, output=run)
    assert (
        f"warning: finished slices were scored with torch in {here} on a CPU, and this machine scores with torch in "
        f"{other} on a CPU, so their scores may differ slightly"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_the_description_is_found(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], position: float
) -> None:
    run = label("--model", colours, "--input", corpus)
    content = bytearray((run / "run.json").read_bytes())
    digits = [i for i, byte in enumerate(content) if chr(byte).isalnum()]
    content[digits[int(len(digits) * position)]] ^= 1
    (run / "run.json").write_bytes(content)
    label("--model", colours, "--input", corpus, output=run, expect=2)
    assert verify.main([str(run)]) == 2
    assert capsys.readouterr().err.count("run.json is damaged: use another --output, or --overwrite to start over") == 2


def test_receipts_without_their_description_are_not_lost_by_accident(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus)
    before = contents(run)
    (run / "run.json").unlink()
    label("--model", colours, "--input", corpus, output=run, expect=2)
    assert "holds files of a run without its run.json: put it back, or --overwrite them" in capsys.readouterr().err
    assert contents(run) == before
    for path in (run / "receipts").iterdir():
        path.unlink()
    label("--model", colours, "--input", corpus, output=run, expect=2)  # an --overwrite was killed
    assert "holds files of a run without its run.json" in capsys.readouterr().err
    label("--model", colours, "--input", corpus, "--overwrite", output=run)
    assert not list(integrity.verify(str(run)))


def test_the_input_is_compared_with_the_bytes_that_were_labelled(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 300)
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    assert verify.main([str(run), "--input"]) == 0
    content = corpus.read_bytes()
    corpus.write_bytes(content.replace(b"blue", b"blur"))
    assert verify.main([str(run)]) == 0
    assert verify.main([str(run), "--input"]) == 1
    output = capsys.readouterr().out
    assert f"{corpus}: the lines from 1 on have changed since they were labelled; put the file back, or label" in output
    corpus.unlink()
    assert verify.main([str(run), "--input"]) == 1


def test_a_local_folder_with_wildcards_in_its_name_is_that_folder(
    tmp_path: Path, corpus: Path, colours: Path, label: Label
) -> None:
    name = "r[u]?*"  # would also find its neighbours
    neighbours = [tmp_path / other for other in ("run", "ruin")]
    for folder in neighbours:
        label("--model", colours, "--input", corpus, "--slice_mb", 0.005, output=folder)
    before = [contents(folder) for folder in neighbours]
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.005)
    strange = label(*flags, output=tmp_path / name)
    min((strange / "receipts").iterdir()).unlink()
    label(*flags, output=strange)
    assert contents(strange) == before[0]
    assert not list(integrity.verify(str(strange)))
    assert len(frames.read_predictions(str(strange))) == 300
    label(*flags, "--limit", 5, "--overwrite", output=strange)
    assert len(rows_of(strange)) == 5
    assert [contents(folder) for folder in neighbours] == before


@pytest.mark.parametrize("name", ["film.mkv.part", "predictions/thesis.docx", "run.json.part"])
@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_only_files_of_a_run_are_deleted(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], name: str, flag: tuple[str, ...]
) -> None:
    run = label("--model", colours, "--input", corpus)
    before = contents(run)
    mine = run / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    assert beam_runner.main(["--model", str(colours), "--input", str(corpus), "--output", str(run), *flag]) == 2
    assert f"{name!r}, which does not belong to a run" in capsys.readouterr().err
    assert mine.read_text() == "years of work"
    assert before.items() <= contents(run).items()


@pytest.mark.parametrize("step", ["ReadSlice", "SliceHandler"])
def test_a_model_that_is_replaced_while_the_run_starts_labels_nothing(
    tmp_path: Path,
    corpus: Path,
    label: Label,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
) -> None:
    """A training ends and writes its model over the one that is about to be loaded."""
    model, other = (tiny_model(tmp_path / name / "colours", seed=seed) for seed, name in enumerate(("a", "b")))
    owner, name = (pipeline.ReadSlice, "setup") if step == "ReadSlice" else (SliceHandler, "load_model")
    original = getattr(owner, name)

    def replaced_first(self: Any) -> Any:
        shutil.copytree(other, model, dirs_exist_ok=True)
        return original(self)

    monkeypatch.setattr(owner, name, replaced_first)
    run = label("--model", model, "--input", corpus, "--runtime", "torch", expect=1)
    assert f"failed: Model '{model}': expected the model that the run began with (SHA-256 " in capsys.readouterr().err
    assert contents(run) == {}


def test_an_input_that_lies_in_the_output_by_another_name_is_not_deleted(
    tmp_path: Path, corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", colours, "--input", corpus)
    before = contents(run)
    (tmp_path / "link").symlink_to(run)
    flags = ("--model", colours, "--input", run / "predictions" / "*.jsonl", "--max_failure_rate", 1, "--overwrite")
    label(*flags, output=tmp_path / "link", expect=2)
    assert "expected a folder without input, found the input" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("x" * 300, "cannot be read: File name too long; name another folder."),
        ("a/run.json", "holds 'run.json', which does not belong to a run: move it away, or name a new folder."),
        ("a/predictions", "holds 'predictions', which does not belong to a run: move it away, or name a new folder."),
        ("gs://bucket/a\nb", "'gs://bucket/a\\nb': expected a path without line breaks, found one; name another."),
    ],
)
def test_a_strange_output_is_a_sentence(
    tmp_path: Path,
    corpus: Path,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    if output == "a/run.json":
        (tmp_path / output).mkdir()
    elif output == "a/predictions":
        (tmp_path / output).write_text("x")
    output = output.partition("/")[0] if output.startswith("a/") else output
    assert beam_runner.main(["--model", str(colours), "--input", str(corpus), "--output", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --output ")
    assert line.endswith(sentence)

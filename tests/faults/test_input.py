"""Test input that disappears or changes while it is labelled, or between two attempts."""

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import verify
from inference.corpus import counting
from inference.corpus.files import SourceError, find_files
from inference.runs.options import RESUME
from tests.inference.conftest import contents, write_corpus
from tests.inference.test_resume import command, receipts, wait_for

Label = Callable[..., Path]


def unfinished(run: Path, slice_number: int) -> None:
    """Leave the run as a kill before the end of that slice would."""
    sorted((run / "receipts").iterdir())[slice_number].unlink()
    (run / "summary.json").unlink()


@pytest.mark.slow
def test_a_file_that_goes_away_during_the_run(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 3_000)
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--slice_mb", 0.005)
    run = tmp_path / "run"
    with subprocess.Popen(command(colours, corpus, run), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(receipts(run)) >= 3, process)
        os.rename(corpus, tmp_path / "away")
        error = process.communicate()[1]
        assert process.returncode == 1
    problem = f"{corpus} cannot be reached: No such file or directory; check the path and the connection."
    assert f"failed: {problem} {RESUME}" in error
    assert "Traceback" not in error
    done = receipts(run)
    label(*flags, output=run, expect=2)
    problem = "expected at least one file, found none; check the path and the glob."
    assert capsys.readouterr().err == f"error: --input {corpus}: {problem}\n"
    os.rename(tmp_path / "away", corpus)
    label(*flags, output=run)
    assert {path: receipt for path, receipt in receipts(run).items() if path in done} == done
    assert contents(run) == contents(label(*flags))


def test_a_compressed_file_that_goes_away_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 1}\n'))
    (file,) = find_files([str(path)])
    path.unlink()
    with pytest.raises(SourceError, match="cannot be reached: No such file"):
        counting.count_all([file], 100)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_input_that_changed_between_two_attempts_is_found_where_it_is_read(
    tmp_path: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """Change a letter of a finished slice, and then of an unfinished one, so that the file keeps its size."""
    plain = write_corpus(tmp_path / "plain.jsonl", 1_000).read_bytes()
    pack = (lambda content: gzip.compress(content, 0, mtime=0)) if suffix else bytes
    corpus = tmp_path / f"corpus.jsonl{suffix}"
    corpus.write_bytes(pack(plain))
    flags = ("--model", colours, "--input", corpus, "--slice_mb", 0.02)
    whole, run = label(*flags), label(*flags)
    unfinished(run, 2)
    corpus.write_bytes(pack(plain.replace(b"sky", b"sea", 1)))
    assert verify.main([str(run), "--input"]) == 1
    assert f"{corpus}: the lines from 1 on have changed since they were labelled" in capsys.readouterr().out
    word = plain.index(b"sky", 50_000)  # in the slice without a receipt
    corpus.write_bytes(pack(plain[:word] + b"sea" + plain[word + 3 :]))
    label(*flags, output=run, expect=1)
    error = capsys.readouterr().err
    assert f"failed: {corpus}: expected the bytes that were counted when the run began, found others" in error
    assert "Traceback" not in error
    assert not (run / "summary.json").exists()
    corpus.write_bytes(pack(plain))
    label(*flags, output=run)
    assert contents(run) == contents(whole)


def test_input_that_grew_is_refused_before_anything_is_read(
    corpus: Path, colours: Path, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", colours, "--input", corpus)
    run = label(*flags)
    unfinished(run, 0)
    before, size = contents(run), corpus.stat().st_size
    with corpus.open("a") as file:
        file.write('{"id": "late", "text": "the sky"}\n')
    label(*flags, output=run, expect=2)
    assert f"input {corpus} had {size:,} bytes, now {size + 34:,}" in capsys.readouterr().err
    assert contents(run) == before

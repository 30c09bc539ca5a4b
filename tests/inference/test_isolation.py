"""Test that a run continues without a document that ends its process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from unittest import mock

import pytest

from inference.corpus.records import Document, Failure
from inference.runs import sink
from inference.runs.options import RunOptions
from inference.scoring import isolation
from inference.scoring.faults import DeviceError, ScoringError
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from tests.inference.conftest import contents, identity_of, rows_of, texts, without_run, write_corpus

# Python imports sitecustomize when it starts. This one makes some texts end every process that scores them.
DEADLY = """
import importlib.abc, importlib.util, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "inference.scoring.scorer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            score = module.Scorer.score

            def deadly(self, documents, others=0):
                if any("DEADLY" in text for document in documents for text in document.texts):
                    os.kill(os.getpid(), signal.SIGSEGV)
                return score(self, documents, others)

            module.Scorer.score = deadly
            if "DEADLY_MODEL" in os.environ:
                module.Scorer.__init__ = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def documents(count: int) -> list[Document]:
    return [Document(i + 1, f"d{i}", (text,), {}, text.encode()) for i, text in enumerate(texts(count))]


@pytest.fixture
def deadly_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every process that starts from now on end when it scores a deadly text."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{Path.cwd()}")


@pytest.mark.slow
def test_the_document_that_ends_its_process_is_found(deadly_texts: None, colours: Path) -> None:
    options = ScoringOptions((str(colours),), runtime="torch", scores="all")
    harmless = documents(20)
    deadly = Document(99, "x", ("a DEADLY text",), {}, b"a DEADLY line")
    predictions, failures, counts = isolation.score([*harmless[:10], deadly, *harmless[10:]], options)
    expected, _, expected_counts = Scorer(options).score(harmless)
    assert [(p.id, p.by_model["colours"].labels) for p in predictions] == [
        (p.id, p.by_model["colours"].labels) for p in expected
    ]
    assert failures == [Failure(99, "x", "process_ended", "scoring this document ended the process", "a DEADLY line")]
    assert counts.labels == expected_counts.labels
    assert counts.lengths == expected_counts.lengths


@pytest.mark.slow
def test_a_model_that_ends_its_process_seals_no_document(
    deadly_texts: None, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEADLY_MODEL", "1")
    with pytest.raises(ScoringError, match="found that this ends the process; no document is at fault"):
        isolation.score(documents(20), ScoringOptions((str(colours),), runtime="torch"))


def test_documents_that_all_end_their_process_are_not_at_fault() -> None:
    process = mock.Mock(score_twice=mock.Mock(side_effect=BrokenProcessPool))
    with pytest.raises(ScoringError, match="16 of 20 texts fail"):
        isolation._one_by_one(documents(20), process)
    assert process.score_twice.call_count == 16


def test_a_document_that_takes_the_gpu_from_its_process_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_scorer", mock.Mock(score=mock.Mock(side_effect=DeviceError("lost"))))
    monkeypatch.setattr(os, "_exit", mock.Mock(side_effect=SystemExit))
    with pytest.raises(SystemExit):
        isolation._score(documents(1), ScoringOptions(()))


@pytest.mark.slow
def test_a_deadly_document_becomes_a_failure_at_the_third_attempt(
    deadly_texts: None, tmp_path: Path, colours: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 60)
    harmless = write_corpus(tmp_path / "harmless.jsonl", 60)
    lines = corpus.read_text().splitlines()
    deadly = [json.dumps({"id": f"x{i}", "text": "DEADLY"}) for i in range(2)]
    corpus.write_text("\n".join([*lines[:20], deadly[0], *lines[20:40], deadly[1], *lines[40:]]) + "\n")

    def run(corpus: Path, output: Path) -> subprocess.CompletedProcess[str]:
        flags = [
            "--model",
            colours,
            "--input",
            corpus,
            "--output",
            output,
            "--max_failure_rate",
            "0.1",
            "--scores",
            "all",
        ]
        command = [sys.executable, "-m", "inference.beam_runner", *map(str, flags), "--runtime", "torch"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = tmp_path / "out"
    assert [run(corpus, out).returncode for _ in range(2)] == [-signal.SIGSEGV] * 2
    third = run(corpus, out)
    assert third.returncode == 0, third.stderr
    assert "62 lines = 60 predicted + 2 failed + 0 blank" in third.stdout
    failures = rows_of(out, "failures")
    assert [(row["id"], row["line"], row["reason"]) for row in failures] == [
        ("x0", 21, "process_ended"),
        ("x1", 42, "process_ended"),
    ]
    assert not (out / "attempts").exists()
    assert run(harmless, tmp_path / "harmless").returncode == 0
    rows, expected = rows_of(out), rows_of(tmp_path / "harmless")
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert [row["colours"]["labels"] for row in rows] == [row["colours"]["labels"] for row in expected]


@pytest.mark.slow
def test_a_slice_that_was_only_interrupted_has_the_same_bytes(
    tmp_path: Path, colours: Path, corpus: Path, label: Callable[..., Path]
) -> None:
    """A person, not a document, killed the run twice."""
    flags = ("--model", colours, "--input", corpus, "--slice_mb", "0.005", "--scores", "all", "--runtime", "torch")
    whole = label(*flags)
    again = label(*flags)
    lost = min((again / "receipts").iterdir())
    lost.unlink()
    options = RunOptions(str(again), 0, ScoringOptions(("m",)), run=identity_of(again))
    for _ in range(2):
        sink.begin_attempt(options, without_run(lost.name).removesuffix(".json"))
    label(*flags, output=again)
    assert contents(again) == contents(whole)
    assert not (again / "attempts").exists()

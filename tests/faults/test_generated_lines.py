"""Test that a run accounts for every faulty line, and that no line ends it."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import environment
from inference.corpus import slices
from inference.corpus.records import DocumentRecipe, read_documents
from inference.runs import integrity
from models.text import CLEANING_STEPS, TextRecipe
from tests.faults.lines import generate

FLAGS = ("--max_failure_rate", 1, "--keep_fields", "extra")
DOCUMENT_RECIPE = DocumentRecipe((TextRecipe(cleaning=tuple(CLEANING_STEPS)),), keep_fields=("extra",))
TEXTS = st.text(st.characters(), max_size=50)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=20,
)
RECORDS = st.fixed_dictionaries({}, optional={"id": VALUES, "text": TEXTS | VALUES, "extra": VALUES})


def write(path: Path, count: int, seed: int) -> Path:
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in generate(count, seed))
    return path


def numbers_below(folder: Path) -> tuple[int, set[int]]:
    """Return the number of predictions, and the numbers of the lines that failed."""
    rows, failures = (
        [json.loads(line) for path in folder.glob(f"{name}/*") for line in path.read_bytes().splitlines()]
        for name in ("predictions", "failures")
    )
    failures = [failure["line"] for failure in failures]
    assert len(failures) == len(set(failures))
    return len(rows), set(failures)


def test_every_line_ends_as_a_prediction_a_failure_or_a_blank(
    tmp_path: Path, colours: Path, label: Callable[..., Path]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows the seed if the test fails
    corpus = write(tmp_path / "corpus.jsonl", 5_000, seed)
    run = label("--model", colours, "--input", corpus, *FLAGS)
    summary = json.loads((run / "summary.json").read_text())
    predicted, failed = numbers_below(run)
    lines = corpus.read_bytes().split(b"\n")[:-1]
    blank = sum(not line.strip() for line in lines)
    assert (summary["predicted"], summary["failed"], summary["blank"]) == (predicted, len(failed), blank)
    assert predicted + len(failed) + blank == 5_000
    assert predicted > 2_000
    assert not list(integrity.verify(str(run)))


@settings(max_examples=300)
@given(st.lists(RECORDS.map(lambda row: json.dumps(row).encode("utf-8", "surrogatepass")) | st.binary(), max_size=5))
def test_what_is_read_can_be_written(lines: list[bytes]) -> None:
    content = b"\n".join(lines)
    read = read_documents(slices.lines_in(content), "made.jsonl", DOCUMENT_RECIPE)
    assert read.lines == len(read.documents) + len(read.failures) + read.blank
    assert read.lines in (content.count(b"\n"), content.count(b"\n") + 1)
    for document in read.documents:
        assert document.id
        json.dumps([document.id, document.texts, document.kept_fields]).encode()  # encoding fails on surrogates
    for failure in read.failures:
        assert failure.reason
        assert len(failure.raw) <= 4 * 1024


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_thousand_lines_need_little_more_memory_than_twenty_thousand(tmp_path: Path, colours: Path) -> None:
    peaks = []
    for count in (20_000, 200_000):
        corpus, run = write(tmp_path / f"{count}.jsonl", count, 1), tmp_path / str(count)
        flags = ["--model", colours, "--input", corpus, "--output", run, "--slice_mb", 0.5, "--quiet", *FLAGS]
        peaks.append(environment.peak_memory([sys.executable, "-m", "inference.beam_runner", *map(str, flags)]))
        summary = json.loads((run / "summary.json").read_text())
        assert summary["lines"] == summary["predicted"] + summary["failed"] + summary["blank"] == count
        assert not list(integrity.verify(str(run)))
    assert peaks[1] < 1.25 * peaks[0]

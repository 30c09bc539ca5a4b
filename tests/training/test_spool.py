"""Texts and tokens lie in files: they come back as they were, and take no memory."""

import gc
import tracemalloc
import warnings
from pathlib import Path

import numpy as np

from tests.training.test_data import read, settings, write_jsonl
from training.spool import Texts, digest

SOME = ["", "one", "zwei \u2028 drei", "四", "half a pair \ud800", "a\0b", "\n"]


def test_texts_come_back_as_they_were() -> None:
    texts = Texts.of(SOME)
    assert [*texts] == SOME
    assert [texts[place] for place in range(-len(SOME), len(SOME))] == SOME * 2
    assert texts[2:5] == SOME[2:5]
    assert texts[5:] == SOME[5:]
    assert [*texts.take(np.array([3, 0, 3]))] == ["四", "", "四"]
    assert len(Texts.of([])) == 0
    assert SOME[3] in texts


def test_texts_of_several_files_are_joined_and_taken_again() -> None:
    parts = [Texts.of(SOME[:3]), Texts.of([]), Texts.of(SOME[3:]).take(np.array([1, 0]))]
    joined = Texts.joined([Texts.joined(parts), Texts.of(["end"])])
    assert [*joined] == [*SOME[:3], SOME[4], SOME[3], "end"]
    assert [*joined.take(np.array([5, 4]))] == ["end", SOME[3]]


def test_a_file_is_closed_with_its_last_texts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        texts = Texts.of(SOME).take(np.array([1]))
        gc.collect()
        assert [*texts] == ["one"]
        del texts
        gc.collect()


def test_digests_differ_where_texts_do() -> None:
    assert len({digest(text) for text in SOME}) == len(SOME)
    assert digest("one") == digest("o" + "ne")


def test_a_corpus_that_was_read_takes_no_memory_for_its_texts(tmp_path: Path) -> None:
    size = 10_000
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{n} " + "x" * size, "label": "red"} for n in range(2_000)])
    tracemalloc.start()
    try:
        examples = read(settings(), tmp_path)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(examples) == 2_000
    assert used < 2_000 * size / 4

"""Tests the predictions of a slice: arrays in memory, and rows that are made and written some documents at a time."""

import io
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from inference.corpus.records import predictions_schema
from inference.runs import rows
from inference.runs.options import RunOptions
from inference.scoring import predictions as columns
from inference.scoring.options import ScoringOptions
from inference.scoring.predictions import ModelScores, Predictions
from inference.scoring.tally import Counts
from models.decision import Decision, decide, probabilities
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Manifest

KEPT = ({"year": 2001}, {"year": None}, {"year": "2003"}, {"year": [1, {"a": "é"}]})


def manifest(task: str, labels: int) -> Manifest:
    schema = LabelSchema(task=Task(task), names=tuple(f"label {i}" for i in range(labels)))
    decision = Decision(temperature=1.7, thresholds=(0.5,) * schema.thresholds_needed)
    return Manifest(labels=schema, text=TextRecipe(), decision=decision, pooling="mean", base_model="")


def some_logits(documents: int, labels: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 4, (documents, labels)).astype(np.float32)


def some_predictions(documents: int, labels: int, selection: str = "all", task: str = "multi_label") -> Predictions:
    scores = ModelScores.from_logits(manifest(task, labels), selection, some_logits(documents, labels))
    ids = [f"d{i}" for i in range(documents)]
    return Predictions(range(1, documents + 1), ids, [KEPT[i % 4] for i in range(documents)], {"m": scores})


def expected_rows(documents: int, labels: int, selection: str, task: str) -> list[dict[str, Any]]:
    """Make the rows document by document, without arrays."""
    of = manifest(task, labels)
    probs = np.round(probabilities(some_logits(documents, labels), of.labels.task, of.decision), 6)
    found = []
    for i, (row, chosen) in enumerate(zip(probs, decide(probs, of.labels, of.decision), strict=True)):
        by_score = sorted(range(labels), key=lambda index: -row[index])
        order = {"all": range(labels), "predicted": np.flatnonzero(chosen), "top:2": by_score[:2]}[selection]
        scores = [{"label": of.labels.names[j], "score": float(row[j])} for j in order]
        names = [of.labels.names[j] for j in np.flatnonzero(chosen)]
        found.append({"id": f"d{i}", **KEPT[i % 4], "m": {"labels": names, "scores": scores}})
    return found


def options(file_format: Any) -> RunOptions:
    return RunOptions("", 1, ScoringOptions(("m",)), keep_fields=("year",), file_format=file_format)


def test_a_float32_holds_a_probability_of_six_places_exactly() -> None:
    probs = np.round(np.arange(1_000_001) / 1_000_000, 6)
    of = manifest("multi_label", 1)
    scores = ModelScores(of, "all", probs.astype(np.float32)[:, None], np.arange(len(probs)))
    assert (scores.decided(slice(None))[0][:, 0] == probs).all()


@pytest.mark.parametrize(("task", "labels"), [("multi_label", 5), ("multi_class", 3), ("binary", 2)])
@pytest.mark.parametrize("selection", ["predicted", "all", "top:2"])
def test_rows_written_in_blocks_are_those_of_single_documents(
    monkeypatch: pytest.MonkeyPatch, task: str, labels: int, selection: str
) -> None:
    expected = expected_rows(37, labels, selection, task)
    monkeypatch.setattr(columns, "SCORES_AT_ONCE", 40)
    with tempfile.SpooledTemporaryFile(1000) as file:
        rows.write(some_predictions(37, labels, selection, task), options("jsonl"), file)
        file.seek(0)
        assert file.read() == b"".join(orjson.dumps(row) + b"\n" for row in expected)
    for row in expected:
        year = row["year"]
        row["year"] = year if year is None or isinstance(year, str) else orjson.dumps(year).decode()
    with tempfile.SpooledTemporaryFile(1000) as file:
        rows.write(some_predictions(37, labels, selection, task), options("parquet"), file)
        written = pq.ParquetFile(file)
        assert written.num_row_groups == -(-37 // (40 // labels))
        schema = predictions_schema(["year"], ["m"])
        assert written.read().equals(pa.Table.from_pylist(expected, schema=schema))
        assert written.schema_arrow.equals(schema)


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_no_predictions_are_an_empty_file(file_format: str) -> None:
    file = io.BytesIO()
    rows.write(some_predictions(0, 3), options(file_format), file)
    assert file.getvalue() == b"" if file_format == "jsonl" else pq.read_table(file).num_rows == 0


def test_counts_of_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted() -> Counts:
        counts, scores = Counts(), some_predictions(50, 5).by_model["m"]
        counts.count_labels("m", scores.manifest.labels.names, scores.all_decided())
        return counts

    whole = counted()
    monkeypatch.setattr(columns, "SCORES_AT_ONCE", 35)
    assert counted() == whole
    assert sum(whole.scores["m"]["label 0"]) == 50


def test_merged_predictions_keep_every_document() -> None:
    alone = [some_predictions(count, 3) for count in (2, 0, 5)]
    merged = columns.merged(alone)
    assert list(merged) == [prediction for part in alone for prediction in part]
    assert len(merged) == 7


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_memory_is_bounded_by_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    """The 200,000 scores are 0.8 MB as float32. As Python objects they took 40 MB."""
    monkeypatch.setattr(columns, "SCORES_AT_ONCE", 20_000)
    logits = some_logits(200, 1000)
    tracemalloc.start()
    try:
        scores = ModelScores.from_logits(manifest("multi_label", 1000), "all", logits)
        predictions = Predictions(range(200), ["d"] * 200, [{"year": None}] * 200, {"m": scores})
        with (tmp_path / "rows").open("wb") as file:
            rows.write(predictions, options(file_format), file)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_the_threads_of_numpy_are_left_as_they_were() -> None:
    """Several threads of a process count labels at once."""
    blas = ThreadpoolController().select(user_api="blas")
    before = [library["num_threads"] for library in blas.info()]
    decided = np.zeros((50, 3)), np.ones((50, 3), bool)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Counts().count_labels("m", ["a", "b", "c"], [decided] * 20), range(40)))
    assert [library["num_threads"] for library in blas.info()] == before

"""The three names for Python code and notebooks: they give what a run gives."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference import Classifier, read_failures, read_predictions
from models.errors import UserError
from models.text import TextError
from tests.inference.conftest import rows_of, texts
from tests.tiny import tiny_model


def test_texts_in_memory_get_the_labels_and_scores_of_a_run(
    corpus: Path, colours: Path, label: Callable[..., Path]
) -> None:
    flags = ("--model", colours, "--input", corpus, "--scores", "all", "--precision", "fp32")
    rows = [row["colours"] for row in rows_of(label(*flags))]
    classifier = Classifier(str(colours), precision="fp32")
    assert classifier.labels == ("red", "green", "blue")
    assert classifier.label(texts(300)) == [tuple(row["labels"]) for row in rows]
    scores = classifier.score(texts(300))
    assert scores.shape == (300, 3)
    assert np.abs(scores - [[score["score"] for score in row["scores"]] for row in rows]).max() < 1e-5


def test_a_record_is_read_by_the_models_recipe(tmp_path: Path) -> None:
    classifier = Classifier(str(tiny_model(tmp_path / "m", fields=("title", "text"))), precision="fp32")
    records: list[dict[str, object]] = [{"title": "red", "text": "sky"}, {"title": "red", "other": 1}]
    assert classifier.score(records) == pytest.approx(classifier.score(["red\nsky", "red"]), abs=1e-5)
    assert classifier.label([]) == []
    assert classifier.score([]).shape == (0, 3)


def test_a_text_that_cannot_be_read_is_named(colours: Path) -> None:
    classifier = Classifier(str(colours))
    with pytest.raises(TextError, match=r"^texts\[1\]: nothing is left after cleaning$"):
        classifier.label(["red", " "])
    with pytest.raises(TextError, match=r"^texts\[0\]: none of the fields \['text'\] has a value$"):
        classifier.label([{"body": "red"}])
    with pytest.raises(TypeError, match="expected a list of texts"):
        classifier.label("red")


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_a_run_is_read_in_the_order_of_its_input(
    corpus: Path, colours: Path, offensive: Path, label: Callable[..., Path], file_format: str
) -> None:
    with corpus.open("a") as file:
        file.write("broken\n")
    flags = ("--model", colours, "--model", offensive, "--input", corpus, "--keep_fields", "year", "--slice_mb", 0.01)
    run = label(*flags, "--format", file_format, "--max_failure_rate", 1)
    predictions = read_predictions(str(run))
    names = ["id", "year", "colours_labels", "colours_scores", "offensive_labels", "offensive_scores"]
    assert predictions.columns.tolist() == names
    assert predictions["id"].tolist() == [f"d{i}" for i in range(300)]
    for labels, scores in zip(predictions["offensive_labels"], predictions["offensive_scores"], strict=True):
        assert list(labels) == list(scores)
    failures = read_failures(str(run))
    assert failures[["line", "reason", "raw"]].to_numpy().tolist() == [[301, "not_json", "broken"]]


def test_a_run_without_failures_has_an_empty_table(corpus: Path, colours: Path, label: Callable[..., Path]) -> None:
    failures = read_failures(str(label("--model", colours, "--input", corpus)))
    assert failures.columns.tolist() == ["file", "line", "id", "reason", "detail", "raw"]
    assert failures.empty


def test_an_unfinished_run_is_refused(corpus: Path, colours: Path, label: Callable[..., Path], tmp_path: Path) -> None:
    run = label("--model", colours, "--input", corpus)
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match="expected a finished run"):
        read_predictions(str(run))
    with pytest.raises(UserError, match="expected the folder of a run"):
        read_failures(str(tmp_path))


def test_a_run_that_lost_a_receipt_is_refused(corpus: Path, colours: Path, label: Callable[..., Path]) -> None:
    """Its rows would be missing without a word."""
    run = label("--model", colours, "--input", corpus, "--slice_mb", 0.01)
    receipt = next((run / "receipts").iterdir())
    receipt.write_bytes(receipt.read_bytes().replace(b"predicted", b"Predicted"))
    for read in (read_predictions, read_failures):
        with pytest.raises(UserError, match="whole ones; `labelbeam verify"):
            read(str(run))


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, inference; print([name for name in ('torch', 'apache_beam', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

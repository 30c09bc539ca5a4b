"""Test that an int8 variant is proved on other documents than it was made from, and refused if F1 falls."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import optimize
from inference.scoring import conversion_folder, converters, quantization
from inference.scoring.conversion_folder import FOLDER, OPENVINO, PROOF
from models import hardware, trained_model, weights
from tests.inference.conftest import rows_of, texts, write_corpus
from tests.tiny import tiny_model

pytest.importorskip("nncf")
pytestmark = [
    pytest.mark.skipif(not hardware.has_int8(), reason="the processor has no int8 products"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the converters raise these
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Give a file of 600 documents, each with up to three labels."""
    labels = [[name for name in ("red", "green", "blue") if name in text.split()[:3]] for text in texts(600)]
    rows = [{"text": text, "labels": names} for text, names in zip(texts(600), labels, strict=True)]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_others_log_is_still_heard_after_a_model_was_quantized(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, levels = logging.getLoggerClass(), [handler.level for handler in logging.getLogger().handlers]
    batch = (np.full((2, 8), 5), np.ones((2, 8), np.int64))
    converters.quantize(weights.load(model), [batch, batch], tmp_path / "int8")
    assert logging.getLoggerClass() is kind
    assert [handler.level for handler in logging.getLogger().handlers] == levels
    logging.getLogger("inference.later").warning("a warning")
    assert caplog.messages[-1] == "a warning"


def int8_folder(model: Path) -> Path:
    return conversion_folder.path_of(model, conversion_folder.int8(trained_model.read_manifest(model)))


def test_the_variant_is_written_with_its_proof_and_used(
    tmp_path: Path,
    model: Path,
    labelled: Path,
    label: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(quantization, "MAX_F1_FALL", 1.0)  # the F1 of a random model says nothing
    assert optimize.main(["--model", str(model), "--data", str(labelled)]) == 0
    assert "300 documents: F1 0." in capsys.readouterr().out
    folder = int8_folder(model)
    proof = json.loads((folder / PROOF).read_bytes())
    assert proof["documents"] == 300
    assert 0.5 < proof["agreement"] <= 1
    assert 0 < proof["largest_difference"] < 0.3
    assert "i8" in (folder / OPENVINO).read_text()
    trained_model.verify(model)

    corpus = write_corpus(tmp_path / "corpus.jsonl", 100)
    exact, small = (
        rows_of(label("--model", model, "--input", corpus, "--scores=all", f"--precision={precision}"))
        for precision in ("fp32", "int8")
    )
    scores = [np.array([[s["score"] for s in row["tiny"]["scores"]] for row in rows]) for rows in (exact, small)]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.3

    again = tmp_path / "labelled.parquet"  # training.prepare writes Parquet; the new variant replaces the first
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), again)
    assert optimize.main(["--model", str(model), "--data", str(again)]) == 0
    before = {key: value for key, value in proof.items() if "per_second" not in key}
    assert before.items() <= json.loads((folder / PROOF).read_bytes()).items()


def test_a_variant_whose_f1_falls_is_not_written(
    model: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantization, "MAX_F1_FALL", -1.0)
    assert optimize.main(["--model", str(model), "--data", str(labelled)]) == 2
    assert "int8 refused: F1 fell from 0." in capsys.readouterr().err
    assert not int8_folder(model).exists()
    assert not [path for path in (model / FOLDER).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("content", "flags", "sentence"),
    [
        ('{"text": "a", "labels": ["red"]}\n' * 400, [], "expected at least 500 labelled documents"),
        (
            '{"text": "a", "labels": ["violet"]}\n' * 600,
            [],
            "field 'labels': expected labels of red, green, blue, found",
        ),
        ('{"text": "a"}\n' * 600, [], "expected labelled documents, found none (no field 'labels')"),
        ('{"title": "a", "labels": ["red"]}\n' * 600, [], "expected labelled documents, found none (no_text)"),
        ("", ["--label_field", "x", "--max_documents", "0"], "expected a number greater than 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, model: Path, content: str, flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(content)
    assert optimize.main(["--model", str(model), "--data", str(data), *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_int8_without_a_variant_is_refused_at_launch(
    model: Path, corpus: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    label("--model", model, "--input", corpus, "--precision=int8", expect=2)
    assert "has no int8 variant of these weights" in capsys.readouterr().err

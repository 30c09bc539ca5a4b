"""Long texts are read alike in training, in a run, after a kill and in every runtime, and more of them counts."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from inference import beam_runner
from inference.classifier import Classifier
from models import tokenizing, trained_model, weights
from models.decision import probabilities
from models.text import TextRecipe
from tests.inference.conftest import rows_of
from tests.training.conftest import COLOURS, write_rows
from training import measurement, train

pytestmark = [pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")]

FILLER = ("the", "sky", "is", "of", "a", "and", "in", "grass", "rose")


def long_rows(place: float, count: int = 260) -> list[dict[str, Any]]:
    """Return texts of 50 to 90 words, whose colours stand at a place from 0 (beginning) to 1 (end)."""
    chance = random.Random(0)
    rows = []
    for number in range(count):
        words = chance.choices(FILLER, k=chance.randint(50, 90))
        colours = [colour for colour in COLOURS if chance.random() < 0.5]
        words[int(place * len(words)) : int(place * len(words))] = colours
        rows.append({"id": f"d{number}", "text": " ".join(words), "colours": colours})
    return rows


@pytest.fixture
def learn(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., float]:
    """Return a function that trains on such texts, of which 16 tokens fit the network, and returns the macro-F1."""

    def run(name: str, place: float, *flags: str) -> float:
        write_rows(tmp_path / "rows.jsonl", long_rows(place))
        config = write_config(
            data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}\nnear_duplicate = 1.0',
            labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
            text="max_tokens = 16\nwindows = 8",
            model=f'base = "{base}"\npooling = "mean"',
            training="epochs = 8\nbatch_size = 16\nlearning_rate = 1e-2",
        )
        words = [str(config), "--data_dir", str(tmp_path), "--output", str(tmp_path / name), "--set", *flags]
        assert train.main(words) == 0
        found: float = trained_model.verify(tmp_path / name).metrics["test"]["macro_f1"]
        return found

    return run


def test_what_stands_at_the_end_is_read_by_head_and_tail(learn: Callable[..., float]) -> None:
    assert learn("head", 1.0, "text.long=head") < 0.8
    assert learn("head_tail", 1.0, "text.long=head_tail") > 0.95


def test_what_stands_in_the_middle_is_read_in_windows(learn: Callable[..., float]) -> None:
    assert learn("head_tail", 0.5, "text.long=head_tail") < 0.8
    assert learn("windows_max", 0.5, "text.long=windows_max", "training.epochs=20") > 0.95


@pytest.mark.parametrize(
    "long",
    [
        pytest.param("head_tail", marks=pytest.mark.slow),
        "windows_mean",
        pytest.param("windows_max", marks=pytest.mark.slow),
    ],
)
def test_a_run_scores_as_the_evaluation_did(long: str, tmp_path: Path, learn: Callable[..., float]) -> None:
    """By OpenVINO and by torch, from the command and in Python, and a killed run goes on."""
    learn("m", 0.5, f"text.long={long}", "training.epochs=1")
    loaded = weights.load(tmp_path / "m")
    rows = [*long_rows(0.5, 60), {"id": "short", "text": "red", "colours": []}]
    texts = [str(row["text"]) for row in rows]
    logits = measurement.score(loaded.network, loaded.tokenizer, texts, loaded.manifest.text)
    expected = probabilities(logits, loaded.manifest.labels.task, loaded.manifest.decision)
    for runtime in ("torch", "openvino"):
        found = Classifier(str(tmp_path / "m"), runtime=runtime, precision="fp32", device="cpu").score(texts)
        assert np.abs(found - expected).max() < 1e-5
    write_rows(tmp_path / "corpus.jsonl", rows)
    words = [
        "--model",
        str(tmp_path / "m"),
        "--input",
        str(tmp_path / "corpus.jsonl"),
        "--output",
        str(tmp_path / "run"),
    ]
    words += ["--scores=all", "--precision=fp32", "--slice_mb=0.005", "--runner=FnApiRunner"]
    assert beam_runner.main(words) == 0
    scores = {row["id"]: [one["score"] for one in row["m"]["scores"]] for row in rows_of(tmp_path / "run")}
    np.testing.assert_allclose([scores[row["id"]] for row in rows], expected, atol=1e-5)

    receipts = sorted((tmp_path / "run" / "receipts").iterdir())
    summary = json.loads((tmp_path / "run" / "summary.json").read_bytes())
    assert len(receipts) > 1
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "predictions").iterdir()}
    receipts[0].unlink()
    (tmp_path / "run" / "summary.json").unlink()
    assert beam_runner.main(words) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "predictions").iterdir()} == before
    truncated = summary["truncated"]["m"]
    assert truncated == 0 if long.startswith("windows") else truncated > 50


@pytest.mark.parametrize("long", ["head", "head_tail", "windows_mean"])
def test_many_texts_are_read_in_batches_and_alike(long: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [str(row["text"]) for row in long_rows(0.5, 25)]
    recipe = TextRecipe.model_validate({"max_tokens": 16, "long": long})
    _, whole, starts = measurement.read(tokenizer, texts, recipe)
    monkeypatch.setattr(tokenizing, "AT_ONCE", 7)
    _, parts, batch_starts = measurement.read(tokenizer, texts, recipe)
    assert parts.ids.tolist() == whole.ids.tolist()
    assert parts.starts.tolist() == whole.starts.tolist()
    assert batch_starts.tolist() == starts.tolist()
    assert len(starts) == len(texts) + 1

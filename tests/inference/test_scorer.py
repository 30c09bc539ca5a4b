"""Test that scores equal those of training's evaluation in any batches, truncation, and shared tokens."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.corpus.records import Document
from inference.scoring.logits import Logits
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from models import tokenizing, weights
from models.decision import decide, probabilities
from models.reading import Reading
from models.text import TextRecipe
from models.tokens import Tokens
from models.trained_model import Pooling
from tests.inference.conftest import texts
from tests.tiny import tiny_model
from training import measurement


def documents(count: int) -> list[Document]:
    return [Document(i + 1, f"d{i}", (text,), {}, b"") for i, text in enumerate(texts(count))]


@pytest.mark.parametrize(
    ("task", "names", "pooling"),
    [
        ("multi_label", ("red", "green", "blue"), "mean"),
        ("multi_class", ("red", "green", "blue"), "first"),
        ("binary", ("no", "yes"), "stock"),
    ],
)
def test_scores_and_labels_equal_those_of_the_evaluation(
    tmp_path: Path, task: str, names: tuple[str, ...], pooling: Pooling
) -> None:
    directory = tiny_model(tmp_path / "m", task=task, names=names, pooling=pooling)
    model = weights.load(directory)
    logits = measurement.score(model.network, model.tokenizer, texts(200), model.manifest.text)
    expected = probabilities(logits, model.manifest.labels.task, model.manifest.decision)
    options = ScoringOptions(models=(str(directory),), precision="fp32", scores="all")
    predictions, failures, _ = Scorer(options).score(documents(200))
    assert failures == []
    assert [p.id for p in predictions] == [f"d{i}" for i in range(200)]
    scores = np.array([[score for _, score in p.by_model["m"].scores] for p in predictions])
    assert np.abs(scores - expected).max() < 1e-5
    chosen = decide(expected, model.manifest.labels, model.manifest.decision)
    assert [p.by_model["m"].labels for p in predictions] == [
        tuple(name for name, is_chosen in zip(names, row, strict=True) if is_chosen) for row in chosen
    ]


def test_two_models_with_one_tokenizer_tokenise_once(colours: Path, offensive: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours), str(offensive))))
    with mock.patch.object(tokenizing, "encode", wraps=tokenizing.encode) as encode:
        _, _, counts = loaded.score(documents(50))
    assert encode.call_count == 1
    assert counts.truncated["offensive"] > counts.truncated["colours"] > 0
    assert counts.tokens["offensive"] < counts.tokens["colours"]


@pytest.mark.parametrize("max_tokens", [3, 4, 7, 20])
def test_shortening_tokens_is_what_the_tokenizer_does(colours: Path, max_tokens: int) -> None:
    tokenizer = weights.load(colours).tokenizer
    reading = Reading(tokenizing.of(tokenizer), TextRecipe(max_tokens=max_tokens))
    for text in texts(40):
        expected = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        assert reading.parts(Tokens.of([tokenizer(text)["input_ids"]]))[0].ids.tolist() == expected


def test_truncated_texts_are_counted_exactly(colours: Path) -> None:
    tokenizer = weights.load(colours).tokenizer
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts(100)]
    assert 32 in lengths  # a text of exactly 32 tokens is not truncated
    _, _, counts = Scorer(ScoringOptions(models=(str(colours),))).score(documents(100))
    assert counts.truncated["colours"] == sum(length > 32 for length in lengths)
    distinct = {tuple(ids) for ids in tokenizer(texts(100), truncation=True, max_length=32)["input_ids"]}
    assert counts.tokens["colours"] == sum(map(len, distinct)) <= counts.padded_tokens["colours"]
    assert counts.repeated["colours"] == 100 - len(distinct)


def test_no_documents_are_no_problem(colours: Path) -> None:
    predictions, failures, counts = Scorer(ScoringOptions(models=(str(colours),))).score([])
    assert (list(predictions), failures, counts.tokens) == ([], [], {"colours": 0})


def test_a_failing_batch_is_halved_until_the_document_is_alone(colours: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours),)))
    model = loaded._models[0]
    forward, sizes = model._forward, []

    def failing(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        sizes.append(len(ids))
        if 9 in (np.full(len(ids), ids.shape[1]) if mask is None else mask.sum(axis=1)):
            raise RuntimeError("nine")
        return forward(ids, mask)

    model._forward = failing
    predictions, failures, counts = loaded.score(documents(100))
    nine = [d.id for d in documents(100) if len(model.tokenizer.ids([d.texts[0]])[0]) == 9]
    assert [f.id for f in failures] == nine
    assert len(nine) > 0
    assert len(predictions) == 100 - len(nine)
    assert 1 in sizes


def test_what_ran_out_of_memory_once_is_not_tried_again(colours: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours),)))
    model, sizes = loaded._models[0], []
    forward, limit = model._forward, 100

    def small(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        sizes.append(ids.size)
        if ids.size > limit:
            raise torch.OutOfMemoryError("too much")
        return forward(ids, mask)

    model._forward = small
    predictions, failures, _ = loaded.score(documents(300))
    assert (len(predictions), failures) == (300, [])
    assert max(sizes) > limit
    sizes.clear()
    assert list(loaded.score(documents(300))[0]) == list(predictions)
    assert max(sizes) <= limit


def test_equal_texts_are_computed_once_and_all_labelled(colours: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours),), scores="all"))
    alone, _, before = loaded.score(documents(50))
    twice = [*documents(50), *documents(50)[::-1]]
    predictions, failures, counts = loaded.score(twice)
    assert failures == []
    assert [p.id for p in predictions] == [d.id for d in twice]
    expected = [prediction.by_model for prediction in alone]
    assert [prediction.by_model for prediction in predictions] == expected + expected[::-1]
    assert counts.tokens == before.tokens
    assert counts.repeated["colours"] == before.repeated["colours"] + 50


def test_as_many_batches_are_computed_at_once_as_there_are_threads(colours: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours),), scores="all", device="cpu", runtime="torch", threads=2))
    expected = list(loaded.score(documents(200))[0])
    model, lock, busy, together = loaded._models[0], threading.Lock(), [0], []
    forward = model._forward

    def counted(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        with lock:
            busy[0] += 1
            together.append(busy[0])
        time.sleep(0.001)
        try:
            return forward(ids, mask)
        finally:
            with lock:
                busy[0] -= 1

    model._forward = counted
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: list(loaded.score(documents(200))[0]), range(12)))
    assert all(predictions == expected for predictions in results)
    assert max(together) == 2

"""Scores: the same as training's evaluation, in order, whatever the batches; truncation; sharing of tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference import scorer
from inference.records import Document
from inference.scorer import Scorer, ScoringOptions
from models import trained_model
from models.decision import decide, probabilities
from tests.inference.conftest import texts
from tests.tiny import tiny_model
from training import evaluation


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
    tmp_path: Path, task: str, names: tuple[str, ...], pooling: str
) -> None:
    directory = tiny_model(tmp_path / "m", task=task, names=names, pooling=pooling)  # type: ignore[arg-type]
    model = trained_model.load(directory)
    logits = evaluation.score(model.network, model.tokenizer, texts(200), model.manifest.text.max_tokens)
    expected = probabilities(logits, model.manifest.labels.task, model.manifest.decision.temperature)
    options = ScoringOptions(models=(str(directory),), precision="fp32", scores="all")
    predictions, failures, _ = Scorer(options).score(documents(200))
    assert failures == []
    assert [p.id for p in predictions] == [f"d{i}" for i in range(200)]
    found = np.array([[score for _, score in p.by_model["m"].scores] for p in predictions])
    assert np.abs(found - expected).max() < 1e-5
    chosen = decide(expected, model.manifest.labels, model.manifest.decision.thresholds)
    assert [p.by_model["m"].labels for p in predictions] == [
        tuple(name for name, is_chosen in zip(names, row, strict=True) if is_chosen) for row in chosen
    ]


def test_two_models_with_one_tokenizer_tokenise_once(
    colours: Path, offensive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours), str(offensive))))
    calls = []
    original = scorer._tokenize
    monkeypatch.setattr(scorer, "_tokenize", lambda *args: calls.append(args) or original(*args))
    _, _, counts = loaded.score(documents(50))
    assert len(calls) == 1
    assert counts.truncated["offensive"] > counts.truncated["colours"] > 0
    assert counts.tokens["offensive"] < counts.tokens["colours"]


@pytest.mark.parametrize("max_tokens", [3, 4, 7, 20])
def test_shortening_tokens_is_what_the_tokenizer_does(colours: Path, max_tokens: int) -> None:
    tokenizer = trained_model.load(colours).tokenizer
    cut = scorer._cutter(tokenizer, max_tokens)
    for text in texts(40):
        expected = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        assert list(cut(tokenizer(text)["input_ids"])) == expected


def test_truncated_texts_are_counted_exactly(colours: Path) -> None:
    tokenizer = trained_model.load(colours).tokenizer
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts(100)]
    assert 32 in lengths  # a text that just fits is not truncated
    _, _, counts = Scorer(ScoringOptions(models=(str(colours),))).score(documents(100))
    assert counts.truncated["colours"] == sum(length > 32 for length in lengths)
    assert counts.tokens["colours"] == sum(min(length, 32) for length in lengths)


def test_no_documents_are_no_problem(colours: Path) -> None:
    predictions, failures, counts = Scorer(ScoringOptions(models=(str(colours),))).score([])
    assert (predictions, failures, counts.tokens) == ([], [], {"colours": 0})


def test_a_failing_batch_is_halved_until_the_document_is_alone(colours: Path) -> None:
    loaded = Scorer(ScoringOptions(models=(str(colours),)))
    model = loaded._models[0]
    forward, sizes = model._forward, []

    def failing(tokens: list[list[int]]) -> object:
        sizes.append(len(tokens))
        if any(len(ids) == 9 for ids in tokens):
            raise torch.OutOfMemoryError("nine")
        return forward(tokens)

    model._forward = failing  # type: ignore[assignment,method-assign]
    predictions, failures, counts = loaded.score(documents(100))
    nine = [d.id for d in documents(100) if len(model.tokenizer(d.texts[0])["input_ids"]) == 9]
    assert [f.id for f in failures] == nine
    assert len(nine) > 0
    assert len(predictions) == 100 - len(nine)
    assert 1 in sizes


def test_auto_precision_is_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(scorer, "has_bf16", lambda _, has=has: has)
        assert scorer.resolve_precision("auto", cpu) is expected
    assert scorer.resolve_precision("bf16", cpu) is torch.bfloat16

"""Public checkpoints become trained models with the same logits, and anything but a classifier is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from models import network as networks
from models import trained_model, weights
from models.labels import Task
from models.text import TextRecipe
from tests.tiny import tiny_config, tiny_tokenizer
from training import measurement, to_state_dict

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["the rose is red", "grass", "the sky is blue and the grass is green in the sky"]


def network(architecture: str, vocabulary: int, **extra: Any) -> Any:
    torch.manual_seed(0)
    if architecture == "distilbert":
        config = DistilBertConfig(
            vocab_size=vocabulary, dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=64, **extra
        )
        return DistilBertForSequenceClassification(config)
    if architecture == "roberta":
        config = RobertaConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=64, max_position_embeddings=66, pad_token_id=0,
            **SIZES, **extra,
        )  # fmt: skip
        return RobertaForSequenceClassification(config)
    return BertForSequenceClassification(tiny_config(vocabulary, **extra))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves a random checkpoint, like a downloaded one, and returns its folder."""

    def save(architecture: str = "bert", *, kept_as: str = "safetensors", **extra: Any) -> Path:
        folder = tmp_path / "checkpoint"
        tokenizer = tiny_tokenizer()
        model = network(architecture, len(tokenizer), **extra)
        with torch.no_grad():  # larger weights make labels differ from text to text
            for parameter in model.classifier.parameters():
                parameter.normal_()
        model = model.half() if kept_as == "half" else model
        model.save_pretrained(folder, max_shard_size="20KB" if kept_as == "shards" else "1GB")
        tokenizer.save_pretrained(folder)
        if kept_as == "bin":
            (folder / "model.safetensors").unlink()
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
        return folder

    return save


def convert(folder: Path, *flags: str) -> int:
    return to_state_dict.main([str(folder), "--output", str(folder.parent / "model"), *flags])


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("kept_as", ["safetensors", "bin", "shards", "half"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_the_same_logits_and_labels_as_the_checkpoint(
    checkpoint: Callable[..., Path], architecture: str, kept_as: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {0: "bad", 1: "fair", 2: "good"}
    folder = checkpoint(architecture, kept_as=kept_as, id2label=names, label2id={n: i for i, n in names.items()})
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (kept_as == "shards")
    assert convert(folder) == 0
    model = weights.load(folder.parent / "model")
    assert model.manifest.labels.task is Task.MULTI_CLASS
    assert model.manifest.labels.names == ("bad", "fair", "good")
    assert model.manifest.text.max_tokens == {"bert": 128, "distilbert": 64, "roberta": 65}[architecture]
    found = measurement.score(model.network, model.tokenizer, TEXTS, TextRecipe(max_tokens=32))
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    original = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for row, text in zip(found, TEXTS, strict=True):
        encoded = model.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            expected = original(encoded["input_ids"], encoded["attention_mask"]).logits[0]
        assert row == pytest.approx(expected.numpy(), abs=1e-5)
    assert "the same logits as the checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "flags", "task", "names"),
    [
        ({"num_labels": 2}, [], "binary", ("LABEL_0", "LABEL_1")),
        ({"num_labels": 2}, ["--names", "no,yes"], "binary", ("no", "yes")),
        ({"num_labels": 2}, ["--task", "multi_class"], "multi_class", ("LABEL_0", "LABEL_1")),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, [], "multi_label", None),
        ({"num_labels": 3}, ["--task", "multi_label", "--names", "a, b,c"], "multi_label", ("a", "b", "c")),
        ({"num_labels": 1}, ["--task", "multi_label", "--names", "toxic"], "multi_label", ("toxic",)),
    ],
)
def test_task_and_names(
    checkpoint: Callable[..., Path],
    extra: dict[str, Any],
    flags: list[str],
    task: str,
    names: tuple[str, ...] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint(**extra)
    assert convert(folder, *flags, "--text_fields", "title,abstract", "--max_tokens", "40") == 0
    manifest = trained_model.verify(folder.parent / "model")
    assert manifest.labels.task == task
    assert manifest.labels.names == (names or tuple(f"LABEL_{i}" for i in range(extra["num_labels"])))
    assert manifest.decision.thresholds == (0.5,) * manifest.labels.thresholds_needed
    assert manifest.text.fields == ("title", "abstract")
    assert manifest.text.max_tokens == 40
    said = capsys.readouterr().out
    assert ("--names A,B,... gives them names" in said) == ("--names" not in flags)
    assert ("does not say its task" in said) == ("--task" not in flags and "problem_type" not in extra)


@pytest.mark.parametrize(
    ("extra", "flags", "sentence"),
    [
        ({"num_labels": 3}, ["--names", "a,b"], "--names: expected 3 names, one for each output, found 2: a, b."),
        ({"num_labels": 3}, ["--task", "binary"], "--task binary: a binary model needs two label names"),
        ({"num_labels": 1}, [], "as for regression: expected a score for each label"),
        ({"num_labels": 3}, ["--max_tokens", "129"], "the checkpoint reads 128 at most; lower it"),
        ({"num_labels": 3}, ["--max_tokens", "0"], "--max_tokens: Input should be greater than or equal to 3"),
        ({"num_labels": 3}, ["--text_fields", ","], "--text_fields: Tuple should have at least 1 item"),
        ({"num_labels": 3}, ["--cleaning", "nfc,lowercase"], "--cleaning: unknown cleaning steps ['lowercase']"),
        (
            {"num_labels": 3},
            ["--task", "ranking"],
            "--task: expected one of binary, multi_class, multi_label; found 'ranking'.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    checkpoint: Callable[..., Path],
    extra: dict[str, Any],
    flags: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint(**extra)
    assert convert(folder, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (folder.parent / "model").exists()


def test_what_is_no_classifier_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=3)
    tokenizer = tiny_tokenizer()
    BertModel(tiny_config(len(tokenizer))).save_pretrained(folder)
    assert convert(folder) == 2
    assert "found none that fit for classifier.bias, classifier.weight" in capsys.readouterr().err

    assert to_state_dict.main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "m")]) == 2
    assert "expected a checkpoint's folder or a hub name, found no folder" in capsys.readouterr().err

    checkpoint(num_labels=3)
    edit(folder / "config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    assert convert(folder) == 2
    assert "2 outputs, found none that fit for classifier.bias, classifier.weight" in capsys.readouterr().err

    checkpoint(num_labels=3)
    for file in folder.glob("*token*"):
        file.unlink()
    assert convert(folder) == 2
    assert "has no tokenizer that can be loaded (the tokenizer's files are missing)" in capsys.readouterr().err


def test_numbers_of_labels_that_do_not_start_at_nought_want_names(
    checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=2)
    edit(folder / "config.json", id2label={"1": "no", "2": "yes"}, label2id={"no": 1, "yes": 2})
    assert convert(folder) == 2
    assert "distinct and not empty, found ['', 'no']; give another --task or --names." in capsys.readouterr().err
    assert convert(folder, "--names", "no,yes") == 0
    assert trained_model.read_manifest(folder.parent / "model").labels.names == ("no", "yes")


def test_a_checkpoint_with_code_of_its_own_is_refused_without_a_question(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=3)
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert convert(folder) == 2
    assert "contains custom code" in capsys.readouterr().err
    assert not (folder / "ran").exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=3, kept_as="bin")
    torch.save({"classifier.weight": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert convert(folder) == 2
    assert "cannot be loaded as a sequence classifier" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_what_is_there_stays_unless_it_is_to_be_replaced(
    checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=3)
    assert convert(folder) == 0
    before = trained_model.fingerprint(folder.parent / "model")
    assert convert(folder, "--names", "a,b,c") == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert trained_model.fingerprint(folder.parent / "model") == before
    assert convert(folder, "--names", "a,b,c", "--overwrite") == 0
    assert trained_model.read_manifest(folder.parent / "model").labels.names == ("a", "b", "c")


@pytest.mark.parametrize("reason", ["other logits", "no padding"])
def test_a_model_that_fails_the_comparison_replaces_nothing(
    checkpoint: Callable[..., Path], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(num_labels=3)
    assert convert(folder) == 0
    before = trained_model.fingerprint(folder.parent / "model")
    if reason == "no padding":
        edit(folder / "tokenizer_config.json", pad_token=None)
        sentence = "cannot read texts of different lengths at once"
    else:
        as_saved = networks.full_precision_state
        monkeypatch.setattr(
            networks,
            "full_precision_state",
            lambda network: {name: tensor * 1.01 for name, tensor in as_saved(network).items()},
        )
        sentence = "expected the checkpoint's logits from the trained model"
    assert convert(folder, "--overwrite") == 2
    assert sentence in capsys.readouterr().err
    assert trained_model.fingerprint(folder.parent / "model") == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoint", "model"]

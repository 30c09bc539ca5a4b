"""What a training starts from, and what it says of a base model that cannot be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertForSequenceClassification

from models import trained_model
from tests.tiny import tiny_config, tiny_tokenizer
from tests.training.conftest import toy_rows

pytestmark = [pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")]


def test_a_model_of_every_epoch(tmp_path: Path, start: Callable[..., int]) -> None:
    """Each is a trained model of its own, and the best one is the model itself."""
    assert start("binary", tmp_path / "m", "--set", "training.epochs=3", "training.keep_epochs=true") == 0
    folder = tmp_path / "m.epochs"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3", "best_model"]
    hashes = {name: trained_model.verify(folder / name).files["model.pth"] for name in ("1", "2", "3", "best_model")}
    best = trained_model.verify(tmp_path / "m")
    assert hashes["best_model"] == best.files["model.pth"]
    assert best.files["model.pth"] in [hashes[name] for name in ("1", "2", "3")]
    assert len(set(hashes.values())) == 3
    history = [row["eval_macro_f1"] for row in best.training["history"] if "eval_macro_f1" in row]
    for epoch, logged in zip(("1", "2", "3"), history, strict=True):
        assert trained_model.read_manifest(folder / epoch).metrics["validation"]["macro_f1"] == pytest.approx(logged)
    assert not (tmp_path / "m.checkpoints").exists()
    assert len(best.training["seconds_of_epochs"]) == 3
    assert best.training["seconds_of_saving"] > 0
    assert sum(best.training["seconds_of_epochs"]) <= best.training["seconds"] + 0.5


def test_only_models_of_evaluations_are_replaced(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder beside the output may hold something of the user's."""
    short = ("--set", "training.epochs=1", "training.keep_epochs=true")
    theirs = tmp_path / "m.epochs" / "1" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    for more in ((), ("--overwrite",)):
        assert start("binary", tmp_path / "m", *more, *short) == 2
        assert "expected no others there, found '1'" in capsys.readouterr().err
        assert theirs.read_text() == "mine"
    shutil.rmtree(theirs.parent)
    assert start("binary", tmp_path / "m", *short) == 0
    shutil.rmtree(tmp_path / "m")
    assert start("binary", tmp_path / "m", *short) == 2
    assert "holds models of an earlier training" in capsys.readouterr().err
    assert start("binary", tmp_path / "m", "--overwrite", *short) == 0
    assert sorted(path.name for path in (tmp_path / "m.epochs").iterdir()) == ["1", "best_model"]


def test_fewer_documents_to_evaluate(tmp_path: Path, start: Callable[..., int]) -> None:
    short = ("--epochs=1", "--training.max_eval_samples=20")
    assert start("multi_label", tmp_path / "m", *short) == 0
    metrics = trained_model.read_manifest(tmp_path / "m").metrics
    assert (metrics["validation"]["documents"], metrics["test"]["documents"]) == (20, 20)


def test_a_classifier_with_other_labels_gets_a_new_head(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_tokenizer([row["text"] for row in toy_rows(8)])
    BertForSequenceClassification(tiny_config(len(tokenizer), num_labels=7)).save_pretrained(tmp_path / "seven")
    tokenizer.save_pretrained(tmp_path / "seven")
    other = ("--epochs=1", "--set", f"model.base={tmp_path / 'seven'}", "model.pooling=stock")
    assert start("multi_label", tmp_path / "m", *other) == 0
    assert "classifies 7 labels; a new head of 3 replaces its own" in capsys.readouterr().out


def test_a_model_that_brings_code_is_refused(
    tmp_path: Path, base: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    coded = tmp_path / "coded"
    shutil.copytree(base, coded)
    config = json.loads((coded / "config.json").read_bytes())
    config |= {"model_type": "other", "auto_map": {"AutoConfig": "c.C", "AutoModel": "m.M"}}
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "c.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert start("multi_label", tmp_path / "m", "--set", f"model.base={coded}") == 2
    assert "brings code of its own, which is never run (trust_remote_code is off)" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()

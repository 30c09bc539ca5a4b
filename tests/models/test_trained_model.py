"""Test that a model's directory loads as it was saved, and that messages name every kind of damage."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import seals, trained_model, weights
from models.decision import Decision, probabilities
from models.errors import ModelError
from models.labels import Task
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("m") / "colours")


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "colours"))


def test_what_is_saved_is_loaded(model: Path, tmp_path: Path) -> None:
    loaded = weights.load(model)
    assert loaded.name == "colours"
    assert not loaded.network.training
    assert loaded.manifest.labels.names == ("red", "green", "blue")
    state = torch.load(model / "model.pth", weights_only=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.network.state_dict().items())
    assert sorted(loaded.manifest.files) == sorted(f.name for f in model.iterdir() if f.name != "model.json")


def test_equal_models_have_equal_fingerprints(tmp_path: Path) -> None:
    first, second, other = (tiny_model(tmp_path / n / "m", seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert trained_model.fingerprint(first) == trained_model.fingerprint(second) != trained_model.fingerprint(other)
    tokenizers = [trained_model.tokenizer_fingerprint(trained_model.read_manifest(m)) for m in (first, other)]
    assert tokenizers[0] == tokenizers[1]


def edit(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = model / "model.json"
    content = json.loads(path.read_text())
    del content["seal"]
    change(content)
    path.write_bytes(seals.seal(content))


def unsealed(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and leave its seal, as an accident would."""
    seal = json.loads((model / "model.json").read_text())["seal"]
    edit(model, change)
    content = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**content, "seal": seal}))


def rehash(model: Path, file: str) -> None:
    """Make the manifest agree with a file that was changed, as an attacker would."""
    edit(model, lambda manifest: manifest["files"].update({file: trained_model.sha256(model / file)}))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (shutil.rmtree, "expected a directory written by"),
    "no manifest": (lambda m: (m / "model.json").unlink(), "model.json is missing"),
    "manifest cut short": (lambda m: (m / "model.json").write_text('{"format_version": 1,'), "model.json is not valid"),
    "newer format": (
        lambda m: edit(m, lambda c: c.update(format_version=3, new_key=1)),
        "expected at most format 2, found format 3",
    ),
    "unknown key": (lambda m: edit(m, lambda c: c.update(labelz=1)), "labelz"),
    "no weights": (lambda m: (m / "model.pth").unlink(), "model.pth is missing"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "changed weights": (lambda m: flip_a_byte(m / "model.pth"), "model.pth is not the file that was saved"),
    "changed config": (lambda m: flip_a_byte(m / "config.json"), "config.json is not the file that was saved"),
    "a letter of a label": (
        lambda m: unsealed(m, lambda c: c["labels"].update(names=["x", *c["labels"]["names"][1:]])),
        "its seal belongs to other content",
    ),
    "a threshold": (
        lambda m: unsealed(m, lambda c: c["decision"].update(thresholds=[0.51, 0.5, 0.5])),
        "its seal belongs to other content",
    ),
    "fewer labels": (
        lambda m: edit(m, lambda c: (c["labels"].update(names=["a", "b"]), c["decision"].update(thresholds=[0.5] * 2))),
        "model.json names 2 labels, but",
    ),
    "thresholds missing": (
        lambda m: edit(m, lambda c: c["decision"].update(thresholds=[])),
        "has 3 thresholds, found 0",
    ),
    "path outside": (lambda m: edit(m, lambda c: c["files"].update({"../../etc/passwd": "0"})), "plain names inside"),
    "weights unlisted": (lambda m: edit(m, lambda c: c["files"].pop("model.pth")), "does not list model.pth"),
    "duplicate labels": (lambda m: edit(m, lambda c: c["labels"].update(names=["a", "a", "b"])), "must be distinct"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(model: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(model)
    with pytest.raises(ModelError) as error:
        weights.load(model)
    assert message in str(error.value)
    assert str(model) in str(error.value)


def replace_weights(model: Path, content: object) -> None:
    torch.save(content, model / "model.pth")
    edit(model, lambda c: c["files"].update({"model.pth": trained_model.sha256(model / "model.pth")}))


def test_weights_that_do_not_fit_are_refused(model: Path) -> None:
    state = torch.load(model / "model.pth", weights_only=True)
    replace_weights(model, {**state, "extra": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"model\.pth does not fit config\.json.*extra"):
        weights.load(model)
    del state["head.bias"]
    replace_weights(model, state)
    with pytest.raises(ModelError, match=r"head\.bias"):
        weights.load(model)


def test_a_pickle_that_would_run_code_is_refused(model: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    replace_weights(model, {"head.bias": Evil()})
    with pytest.raises(ModelError, match=r"model\.pth"):
        weights.load(model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}),
        ("config.json", {"auto_map": {"AutoModel": "own.Own", "AutoModelForSequenceClassification": "own.Own"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}),
    ],
    ids=["config", "network", "tokenizer"],
)
def test_code_of_a_model_never_runs(
    model: Path, file: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise transformers asks on the terminal whether to run it, and a pipe may answer."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (model / "own.py").write_text(f"import pathlib; pathlib.Path({str(model / 'ran')!r}).touch()")
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | changes))
    rehash(model, file)
    for use in (lambda: weights.load(model), lambda: weights.check_max_tokens(model, 16)):
        with contextlib.suppress(ModelError):
            use()
    assert not (model / "ran").exists()


def test_a_model_of_an_unknown_architecture_is_one_sentence(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"model_type": "own"}
    (model / "config.json").write_text(json.dumps(config))
    rehash(model, "config.json")
    with pytest.raises(ModelError, match=r"^Model '.*colours': expected an architecture of transformers, found"):
        weights.load(model)


def test_names_are_fit_for_columns() -> None:
    assert trained_model.model_name("/models/ai-2024.v2/") == "ai_2024_v2"
    assert trained_model.model_name("modèle") == "mod_le"
    assert trained_model.model_name("x" * 250) == "x" * 250
    names = [trained_model.model_name(name) for name in ("政治", "経済", "++", "/")]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"_*[0-9a-f]{12}", name) for name in names)


def test_a_model_of_format_1_has_one_temperature_and_no_bias(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m")
    edit(
        model,
        lambda content: content.update(format_version=1, decision={"temperature": 1.5, "thresholds": [0.3, 0.4, 0.5]}),
    )
    decision = trained_model.read_manifest(model).decision
    assert decision == Decision(temperature=1.5, thresholds=(0.3, 0.4, 0.5))
    logits = np.array([[1.0, -2.0, 0.5]])
    assert probabilities(logits, Task.MULTI_LABEL, decision) == pytest.approx(1 / (1 + np.exp(-logits / 1.5)))


@pytest.mark.parametrize("key", ["temperature", "bias"])
def test_a_decision_of_other_labels_is_refused(tmp_path: Path, key: str) -> None:
    model = tiny_model(tmp_path / "m")
    edit(model, lambda content: content["decision"].update({key: [1.0, 2.0]}))
    with pytest.raises(ModelError, match="expected a temperature and a bias for each label"):
        trained_model.read_manifest(model)

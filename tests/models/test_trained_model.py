"""A trained model's directory: what is saved is what is loaded, and every damage is found and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import network as networks
from models import trained_model
from models.errors import ModelError
from tests.tiny import tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "colours")


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("task", "names", "pooling"),
    [
        ("multi_label", ("red", "green", "blue"), "mean"),
        ("multi_class", ("red", "green", "blue"), "first"),
        ("binary", ("no", "yes"), "stock"),
    ],
)
def test_what_is_saved_is_what_is_loaded(
    tmp_path: Path, task: str, names: tuple[str, ...], pooling: networks.Pooling
) -> None:
    directory = tiny_model(tmp_path / "first one", task=task, names=names, pooling=pooling)
    loaded = trained_model.load(directory)
    assert loaded.name == "first_one"
    assert not loaded.network.training
    assert loaded.manifest.labels.names == names
    again = tmp_path / "second"
    config = trained_model.AutoConfig.from_pretrained(directory)
    trained_model.save(again, loaded.network, config, loaded.tokenizer, loaded.manifest)
    copy = trained_model.load(again)
    assert copy.manifest.files["model.pth"] == loaded.manifest.files["model.pth"]
    assert copy.manifest.model_dump(exclude={"files"}) == loaded.manifest.model_dump(exclude={"files"})
    tokens = loaded.tokenizer(["a red rose"], return_tensors="pt")
    with torch.inference_mode():
        expected = loaded.network(tokens["input_ids"], tokens["attention_mask"])
        assert torch.equal(copy.network(tokens["input_ids"], tokens["attention_mask"]), expected)


def test_the_directory_holds_plain_files_and_the_manifest_lists_all_others(model: Path) -> None:
    manifest = trained_model.verify(model)
    assert {file.name for file in model.iterdir()} == {*manifest.files, "model.json"}
    assert {"model.pth", "config.json", "tokenizer.json"} <= set(manifest.files)
    assert not [path for path in model.parent.iterdir() if path != model], "the staging folder is gone"


def test_saving_replaces_what_was_there_and_a_failed_save_leaves_it(model: Path) -> None:
    loaded = trained_model.load(model)
    config = trained_model.AutoConfig.from_pretrained(model)
    before = trained_model.fingerprint(model)

    class Broken:
        def save_pretrained(self, directory: Path) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        trained_model.save(model, loaded.network, config, Broken(), loaded.manifest)  # type: ignore[arg-type]
    assert trained_model.fingerprint(model) == before
    (model / "left_over.txt").write_text("old")
    trained_model.save(model, loaded.network, config, loaded.tokenizer, loaded.manifest)
    assert not (model / "left_over.txt").exists()
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_fingerprints_tell_models_and_tokenizers_apart(tmp_path: Path, model: Path) -> None:
    same, other, words = (tmp_path / name for name in ("same", "other", "words"))
    tiny_model(same)
    tiny_model(other, seed=1)
    tiny_model(words, vocabulary_from=["unheard-of"])
    prints = {path.name: trained_model.fingerprint(path) for path in (model, same, other, words)}
    assert prints["colours"] == prints["same"]
    assert len(set(prints.values())) == 3
    tokenizers = {
        path.name: trained_model.tokenizer_fingerprint(trained_model.read_manifest(path))
        for path in (model, other, words)
    }
    assert tokenizers["colours"] == tokenizers["other"] != tokenizers["words"]


@pytest.mark.parametrize("name", ["model.pth", "config.json", "tokenizer.json", "model.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        trained_model.load(model)


@pytest.mark.parametrize("name", ["model.pth", "config.json", "tokenizer.json"])
def test_one_changed_byte_is_named(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is not the file that was saved"):
        trained_model.load(model)


def test_every_problem_is_told_at_once(model: Path) -> None:
    (model / "model.pth").unlink()
    (model / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        trained_model.verify(model)
    assert "model.pth is missing" in str(caught.value)
    assert "config.json is not the file that was saved" in str(caught.value)


def test_labels_that_do_not_fit_the_head(model: Path) -> None:
    def one_more(content: dict[str, Any]) -> None:
        content["labels"]["names"].append("violet")
        content["decision"]["thresholds"].append(0.5)

    edit_manifest(model, one_more)
    with pytest.raises(ModelError, match=r"model\.json names 4 labels, but .*config\.json describes .*3 outputs"):
        trained_model.load(model)


def test_thresholds_that_do_not_fit_the_labels(model: Path) -> None:
    edit_manifest(model, lambda content: content["decision"]["thresholds"].pop())
    with pytest.raises(ModelError, match=r"model\.json is not valid: .*3 thresholds, found 2"):
        trained_model.read_manifest(model)


def test_weights_that_do_not_fit_the_architecture(model: Path) -> None:
    torch.save({"head.weight": torch.zeros(3, 32)}, model / "model.pth")
    digest = trained_model.sha256(model / "model.pth")
    edit_manifest(model, lambda content: content["files"].update({"model.pth": digest}))
    with pytest.raises(ModelError, match=r"model\.pth does not fit config\.json and model\.json"):
        trained_model.load(model)


def test_weights_that_would_run_code_are_not_unpickled(model: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (model / "ran",)

    torch.save({"head.weight": Attack()}, model / "model.pth")
    digest = trained_model.sha256(model / "model.pth")
    edit_manifest(model, lambda content: content["files"].update({"model.pth": digest}))
    with pytest.raises(ModelError, match=r"model\.pth does not fit"):
        trained_model.load(model)
    assert not (model / "ran").exists()


def test_a_newer_format_asks_for_an_upgrade(model: Path) -> None:
    edit_manifest(model, lambda content: content.update(format_version=99, something_new=1))
    with pytest.raises(ModelError, match=r"model\.json has format 99, .*upgrade"):
        trained_model.read_manifest(model)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_file_name_that_leads_elsewhere_is_refused(model: Path, name: str) -> None:
    edit_manifest(model, lambda content: content["files"].update({name: "0" * 64}))
    with pytest.raises(ModelError, match=r"model\.json is not valid: .*plain names"):
        trained_model.load(model)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}', "\u0000"])
def test_a_manifest_that_is_no_manifest_is_named(model: Path, content: str) -> None:
    (model / "model.json").write_text(content)
    with pytest.raises(ModelError, match=r"model\.json is not valid"):
        trained_model.load(model)


def test_a_manifest_must_list_weights_and_configuration(model: Path) -> None:
    edit_manifest(model, lambda content: content["files"].pop("model.pth"))
    with pytest.raises(ModelError, match=r"model\.json does not list model\.pth"):
        trained_model.load(model)


def test_a_path_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found nothing"):
        trained_model.load(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="found a file"):
        trained_model.load(tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "name"), [("a/b-c.d", "b_c_d"), ("a/b/", "b"), ("a/b/../c", "c"), ("a/été", "_t_"), ("models/x_1", "x_1")]
)
def test_the_name_of_a_model_comes_from_its_directory(path: str, name: str) -> None:
    assert trained_model.model_name(path) == name

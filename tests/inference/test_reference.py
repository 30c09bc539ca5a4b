"""Test that a start needs torch only once, and that what is kept of it serves only the model it was made from."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from inference.scoring import conversion_folder, reference, starting
from inference.scoring.conversion_folder import FOLDER, MANIFEST, REFERENCE, TOKENIZER
from inference.scoring.runtimes import Runtime
from inference.scoring.verified_model import VerifiedModel
from models import paths, seals, tokenizing
from models.errors import ModelError
from models.tokenizing import Tokenizer
from models.trained_model import MANIFEST as MODEL
from tests.inference.conftest import contents
from tests.tiny import tiny_model

pytest.importorskip("openvino")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the converter raises these


@pytest.fixture(scope="module")
def started_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that was started in OpenVINO."""
    directory = tiny_model(tmp_path_factory.mktemp("models") / "m")
    start(directory)
    return directory


@pytest.fixture
def model(tmp_path: Path, started_once: Path) -> Path:
    """Return a copy of the model that was started."""
    return Path(shutil.copytree(started_once, tmp_path / "m"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the directories of the models whose networks are loaded from now on."""
    loaded: list[str] = []
    load = vars(VerifiedModel)["trained"].func

    def counted(self: VerifiedModel) -> Any:
        loaded.append(self.directory)
        return load(self)

    monkeypatch.setattr(VerifiedModel, "trained", property(counted))
    return loaded


def start(directory: Path) -> Any:
    model = VerifiedModel(directory)
    return starting.start(Runtime("openvino", "fp32", "cpu", 1, ""), model, reference.of(model))


def folder_of(directory: Path) -> Path:
    (folder,) = (directory / FOLDER).glob("reference-*")
    return folder


def reseal(folder: Path, **change: Any) -> None:
    """Change the reference, and make a manifest that fits it."""
    content = json.loads((folder / REFERENCE).read_bytes()) | change
    (folder / REFERENCE).write_text(json.dumps(content))
    made = conversion_folder.Conversion.model_validate_json((folder / MANIFEST).read_bytes())
    conversion_folder.seal(folder, made)


COMMANDS = {
    "inference.run": ("--output", ["torch", "transformers", "apache_beam", "pandas"]),
    "inference.beam_runner": ("--output", ["torch", "transformers"]),
    "inference.worker": ("--output", ["torch", "transformers"]),
}
LOADED = """
import importlib, sys
code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print([name for name in sys.modules if name.count(".") == 1 or "." not in name], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_was_started_before_needs_no_torch(model: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "the sky is blue"}\n')
    flag, unused = COMMANDS[command]
    flags = ["--model", model, "--input", tmp_path / "a.jsonl", flag, tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, command, *map(str, flags)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1]
    assert "'openvino'" in loaded
    assert [name for name in unused if f"'{name}'" in loaded] == []


def test_the_reference_is_made_once(model: Path, loads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(model / FOLDER)
    start(model)
    assert (loads, contents(model / FOLDER), capsys.readouterr().err) == ([], before, "")


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers"])
def test_another_version_makes_it_again(
    model: Path, loads: list[str], package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == package else version(name))
    start(model)
    assert set(loads) == {str(model)}
    assert f"{package} 9.9" in capsys.readouterr().err
    loads.clear()
    start(model)
    assert (loads, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_an_image_without_torch_takes_the_reference_of_any_version(
    model: Path, loads: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def without(name: str) -> str:
        if name == missing:
            raise metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    start(model)
    assert loads == []


@pytest.mark.parametrize("name", [REFERENCE, TOKENIZER, MANIFEST])
def test_a_damaged_reference_is_made_again(
    model: Path, loads: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder_of(model))
    content = bytearray((folder_of(model) / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder_of(model) / name).write_bytes(content)
    start(model)
    assert set(loads) == {str(model)}
    assert f"warning: {folder_of(model)}: expected the conversion as it was made, found" in capsys.readouterr().err
    assert contents(folder_of(model)) == before


def test_other_probe_texts_make_it_again(
    model: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PROBE_TEXTS", ("the sky",))
    assert len(reference.of(VerifiedModel(model)).logits) == 1
    assert set(loads) == {str(model)}
    assert "found a reference of another tokenizer or of other probe texts; converting" in capsys.readouterr().err


def test_the_reference_of_another_tokenizer_is_not_used(model: Path, loads: list[str]) -> None:
    """The weights are the same, and so is the name of the folder. The padding token is another."""
    config = json.loads((model / "tokenizer_config.json").read_bytes())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "[SEP]"}))
    manifest = json.loads((model / MODEL).read_bytes())
    from models.trained_model import sha256

    manifest["files"]["tokenizer_config.json"] = sha256(model / "tokenizer_config.json")
    del manifest["seal"]
    (model / MODEL).write_bytes(seals.seal(manifest, indent=True) + b"\n")
    assert reference.of(VerifiedModel(model)).tokenizer.pad_id == 3
    assert set(loads) == {str(model)}


def test_a_conversion_of_other_weights_is_refused_without_torch(model: Path, tmp_path: Path, loads: list[str]) -> None:
    """Whoever replaced the conversion made its manifest too. The probe texts tell."""
    other = tiny_model(tmp_path / "other", seed=1)
    start(other)
    loads.clear()
    (ours,), (theirs,) = ((directory / FOLDER).glob("openvino-*") for directory in (model, other))
    made = conversion_folder.Conversion.model_validate_json((ours / MANIFEST).read_bytes())
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    (ours / MANIFEST).unlink()
    conversion_folder.seal(ours, made)
    with pytest.raises(ModelError, match=r"expected scores within 0\.001 of torch's in fp32, found that those of"):
        start(model)
    assert loads == []


def test_another_reference_refuses_the_right_conversion(model: Path) -> None:
    """A reference can only refuse. It labels nothing."""
    logits = np.array(json.loads((folder_of(model) / REFERENCE).read_bytes())["logits"])
    reseal(folder_of(model), logits=(logits + [[1.0, -1.0, 0.0]]).tolist())
    with pytest.raises(ModelError, match="found that those of"):
        start(model)


def test_a_reference_without_numbers_is_made_again(model: Path, loads: list[str]) -> None:
    reseal(folder_of(model), logits=[[float("nan")]])
    start(model)
    assert set(loads) == {str(model)}


@pytest.mark.parametrize("fault", ["no copy", "other ids"])
def test_a_tokenizer_without_a_right_copy_comes_from_transformers(
    model: Path, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch computes the reference once all the same."""
    shutil.rmtree(folder_of(model))
    if fault == "no copy":
        monkeypatch.setattr(Tokenizer, "to_bytes", lambda _: None)
    else:
        read = tokenizing.from_bytes
        monkeypatch.setattr(tokenizing, "from_bytes", lambda content: Cutting(**vars(read(content))))
    for _ in range(2):
        tokenizer = reference.of(VerifiedModel(model)).tokenizer
        assert isinstance(tokenizer.original, PreTrainedTokenizerBase)
        assert not (folder_of(model) / TOKENIZER).exists()
    assert capsys.readouterr().err == ""


class Cutting(Tokenizer):
    """A tokenizer that loses the last token."""

    def ids(self, texts: list[str], max_length: int | None = None) -> list[list[int]]:
        return [ids[:-1] for ids in super().ids(texts, max_length)]


@pytest.fixture
def read_only(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model that was never started, in a directory that cannot be written."""
    shutil.rmtree(model / FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    access, make = os.access, tempfile.mkdtemp

    def refuse(prefix: str, dir: Path | None = None) -> str:
        if dir and Path(dir).is_relative_to(model):
            raise PermissionError
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(model) and access(path, mode))
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    return model


def test_a_directory_that_cannot_be_written_is_no_reason_to_prove_at_each_start(
    read_only: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logits = [start(read_only).forward(np.array([[2, 5, 3]]), None) for _ in range(2)]
    assert np.array_equal(*logits)
    assert loads
    loads.clear()
    start(read_only)
    assert loads == []
    kept = sorted(path.name.split("-")[0] for path in paths.cache().glob("conversions/*/runtimes/*"))
    assert kept == ["openvino", "reference"]
    assert capsys.readouterr().err == ""
    assert not list((read_only / FOLDER).glob("*"))


def test_what_others_may_write_is_not_used(read_only: Path, loads: list[str]) -> None:
    start(read_only)
    (cache,) = paths.cache().glob("conversions/*")
    cache.chmod(0o777)
    loads.clear()
    before = contents(cache)
    start(read_only)
    assert loads
    assert contents(cache) == before

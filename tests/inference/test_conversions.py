"""Test that only weights that were made from the model, proved and left as they were compute."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from inference.scoring import conversion_folder, converters, model_files, reference, starting
from inference.scoring.conversion_folder import FOLDER, MANIFEST, ONNX, ONNX_WEIGHTS, ChangedError
from inference.scoring.logits import to_numpy
from inference.scoring.options import RuntimeName, ScoringOptions
from inference.scoring.runtimes import Runtime
from inference.scoring.scorer import Scorer
from inference.scoring.starting import Started
from inference.scoring.verified_model import VerifiedModel
from models import trained_model, weights
from models.errors import ModelError
from models.network import PooledClassifier
from models.weights import TrainedModel
from tests.inference.conftest import int8_variant, rows_of
from tests.tiny import tiny_model

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the converters raise these

BOTH = pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
IDS = np.array([[2, 9, 30, 41, 3, 0, 0], [2, 33, 9, 12, 60, 61, 3], [2, 3, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with both conversions."""
    directory = tiny_model(tmp_path_factory.mktemp("models") / "m")
    for name in ("openvino", "onnxruntime"):
        start(name, directory)
    return directory


@pytest.fixture
def model(tmp_path: Path, converted_once: Path) -> Path:
    """Return a model without conversions."""
    return Path(shutil.copytree(converted_once, tmp_path / "m", ignore=shutil.ignore_patterns(FOLDER)))


@pytest.fixture
def converted(model: Path, converted_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model with both conversions. To convert it again takes no time, because the same files are copied."""
    (known,) = (converted_once / FOLDER).glob("reference-*")
    shutil.copytree(known, model / FOLDER / known.name)
    for package in conversion_folder.PACKAGES:
        (made,) = (converted_once / FOLDER).glob(f"{package}-*")
        shutil.copytree(made, model / FOLDER / made.name)
        monkeypatch.setitem(converters._CONVERTERS, package, partial(copy, made))
    return model


def copy(made: Path, _: TrainedModel, folder: Path) -> None:
    shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))


def kept(directory: Path) -> list[Path]:
    """Return the conversions beside a model, and what is left of others."""
    return [path for path in (directory / FOLDER).iterdir() if not path.name.startswith("reference-")]


def start(name: RuntimeName, directory: Path) -> Started:
    model = VerifiedModel(directory)
    return starting.start(Runtime(name, "fp32", "cpu", 1, ""), model, reference.of(model))


def logits(name: RuntimeName, directory: Path) -> NDArray[np.float32]:
    return to_numpy(start(name, directory).forward(IDS, None))


def conversion(directory: Path, name: RuntimeName = "openvino") -> Path:
    manifest = trained_model.read_manifest(directory)
    return conversion_folder.path_of(directory, conversion_folder.exact(manifest, starting.CONVERTERS[name]))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the warnings on standard error since the last call."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


def zero_words_that_no_probe_text_has(directory: Path, name: RuntimeName = "openvino") -> str:
    """Set rows of the embeddings to zero in the converted weights. Return the name of the changed file."""
    loaded = weights.load(directory)
    assert isinstance(loaded.network, PooledClassifier)
    embeddings = loaded.network.encoder.get_input_embeddings().weight.detach().numpy()
    probed = set(reference.of(VerifiedModel(directory)).ids.flatten())
    (file,) = [path for path in conversion(directory, name).iterdir() if path.suffix in (".bin", ".data")]
    content = bytearray(file.read_bytes())
    at = content.index(embeddings.tobytes())
    for row in set(range(len(embeddings))) - probed:
        content[at + row * embeddings[0].nbytes : at + (row + 1) * embeddings[0].nbytes] = bytes(embeddings[0].nbytes)
    assert content != file.read_bytes()
    file.write_bytes(content)
    return file.name


@BOTH
def test_a_conversion_is_made_once_and_again_for_other_weights(
    tmp_path: Path, converted: Path, name: RuntimeName, capsys: pytest.CaptureFixture[str]
) -> None:
    first = logits(name, converted)
    folder = conversion(converted, name)
    made = folder.stat().st_mtime_ns
    assert np.array_equal(logits(name, converted), first)
    assert folder.stat().st_mtime_ns == made
    trained_model.verify(converted)  # the conversion does not change the model
    assert warnings_of(capsys) == []


def test_a_conversion_of_other_weights_is_not_used(
    tmp_path: Path, converted_once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_model(tmp_path / "other", seed=1)
    shutil.copytree(converted_once / FOLDER, other / FOLDER)  # someone copies the folder by mistake
    assert not np.array_equal(logits("openvino", other), logits("openvino", converted_once))
    assert len(kept(other)) == 3
    assert warnings_of(capsys) == []


@BOTH
def test_weights_that_no_probe_text_reads_are_checked(
    converted: Path, name: RuntimeName, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = logits(name, converted)
    folder = conversion(converted, name)
    made = contents(folder)
    file = zero_words_that_no_probe_text_has(converted, name)
    assert np.array_equal(logits(name, converted), expected)
    (warning,) = warnings_of(capsys)
    assert f"found {file} changed (SHA-256 " in warning
    assert warning.endswith("; converting again.")
    assert contents(folder) == made
    assert len(kept(converted)) == 2
    logits(name, converted)
    assert warnings_of(capsys) == []


def edit(**changes: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_text(json.dumps(manifest | changes))

    return damage


def replace_by_a_pipe(folder: Path) -> None:
    (folder / "model.bin").unlink()
    os.mkfifo(folder / "model.bin")


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no readable conversion.json (No such file or directory)": lambda folder: (folder / MANIFEST).unlink(),
    "a conversion.json that is damaged": lambda folder: (folder / MANIFEST).write_bytes(b"{\xff"),
    "a conversion.json in which weights is 00ff instead of": edit(weights="00ff"),
    "a conversion.json in which config is 00ff instead of": edit(config="00ff"),
    "a conversion.json in which pooling is first instead of mean": edit(pooling="first"),
    "a conversion.json in which version is 1.0 instead of": edit(version="1.0"),
    "the unknown file notes.txt": lambda folder: (folder / "notes.txt").write_text("mine"),
    "the unknown file deeper": lambda folder: (folder / "deeper").mkdir(),
    "no file model.bin": replace_by_a_pipe,
    "model.xml changed": lambda folder: (folder / "model.xml").write_bytes((folder / "model.xml").read_bytes()[:-1]),
    "no readable conversion.json (Not a directory)": replace_by_a_file,
}


@pytest.mark.parametrize("found", DAMAGE)
def test_what_is_not_as_it_was_made_is_named(converted: Path, found: str) -> None:
    folder = conversion(converted)
    expected = conversion_folder.exact(trained_model.read_manifest(converted), "openvino")
    conversion_folder.read(folder, expected)
    DAMAGE[found](folder)
    with pytest.raises(ChangedError, match=re.escape(found)):
        conversion_folder.read(folder, expected)


@pytest.mark.parametrize("damage", ["the unknown file notes.txt", "no readable conversion.json (Not a directory)"])
def test_what_is_not_ours_is_kept(converted: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = contents(conversion(converted))
    DAMAGE[damage](conversion(converted))
    logits("openvino", converted)
    logits("openvino", converted)
    assert len(warnings_of(capsys)) == 1
    assert contents(conversion(converted)) == made
    (kept,) = (converted / FOLDER).glob("*.replaced-*")
    assert kept.read_text() == "a file" if kept.is_file() else contents(kept) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("place", ["", "{}", "{}/model.bin"])
def test_a_link_that_leads_out_of_the_model_is_refused(tmp_path: Path, converted: Path, place: str) -> None:
    inside = converted / FOLDER / place.format(conversion(converted).name)
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match="expected a path inside of the model's directory, found a link to"):
        start("openvino", converted)
    assert sorted(tmp_path.rglob("*")) == before


def test_onnx_weights_in_a_file_outside_are_not_read(tmp_path: Path, converted: Path) -> None:
    folder = conversion(converted, "onnxruntime")
    network = onnx.load(folder / ONNX, load_external_data=False)
    shutil.copy(folder / ONNX_WEIGHTS, tmp_path / "outside")
    for tensor in network.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../outside"
    (folder / ONNX).write_bytes(network.SerializeToString())
    (folder / MANIFEST).unlink()
    manifest = trained_model.read_manifest(converted)
    conversion_folder.seal(folder, conversion_folder.exact(manifest, "onnx"))  # whoever made this made its manifest too
    with pytest.raises(ModelError, match=r"cannot compute it .*\.\./outside not found"):
        start("onnxruntime", converted)


def test_a_conversion_that_is_not_proved_is_not_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = weights.load(tiny_model(tmp_path / "other", seed=1))
    convert = converters._CONVERTERS["openvino"]
    monkeypatch.setitem(converters._CONVERTERS, "openvino", lambda _, folder: convert(other, folder))
    with pytest.raises(ModelError, match="differ by"):
        start("openvino", model)
    assert kept(model) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_convert_at_once(converted: Path, damaged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second converts from beginning to end while the first converts."""
    expected, folder = logits("openvino", converted), conversion(converted)
    made = contents(folder)
    if damaged:
        (folder / MANIFEST).unlink()
    else:
        shutil.rmtree(folder)
    convert = converters._CONVERTERS["openvino"]
    second: list[NDArray[np.float32]] = []

    def convert_slowly(loaded: TrainedModel, staging: Path) -> None:
        monkeypatch.setitem(converters._CONVERTERS, "openvino", convert)
        second.append(logits("openvino", converted))
        convert(loaded, staging)

    monkeypatch.setitem(converters._CONVERTERS, "openvino", convert_slowly)
    assert np.array_equal(logits("openvino", converted), expected)
    assert np.array_equal(second[0], expected)
    assert contents(folder) == made
    assert len(kept(converted)) == 2


KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
import torch
from numpy.typing import NDArray
from inference.scoring import converters, reference, runtimes, starting
from inference.scoring.verified_model import VerifiedModel
convert = converters._CONVERTERS["openvino"]
def die(model, folder):
    convert(model, folder)
    (folder / "model.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
converters._CONVERTERS["openvino"] = die
model = VerifiedModel(sys.argv[1])
starting.start(runtimes.Runtime("openvino", "fp32", "cpu", 1, ""), model, reference.of(model))
"""


def test_a_kill_in_the_middle_leaves_nothing_that_computes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, model], capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name[0] for path in kept(model)] == ["."]
    torch_logits = logits("torch", model)
    assert np.abs(logits("openvino", model) - torch_logits).max() < 1e-4
    assert warnings_of(capsys) == []


SIGNALLED = """
import signal, sys
from pathlib import Path
from inference.scoring import compiled
(folder,) = Path(sys.argv[1]).glob("openvino-*")
files = {file.name: file.read_bytes() for file in folder.iterdir()}
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (compiled.openvino(files, 1, bf16=False) for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_after_models_were_freed_reaches_its_handler(converted: Path) -> None:
    """OpenVINO's CPU plugin sets a stack for signals, which must not be freed while a signal can come."""
    signalled = subprocess.run([sys.executable, "-c", SIGNALLED, converted / FOLDER], capture_output=True, check=False)
    assert (signalled.returncode, signalled.stdout) == (0, b"handled\n"), signalled.stderr


def test_a_model_that_cannot_be_written_is_converted_elsewhere(
    tmp_path: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(converted / FOLDER)
    (converted / FOLDER).write_text("no folder can be made here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    assert logits("openvino", converted).shape == (3, 3)
    assert list((tmp_path / "t").iterdir()) == []


def test_a_damaged_conversion_that_cannot_be_replaced_is_not_used(
    converted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = logits("openvino", converted)
    zero_words_that_no_probe_text_has(converted)
    damaged = contents(conversion(converted))

    def refuse(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    for _ in range(2):
        assert np.array_equal(logits("openvino", converted), expected)
        assert len(warnings_of(capsys)) == 1
    assert contents(conversion(converted)) == damaged


def test_the_scorer_says_what_computes(converted: Path) -> None:
    sha256 = {
        runtime: Scorer(ScoringOptions((str(converted),), runtime, "fp32", "cpu")).weights["m"]
        for runtime in ("torch", "openvino")
    }
    assert sha256["torch"] == trained_model.fingerprint(converted)
    assert sha256["openvino"] == hashlib.sha256((conversion(converted) / MANIFEST).read_bytes()).hexdigest()


def test_a_run_says_what_it_converts_again(
    converted: Path, corpus: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", converted, "--input", corpus, "--runtime=openvino", "--precision=fp32", "--scores=all")
    before = rows_of(label(*flags))
    file = zero_words_that_no_probe_text_has(converted)
    assert warnings_of(capsys) == []
    assert rows_of(label(*flags)) == before
    (warning,) = warnings_of(capsys)
    assert f"found {file} changed" in warning


def test_a_changed_int8_variant_labels_nothing(
    tmp_path: Path, model: Path, corpus: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    variant = int8_variant(model)
    flags = ("--model", model, "--input", corpus, "--runtime=openvino", "--precision=int8")
    assert len(rows_of(label(*flags))) == 300
    content = bytearray((variant / "model.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (variant / "model.bin").write_bytes(content)
    capsys.readouterr()
    run = label(*flags, expect=2)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"{variant}: expected the int8 variant as it was made, found model.bin changed" in sentence
    assert "make it again with `python -m inference.optimize" in sentence
    assert not run.exists()
    (variant / MANIFEST).unlink()
    label(*flags, expect=2)
    assert "has no int8 variant of these weights with a conversion.json" in capsys.readouterr().err


def test_a_run_with_another_int8_variant_is_another_run(
    model: Path, corpus: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    int8_variant(model)
    flags = ("--model", model, "--input", corpus, "--runtime=openvino", "--precision=int8")
    run = label(*flags)
    int8_variant(model, scale=1.001)
    capsys.readouterr()
    label(*flags, output=run, expect=2)
    assert "holds another run (models were m " in capsys.readouterr().err
    assert model_files.fingerprint(str(model), "auto") == trained_model.fingerprint(model)

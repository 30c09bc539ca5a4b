"""Test that every runtime gives torch's scores, and that flags are checked."""

import itertools
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.scoring import reference, runtimes, starting, torch_runtime
from inference.scoring.logits import Forward, to_numpy
from inference.scoring.options import DeviceChoice, Precision, PrecisionChoice, RuntimeChoice, RuntimeName
from inference.scoring.runtimes import Runtime
from inference.scoring.verified_model import VerifiedModel
from models import weights
from models.errors import ModelError, UserError
from models.network import PooledClassifier
from models.trained_model import Pooling
from tests.tiny import tiny_model

IDS = np.array([[2, 9, 30, 41, 3, 0, 0], [2, 33, 9, 12, 60, 61, 3], [2, 3, 0, 0, 0, 0, 0]])
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the converters raise these
]


def need(name: str) -> None:
    if name in ("openvino", "onnxruntime"):
        pytest.importorskip(name)


def start(name: RuntimeName, directory: Path, precision: Precision = "fp32") -> Forward:
    runtime = Runtime(name, precision, "cpu", 1, "")
    model = VerifiedModel(directory)
    return starting.start(runtime, model, reference.of(model)).forward


@pytest.mark.parametrize("name", [pytest.param("compile", marks=pytest.mark.slow), "torch", "openvino", "onnxruntime"])
@pytest.mark.parametrize("pooling", ["mean", "stock", pytest.param("first", marks=pytest.mark.slow)])
def test_every_runtime_gives_the_logits_of_torch(tmp_path: Path, name: RuntimeName, pooling: Pooling) -> None:
    need(name)
    directory = tiny_model(tmp_path / "m", pooling=pooling)
    network = weights.load(directory).network
    forward = start(name, directory)
    for ids in (IDS, IDS[:1], np.tile(IDS, (5, 3))):  # the converter saw another shape
        mask = (ids > 0).astype(np.int64)
        with torch.inference_mode():
            masked = network(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
            unmasked = network(torch.from_numpy(ids), None).numpy()
        assert np.abs(to_numpy(forward(ids, mask)) - masked).max() < 1e-4
        assert np.abs(to_numpy(forward(ids, None)) - unmasked).max() < 1e-4


def test_a_runtime_that_gives_other_scores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tiny_model(tmp_path / "m")
    original = torch_runtime.start
    monkeypatch.setattr(
        torch_runtime, "start", lambda *arguments: lambda ids, mask: to_numpy(original(*arguments)(ids, mask)) + 1
    )
    with pytest.raises(ModelError, match=r"found that those of torch in fp32 on 1 thread differ by 0\.\d+;"):
        start("torch", directory)


def test_a_model_whose_scores_are_no_numbers_is_refused(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "m")
    model = VerifiedModel(directory)
    assert isinstance(model.trained.network, PooledClassifier)
    torch.nn.init.constant_(model.trained.network.head.weight, float("nan"))
    with pytest.raises(ModelError, match="scores that are not finite numbers"):
        reference.of(model)
    assert not list(directory.glob("runtimes/*"))


def test_the_number_of_torchs_threads_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    runtime = Runtime("torch", "fp32", "cpu", before + 1, "")
    directory = tiny_model(tmp_path / "m")
    seen = []
    model = VerifiedModel(directory)
    model.trained.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    starting.start(runtime, model, reference.of(model))
    assert seen == [before, 1]  # each batch has one thread
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_memory_grows_little_with_each_shape_of_batch(tmp_path: Path) -> None:
    need("openvino")
    forward = start("openvino", tiny_model(tmp_path / "m"))

    def compute(widths: range) -> None:
        for width, count in itertools.product(widths, range(1, 26)):
            forward(np.full((count, width), 5), None)

    compute(range(1, 21))
    before = memory()
    compute(range(21, 81))
    assert memory() - before < 80 * 2**20  # about 36 MiB; 107 with oneDNN's own limit, 218 with OpenVINO's too


def memory() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_fp16_is_closer_to_fp32_than_its_tolerance(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "m")
    exact, close = (to_numpy(start("torch", directory, p)(IDS, None)) for p in ("fp32", "fp16"))
    assert 0 < np.abs(exact - close).max() < starting.TOLERANCES["fp16"]


@pytest.mark.parametrize(("capability", "precision"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 9), "bf16")])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(
    capability: tuple[int, int], precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    for runtime in ("auto", "torch", "compile"):
        chosen = runtimes.choose(runtime, "auto", "auto")
        assert (chosen.device, chosen.precision) == ("cuda", precision)
    assert runtimes.choose("torch", "auto", "cpu").precision in ("fp32", "bf16")
    if precision == "fp16":
        with pytest.raises(UserError, match="--precision bf16: expected a GPU that multiplies it, found an older one"):
            runtimes.choose("torch", "bf16", "cuda")


def test_bf16_is_close_to_fp32(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "m")
    exact, close = (to_numpy(start("torch", directory, p)(IDS, None)) for p in ("fp32", "bf16"))
    assert 0 < np.abs(exact - close).max() < 0.1


def test_auto_takes_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(runtimes, "has_bf16", lambda _, has=has: has)
        assert runtimes.choose("torch", "auto", "cpu").precision == expected
        assert runtimes.choose("torch", "bf16", "cpu").precision == "bf16"
    assert runtimes.choose("auto", "auto", "cpu", 3).threads == 3


@pytest.mark.parametrize(("installed", "expected"), [(True, "openvino"), (False, "torch")])
def test_auto_takes_what_is_installed_and_says_why(
    installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "is_installed", lambda _: installed)
    chosen = runtimes.choose("auto", "fp32", "cpu")
    assert chosen.name == expected
    assert ("not installed" in chosen.reason) is not installed


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("openvino", "auto", "cpu"), "--runtime openvino: the package is not installed; pip install"),
        (("torch", "int8", "cpu"), "--precision int8: expected the runtime openvino, found torch"),
        (("torch", "auto", "cuda"), "--device cuda: expected a CUDA GPU, found none"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    asked: tuple[RuntimeChoice, PrecisionChoice, DeviceChoice], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "is_installed", lambda _: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=sentence):
        runtimes.choose(*asked)


def test_the_cores_are_counted_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")  # macOS has no affinity
    assert runtimes.choose("torch", "fp32", "cpu").threads >= 1

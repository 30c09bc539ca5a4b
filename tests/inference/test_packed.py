"""Test that a network without padding gives the logits of one with padding, and when it is used."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from inference.corpus.records import Document
from inference.scoring import gpu, packed, starting
from inference.scoring.logits import Logits, to_numpy
from inference.scoring.options import DeviceChoice, PrecisionChoice, ScoringOptions
from inference.scoring.packed import PackedNetwork
from inference.scoring.scorer import Scorer
from models import network as networks
from models.trained_model import Pooling
from tests.tiny import WORDS, tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}
MORE = {**SIZE, "intermediate_size": 64, "max_position_embeddings": 66}
DISTIL = {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "num_labels": 3}
CONFIGS = {
    "bert": BertConfig(**MORE, pad_token_id=0),
    "roberta": RobertaConfig(**MORE, pad_token_id=1),
    "xlm-roberta": XLMRobertaConfig(**MORE, pad_token_id=1),
    "camembert": CamembertConfig(**MORE, pad_token_id=1),
    "distilbert": DistilBertConfig(**DISTIL, pad_token_id=0),
}
LENGTHS = np.array([5, 17, 1, 40, 2])


def one_text_at_a_time(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
    """Compute attention for each text by itself, as the kernel should."""
    ends = starts.tolist()
    assert longest == max(np.diff(ends))
    by_head = [states.transpose(0, 1) for states in (query, key, value)]
    parts = []
    for start, end in pairwise(ends):
        query, key, value = (states[:, start:end] for states in by_head)
        parts.append(F.scaled_dot_product_attention(query, key, value))
    return torch.cat(parts, dim=1).transpose(0, 1)


def network_of(config: PretrainedConfig, pooling: Pooling) -> torch.nn.Module:
    """Return a network whose weights are so large that logits differ from text to text."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = networks.from_config(config, pooling)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
    return network.eval()


def batch_of(pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and mask of texts of LENGTHS tokens, one of which spells out the padding token."""
    mask = (np.arange(LENGTHS.max()) < LENGTHS[:, None]).astype(np.int64)
    ids = np.where(mask, np.random.default_rng(0).integers(4, 100, mask.shape), pad)
    ids[1, 4] = pad
    return ids, mask


def computed(network: PackedNetwork, ids: np.ndarray, mask: np.ndarray | None, device: torch.device = CPU) -> Tensor:
    row = packed.row(ids, mask)
    with torch.inference_mode():
        return network(torch.from_numpy(row.ids).to(device), torch.from_numpy(row.starts).to(device), row.longest)


def test_a_row_holds_the_tokens_without_their_padding() -> None:
    ids = np.array([[2, 9, 3, 0], [2, 7, 8, 3], [2, 3, 0, 0]])
    row = packed.row(ids, (ids > 0).astype(np.int64))
    assert row.ids.tolist() == [2, 9, 3, 2, 7, 8, 3, 2, 3]
    assert (row.starts.tolist(), row.longest) == ([0, 3, 7, 9], 4)
    assert row.ids.dtype == row.starts.dtype == np.int32
    whole = packed.row(ids, None)
    assert (whole.ids.tolist(), whole.starts.tolist(), whole.longest) == (ids.ravel().tolist(), [0, 4, 8, 12], 4)


@pytest.mark.parametrize(("skipped", "expected"), [(-1, [0, 1, 2, 0, 1, 2, 3]), (1, [2, 3, 1, 2, 1, 3, 4])])
def test_positions_begin_anew_in_each_text(skipped: int, expected: list[int]) -> None:
    """RoBERTa neither counts nor places a padding token that a text spells out."""
    ids, starts = torch.tensor([5, 6, 1, 7, 1, 8, 9]), torch.tensor([0, 3, 7])
    assert packed.positions(ids, starts, starts.diff(), skipped).tolist() == expected


@pytest.mark.parametrize("pooling", ["mean", "first", "stock"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_logits_are_those_of_the_network_with_padding(kind: str, pooling: Pooling) -> None:
    network = network_of(CONFIGS[kind], pooling)
    ids, mask = batch_of(CONFIGS[kind].pad_token_id)
    with torch.inference_mode():
        expected = network(torch.from_numpy(ids), torch.from_numpy(mask))
        unmasked = network(torch.from_numpy(ids[1:2, :17]), None)
    assert expected.std(dim=0).min() > 0.1
    alone = PackedNetwork(network, one_text_at_a_time)
    assert torch.allclose(computed(alone, ids, mask), expected, atol=1e-3)
    assert torch.allclose(computed(alone, ids[1:2, :17], None), unmasked, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"config": ElectraConfig(**MORE, embedding_size=32)}, "electra is none of bert, roberta,"),
        ({"config": BertConfig(**MORE, is_decoder=True)}, "the network is a decoder"),
        ({"dtype": torch.float32}, "does not compute in fp32"),
        ({"kernel": "torch.nn.attention.gone"}, "install 2.10 or later"),
        ({"capability": (7, 5)}, "the GPU is too old"),
    ],
)
def test_what_cannot_be_computed_without_padding_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    values = {
        "config": CONFIGS["bert"],
        "dtype": torch.bfloat16,
        "kernel": packed.KERNEL,
        "capability": (8, 0),
    } | change
    monkeypatch.setattr(packed, "KERNEL", values["kernel"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: values["capability"])
    found = packed.obstacle(networks.from_config(values["config"], "mean"), "cuda", values["dtype"])
    assert found.startswith(reason) if not reason else reason in found


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor compute without padding, as a GPU does, with attention for each text by itself."""
    monkeypatch.setattr(packed, "DEVICES", ("cpu",))
    monkeypatch.setattr(packed, "obstacle", lambda *_: "")
    monkeypatch.setattr(packed, "PackedNetwork", partial(PackedNetwork, attention=one_text_at_a_time))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "colours")


def documents() -> list[Document]:
    """Return documents of 1 to 40 words."""
    texts = (" ".join(WORDS[(i * j + j * j) % len(WORDS)] for j in range(1 + i * 13 % 40)) for i in range(300))
    return [Document(i + 1, f"d{i}", (text,), {}, b"") for i, text in enumerate(texts)]


def scorer_of(model: Path, device: DeviceChoice = "cpu", precision: PrecisionChoice = "fp32") -> Scorer:
    return Scorer(ScoringOptions((str(model),), "torch", precision, device, scores="all"))


def probabilities(scorer: Scorer) -> np.ndarray:
    predictions, failures, _ = scorer.score(documents())
    assert failures == []
    return np.array([[score for _, score in p.by_model["colours"].scores] for p in predictions])


@pytest.mark.usefixtures("stand_in")
def test_a_slice_gets_the_same_scores_and_no_padding_is_counted(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = scorer_of(colours)
    _, _, counts = without.score(documents())
    assert counts.padded_tokens == counts.tokens
    found = probabilities(without)
    monkeypatch.setattr(packed, "DEVICES", ())
    assert np.abs(found - probabilities(scorer_of(colours))).max() < 1e-5


@pytest.mark.usefixtures("stand_in")
def test_a_batch_without_padding_is_halved_when_memory_runs_out(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compute = PackedNetwork.__call__

    def small(self: PackedNetwork, ids: Tensor, starts: Tensor, longest: int) -> Tensor:
        sizes.append(len(ids))
        if len(ids) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, ids, starts, longest)

    scorer = scorer_of(colours)
    expected = probabilities(scorer)
    monkeypatch.setattr(PackedNetwork, "__call__", small)
    assert np.abs(probabilities(scorer) - expected).max() < 1e-5
    assert max(sizes) > 200
    sizes.clear()
    probabilities(scorer)
    assert max(sizes) <= 200


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda logits: logits + 1, "expected scores within 0.001"),
        (lambda logits: logits * float("nan"), "because"),
        (mock.Mock(side_effect=RuntimeError("no such\nkernel")), "because no such kernel"),
    ],
)
def test_a_kernel_that_fails_the_comparison_is_replaced_by_padding(
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Tensor], Tensor],
    reason: str,
) -> None:
    compute = PackedNetwork.__call__
    monkeypatch.setattr(PackedNetwork, "__call__", lambda self, *row: fault(compute(self, *row)))
    scorer = scorer_of(colours)
    assert "model colours: batches are padded, because" in caplog.text
    assert reason in caplog.text
    _, _, counts = scorer.score(documents())
    assert counts.padded_tokens["colours"] > counts.tokens["colours"]


@pytest.mark.parametrize(("free", "expected"), [(2**40, gpu.MOST_TOKENS), (10**6, 500), (1, 32)])
def test_the_size_of_a_batch_follows_from_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    """The stand-in takes 1,000 bytes for each token. A text of the longest length always fits."""
    used = [5_000]
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: used[-1])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**40))

    def forward(ids: np.ndarray, _: np.ndarray | None) -> Logits:
        used.append(5_000 + 1_000 * ids.size)
        return np.zeros((len(ids), 1), np.float32)

    assert gpu.token_budget(forward, 32) == expected


def test_a_gpu_with_hardly_any_memory_gets_one_text_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    assert gpu.token_budget(mock.Mock(side_effect=torch.OutOfMemoryError), 32) == 32


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "first", "stock"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_kernel_of_a_gpu_gives_the_logits_of_the_network_with_padding(kind: str, pooling: Pooling) -> None:
    network = network_of(CONFIGS[kind], pooling)
    ids, mask = batch_of(CONFIGS[kind].pad_token_id)
    with torch.inference_mode():
        expected = network(torch.from_numpy(ids), torch.from_numpy(mask))
    assert packed.obstacle(network, "cuda", torch.float16) == ""
    found = computed(PackedNetwork(network.to(CUDA, torch.float16)), ids, mask, CUDA)
    differences = (expected - expected.mean(dim=0)).norm()  # between texts
    assert (found.float().cpu() - expected).norm() < 0.1 * differences


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_slice_gets_nearly_the_scores_of_the_cpu_from_a_gpu(colours: Path, precision: PrecisionChoice) -> None:
    scorer = scorer_of(colours, "cuda", precision)
    _, _, counts = scorer.score(documents())
    assert counts.padded_tokens == counts.tokens
    difference = np.abs(probabilities(scorer) - probabilities(scorer_of(colours)))
    assert difference.max() < starting.TOLERANCES[precision]


@pytest.mark.gpu
def test_fp32_on_a_gpu_is_padded(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer = scorer_of(colours, "cuda", "fp32")
    assert "the kernel does not compute in fp32" in caplog.text
    assert np.abs(probabilities(scorer) - probabilities(scorer_of(colours))).max() < 1e-3


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_waits_for_the_gpu_before_all_batches_are_queued(colours: Path) -> None:
    scorer = scorer_of(colours, "cuda", "bf16")
    model = scorer._models[0]
    ids, mask = batch_of(0)
    to_numpy(model._forward(ids, mask))
    torch.cuda.set_sync_debug_mode("error")
    try:
        queued = [model._forward(ids, mask) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite([to_numpy(logits) for logits in queued]).all()


@pytest.mark.gpu
def test_a_gpu_without_memory_gets_smaller_batches(colours: Path) -> None:
    scorer = scorer_of(colours, "cuda", "bf16")
    expected, model = probabilities(scorer), scorer._models[0]
    compute = model._forward

    def greedy(ids: np.ndarray, mask: np.ndarray | None) -> Logits:
        if ids.size > 500:
            torch.empty(2**50, device=CUDA)
        return compute(ids, mask)

    model._forward = greedy
    assert np.abs(probabilities(scorer) - expected).max() < starting.TOLERANCES["bf16"]
    assert model._token_budget <= 1_000

"""Test that pooling ignores padding, that logits are raw, and that weights are stored in fp32."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from models import network as networks
from models import trained_model
from models.trained_model import Pooling
from tests.tiny import tiny_base, tiny_config

TEXTS = ["red sky", "the rose is red and the grass is green"]
POOLED: tuple[Pooling, ...] = ("mean", "first")


def build(pooling: Pooling, labels: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.from_config(tiny_config(100, num_labels=labels), pooling).eval()


@pytest.mark.parametrize("pooling", ["stock", "first", "mean"])
def test_padding_does_not_change_logits(pooling: Pooling) -> None:
    network = build(pooling)
    ids = torch.tensor([[2, 10, 11, 12, 3]])
    padded = torch.tensor([[2, 10, 11, 12, 3, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    with torch.inference_mode():
        alone = network(ids, torch.ones_like(ids))
        assert alone.shape == (1, 3)
        assert torch.allclose(network(padded, mask), alone, atol=1e-6)
        assert torch.allclose(network(ids), alone, atol=1e-6)


def test_mean_and_first_pool_what_they_say() -> None:
    ids = torch.tensor([[2, 10, 11, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    with torch.inference_mode():
        for pooling in POOLED:
            network = build(pooling)
            assert isinstance(network, networks.PooledClassifier)
            states = network.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = states[:, :4].mean(dim=1) if pooling == "mean" else states[:, 0]
            assert torch.allclose(network(ids, mask), network.head(pooled), atol=1e-6)


def test_the_unused_pooler_is_dropped_and_parameters_are_counted() -> None:
    network = build("mean")
    assert not any("pooler" in name for name in network.state_dict())
    assert networks.num_parameters(network) == sum(t.numel() for t in network.state_dict().values())


@pytest.mark.parametrize("pooling", ["stock", "mean"])
def test_pretrained_weights_are_taken_and_the_head_is_fresh(tmp_path: Path, pooling: Pooling) -> None:
    base = tiny_base(tmp_path / "base", TEXTS)
    config = AutoConfig.from_pretrained(base, num_labels=5)
    one, two = (networks.from_pretrained(str(base), pooling, config, {}).state_dict() for _ in range(2))
    embeddings = next(name for name in one if name.endswith("word_embeddings.weight"))
    head = "model.classifier.weight" if pooling == "stock" else "head.weight"
    assert torch.equal(one[embeddings], two[embeddings])
    assert not torch.equal(one[head], two[head])
    assert one[head].shape == (5, 32)


def test_weights_of_a_half_precision_network_are_kept_in_fp32() -> None:
    state = networks.full_precision_state(build("mean").to(torch.bfloat16))
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


def test_stock_keeps_the_librarys_own_names() -> None:
    assert "model.classifier.weight" in build("stock").state_dict()
    assert trained_model.WEIGHTS == "model.pth"

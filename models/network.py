"""Builds the network from its configuration; `forward` returns raw logits for every architecture."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from models import bag  # noqa: F401  (transformers knows the architecture from this import on)
from models.trained_model import Pooling

# Every load passes this. With None, its default, transformers asks on the terminal whether to run a model's own code,
# and the first line of a pipe may answer.
NO_CODE = {"trust_remote_code": False}


class StockClassifier(nn.Module):
    """A sequence-classification model of transformers; the keys of its `state_dict` are the library's own."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (documents, labels) for token ids and mask (documents, tokens); no mask means no padding."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class PooledClassifier(nn.Module):
    """An encoder whose token states are pooled into one vector, followed by dropout and one linear layer."""

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, num_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # this layer serves another task and would be stored and computed for nothing
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (documents, labels) for token ids and mask (documents, tokens); no mask means no padding."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self._pool(states, attention_mask).to(self.head.weight.dtype)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def _pool(self, states: Tensor, mask: Tensor | None) -> Tensor:
        if self.pooling == "first":
            return states[:, 0]
        states = states.float()  # bf16 cannot count beyond 256 tokens
        if mask is None:
            return states.mean(dim=1)
        weights = mask.unsqueeze(-1).float()
        # The states of padding may not be numbers, so they are replaced and not multiplied by 0.
        return states.masked_fill(weights == 0, 0.0).sum(dim=1) / weights.sum(dim=1)


def from_config(config: PretrainedConfig, pooling: Pooling) -> nn.Module:
    """Return an untrained network for `config.num_labels` labels, ready for `load_state_dict`."""
    if pooling == "stock":
        return StockClassifier(AutoModelForSequenceClassification.from_config(config, **NO_CODE))
    return PooledClassifier(AutoModel.from_config(config, **NO_CODE), pooling, config.num_labels)


def from_pretrained(
    base_model: str, pooling: Pooling, config: PretrainedConfig, source: Mapping[str, Any]
) -> nn.Module:
    """Return a network with pretrained weights, from a local folder or a hub name, and with an untrained head.

    `source` is what transformers takes to load it, such as the revision.
    """
    options = {**source, **NO_CODE}
    if pooling == "stock":
        return StockClassifier(AutoModelForSequenceClassification.from_pretrained(base_model, config=config, **options))
    encoder = AutoModel.from_pretrained(base_model, config=config, **options)
    return PooledClassifier(encoder, pooling, config.num_labels)


def encoder(network: nn.Module) -> PreTrainedModel:
    """Return the part of the network that reads the tokens, without its head."""
    if isinstance(network, StockClassifier):
        return cast(PreTrainedModel, network.model.base_model)
    return cast(PooledClassifier, network).encoder


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters of the network."""
    return sum(parameter.numel() for parameter in network.parameters())


def full_precision_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as weights are stored: on the CPU, with floating-point tensors in fp32."""
    return {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }

"""Computes encoders of BERT's kind without padding: the tokens of a batch stand in one row, text after text.

The weights are those of the network. Each layer is computed once for the whole row, and attention keeps the texts
apart, with torch's own kernel for texts of different lengths.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.network import PooledClassifier

DEVICES = ("cuda",)  # types of the devices on which padding is avoided
KERNEL = "torch.nn.attention.varlen"  # from torch 2.10 on
CAPABILITY = (8, 0)  # compute capability from which the kernel computes

# Arguments are queries, keys and values (tokens, heads, numbers), the starts of the texts (texts + 1) and the longest
# text's number of tokens; the result has the shape of the values.
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


class Architecture(NamedTuple):
    """The names of the parts of an architecture in transformers."""

    layers: str  # layers of the encoder
    heads: str  # the configuration's number of attention heads
    parts: tuple[str, ...]  # parts of a layer, in the order of Layer's arguments
    first: Callable[[Any, Tensor], Tensor]  # logits of a stock classifier, from the first state of each text


_BERT_LAYER = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense", "output.LayerNorm"),
)
_DISTILBERT_LAYER = (
    *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm"),
    *("ffn.lin1", "ffn.activation", "ffn.lin2", "output_layer_norm"),
)
_BERT = Architecture(
    "encoder.layer",
    "num_attention_heads",
    _BERT_LAYER,
    lambda model, first: model.classifier(model.base_model.pooler(first[:, None])),
)
_ROBERTA = _BERT._replace(first=lambda model, first: model.classifier(first[:, None]))
_DISTILBERT = Architecture(
    "transformer.layer",
    "n_heads",
    _DISTILBERT_LAYER,
    lambda model, first: model.classifier(torch.relu(model.pre_classifier(first))),
)
ARCHITECTURES = {
    "bert": _BERT,  # MiniLM too
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
}


def obstacle(network: nn.Module, device: str, dtype: torch.dtype) -> str:
    """Return why a network cannot be computed without padding here, or nothing if it can."""
    config = _model(network).config
    if config.model_type not in ARCHITECTURES:
        return f"{config.model_type} is none of {', '.join(ARCHITECTURES)}"
    if getattr(config, "is_decoder", False) or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return "the network is a decoder or has relative positions"
    if importlib.util.find_spec(KERNEL) is None:
        return f"torch {torch.__version__} has no {KERNEL}; install 2.10 or later"
    if dtype == torch.float32:
        return "the kernel does not compute in fp32"
    if device == "cuda" and torch.cuda.get_device_capability() < CAPABILITY:
        return "the GPU is too old for the kernel"
    return ""


def kernel(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
    """Compute attention with torch's kernel for texts of different lengths."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(query, key, value, starts, starts, longest, longest)  # type: ignore[return-value]


class PackedNetwork:
    """A network that reads rows of texts, with the modules and weights of one that reads padded texts."""

    def __init__(self, network: nn.Module, attention: Attention = kernel, *, compiled: bool = False) -> None:
        model = _model(network)
        self._network = network
        self._architecture = ARCHITECTURES[model.config.model_type]
        encoder = model.base_model
        self._embeddings = encoder.embeddings
        heads = getattr(model.config, self._architecture.heads)
        self._layers = [
            Layer(heads, attention, *map(layer.get_submodule, self._architecture.parts))
            for layer in encoder.get_submodule(self._architecture.layers)
        ]
        for layer in self._layers if compiled else ():
            layer.compile(dynamic=True)  # all layers share the code that the first one gets

    def __call__(self, ids: Tensor, starts: Tensor, longest: int) -> Tensor:
        """Return logits (texts, labels).

        Args:
            ids: token ids of all texts, end to end (tokens).
            starts: start of each text in `ids`, and the end of the last one (texts + 1); int32.
            longest: number of tokens of the longest text.
        """
        lengths = starts.diff()
        skipped = self._embeddings.position_embeddings.padding_idx
        numbers = positions(ids, starts, lengths, -1 if skipped is None else skipped)
        states = self._embeddings(input_ids=ids[None], position_ids=numbers[None])[0]
        for layer in self._layers:
            states = layer(states, starts, longest)
        if not isinstance(self._network, PooledClassifier):
            return self._architecture.first(_model(self._network), states[starts[:-1]])
        if self._network.pooling == "first":
            return self._network.head(states[starts[:-1]])
        # The kernel would wait for the GPU to check the lengths, which are right.
        pooled = torch.segment_reduce(states.float(), "mean", lengths=lengths.long(), unsafe=True)
        return self._network.head(pooled.to(states.dtype))


class Layer(nn.Module):
    """A layer of an encoder, which is computed on the states (tokens, numbers) of a row."""

    def __init__(self, heads: int, attention: Attention, *parts: Any) -> None:
        super().__init__()
        *projections, self._attended, self._attended_norm = parts[:5]
        self._inner, self._activation, self._outer, self._norm = parts[5:]
        self._heads = heads
        self._attention = attention
        self._weight = torch.cat([projection.weight for projection in projections])  # one product instead of three
        self._bias = torch.cat([projection.bias for projection in projections])

    def forward(self, states: Tensor, starts: Tensor, longest: int) -> Tensor:
        """Return the states after this layer."""
        together = F.linear(states, self._weight, self._bias).view(len(states), 3, self._heads, -1)
        query, key, value = together.unbind(1)
        attended = self._attention(query, key, value, starts, longest).flatten(1)
        states = self._attended_norm(self._attended(attended) + states)
        return self._norm(self._outer(self._activation(self._inner(states))) + states)


def positions(ids: Tensor, starts: Tensor, lengths: Tensor, skipped: int) -> Tensor:
    """Return the position of each token in its text, from `skipped` + 1 on.

    RoBERTa gives the position `skipped`, which is its padding token's id, to every such token, and does not count it. A
    text may spell it out. Other architectures skip no token, so -1 stands for none.
    """
    counted = (ids != skipped).long()
    so_far = counted.cumsum(0)
    before = (so_far - counted)[starts[:-1]].repeat_interleave(lengths, output_size=len(ids))
    return (so_far - before) * counted + skipped


class Row(NamedTuple):
    """A batch without its padding."""

    ids: NDArray[np.int32]  # token ids of all texts, end to end
    starts: NDArray[np.int32]  # start of each text in `ids`, and the end of the last one
    longest: int  # number of tokens of the longest text


def row(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Row:
    """Return a batch (texts, tokens) without its padding."""
    kept = np.ones(ids.shape, bool) if mask is None else mask.astype(bool)
    lengths = kept.sum(axis=1)
    return Row(ids[kept].astype(np.int32), np.concatenate([[0], lengths.cumsum()]).astype(np.int32), int(lengths.max()))


def _model(network: nn.Module) -> Any:
    """Return the model of transformers in a classifier."""
    return network.encoder if isinstance(network, PooledClassifier) else network.model

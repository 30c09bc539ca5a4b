"""Tiny models for tests: a random two-layer BERT and a word-piece tokenizer, made in a fraction of a second."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast, PreTrainedTokenizerBase

from models import network as networks
from models import trained_model, weights
from models.decision import Decision
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Pooling

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-_/@#"
WORDS = ("the", "of", "a", "red", "green", "blue", "sky", "grass", "rose", "is", "and", "in")


def tiny_tokenizer(texts: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """A lower-casing word-piece tokenizer that knows the words of `texts` and spells out all others."""
    words = sorted({*WORDS, *(word for text in texts for word in text.lower().split())})
    pieces = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), *(w for w in words if len(w) > 1)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True)


def tiny_config(vocabulary_size: int, **extra: object) -> BertConfig:
    """Two layers of 32 numbers, two heads, up to 128 tokens."""
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        **extra,
    )


def tiny_base(directory: Path, texts: Iterable[str] = (), seed: int = 0) -> Path:
    """Saves a random encoder and its tokenizer as a base-model folder, as one downloads them from a hub."""
    tokenizer = tiny_tokenizer(texts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(tiny_config(len(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def tiny_model(
    directory: Path,
    *,
    task: str = "multi_label",
    names: Sequence[str] = ("red", "green", "blue"),
    fields: Sequence[str] = ("text",),
    max_tokens: int = 32,
    pooling: Pooling = "mean",
    seed: int = 0,
    vocabulary_from: Sequence[str] = (),
) -> Path:
    """Saves a trained model directory with random weights, thresholds 0.5, and returns it.

    The head is scaled up so that scores differ from text to text.
    """
    labels = LabelSchema(task=Task(task), names=tuple(names))
    tokenizer = tiny_tokenizer(vocabulary_from)
    config = tiny_config(len(tokenizer), num_labels=len(names))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = networks.from_config(config, pooling)
        head = network.get_submodule("model.classifier" if pooling == "stock" else "head")
        torch.nn.init.normal_(head.get_parameter("weight"), std=1.0)
    manifest = trained_model.Manifest(
        labels=labels,
        text=TextRecipe(fields=tuple(fields), max_tokens=max_tokens),
        decision=Decision(temperature=1.7, thresholds=(0.5,) * labels.thresholds_needed),
        pooling=pooling,
        base_model="tiny",
    )
    weights.save(directory, network, config, tokenizer, manifest)
    return directory


def encode(directory: Path, text: str) -> list[int]:
    """Token ids of one text under the tokenizer saved in `directory`."""
    ids: list[int] = AutoTokenizer.from_pretrained(directory)(text)["input_ids"]
    return ids

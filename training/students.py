"""Makes a student: an untrained network, smaller than its teacher, for the same labels.

layers   the teacher's encoder with some of its layers
static   an embedding for each token of the teacher's tokenizer
ngrams   embeddings of words and hashed n-grams of them, with a tokenizer of its own
"""

import copy
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models import network as networks
from models import weights
from models.bag import BagConfig
from models.errors import UserError
from models.weights import TrainedModel
from training import base_model
from training.base_model import Network
from training.config import StudentConfig, TrainConfig

PADDING, UNKNOWN, START = "[PAD]", "[UNK]", "[CLS]"
SPREAD = 0.1  # standard deviation of the numbers of the first embeddings
AT_ONCE = 1_024  # token ids whose states are computed at once


def start(config: TrainConfig, teacher: TrainedModel, texts: Iterable[str]) -> Network:
    """Return the student that the configuration describes. What is new in it is drawn from torch's random state.

    `texts` are those that it will be trained on.

    Raises:
        UserError: the teacher's encoder has no such layers.
    """
    student = config.student
    assert student is not None  # training.distill asks for it
    if student.kind == "layers":
        return _with_layers(teacher, student.layers, config.training.attention_dropout)
    labels = dict(enumerate(teacher.manifest.labels.names))
    made = _static(teacher, student, labels) if student.kind == "static" else _ngrams(student, texts, labels)
    if config.training.head_bias is not None:
        base_model.set_head_bias(made.module, config.training.head_bias)
    return made


def check(config: TrainConfig, teacher: TrainedModel) -> None:
    """Refuse a student that the teacher cannot have.

    Raises:
        UserError: the teacher has no such layers, or reads fewer tokens.
    """
    student = config.student
    if student is None or student.kind != "layers":
        return
    encoder = networks.encoder(teacher.network).config
    readable = weights.positions(encoder)
    if readable and config.text.max_tokens > readable:
        raise UserError(f"text.max_tokens: expected at most the teacher's {readable}, found {config.text.max_tokens}.")
    _list_of_layers(teacher)
    if (student.layers or 0) > encoder.num_hidden_layers:
        raise UserError(
            f"student.layers: expected at most the teacher's {encoder.num_hidden_layers}, found {student.layers}."
        )


def _list_of_layers(teacher: TrainedModel) -> str:
    """Return the name of the module that holds the layers of the encoder."""
    config = networks.encoder(teacher.network).config
    total = getattr(config, "num_hidden_layers", 0)
    modules = teacher.network.named_modules()
    names = [name for name, part in modules if isinstance(part, nn.ModuleList) and len(part) == total]
    if len(names) != 1:
        raise UserError(
            f"student.kind 'layers': expected a teacher with one list of layers, found {len(names)} in an encoder of "
            f"type {config.model_type}; take 'static' or 'ngrams'."
        )
    return names[0]


def _with_layers(teacher: TrainedModel, count: int | None, attention_dropout: float | None) -> Network:
    """Return a copy of the teacher with `count` of its layers, or half of them, evenly spaced from the first one on."""
    config: PretrainedConfig = copy.deepcopy(networks.encoder(teacher.network).config)
    prefix, total = f"{_list_of_layers(teacher)}.", config.num_hidden_layers
    count = max(1, total // 2) if count is None else count
    kept = [place * total // count for place in range(count)]
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == total:  # such as the kind of each layer
            setattr(config, name, [value[place] for place in kept])
    config.num_hidden_layers = count
    if attention_dropout is not None:
        base_model.set_attention_dropout(config, attention_dropout)
    network = networks.from_config(config, teacher.manifest.pooling)
    network.load_state_dict(_renumbered(teacher.network.state_dict(), prefix, kept))
    return Network(config, teacher.tokenizer, network)


def _renumbered(state: dict[str, Tensor], prefix: str, kept: list[int]) -> dict[str, Tensor]:
    """Return the weights outside of the layers, and those of the layers that are kept, by their new numbers."""
    found = {}
    for name, tensor in state.items():
        number, dot, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix):
            found[name] = tensor
        elif int(number) in kept:
            found[f"{prefix}{kept.index(int(number))}{dot}{rest}"] = tensor
    return found


def _static(teacher: TrainedModel, student: StudentConfig, labels: dict[int, str]) -> Network:
    """Return embeddings of the teacher's tokens, which begin as its states of each token by itself.

    That is how model2vec distils (github.com/MinishLab/model2vec), apart from its weights of tokens, which are learnt
    here.
    """
    vectors = _states_of_tokens(teacher.network, teacher.tokenizer)
    dimensions = min(student.dimensions, *vectors.shape)
    vectors = vectors - vectors.mean(dim=0)
    _, _, components = torch.pca_lowrank(vectors, q=dimensions, center=False)
    reduced = vectors @ components
    config = BagConfig(
        vocab_size=len(vectors),
        hidden_size=dimensions,
        pad_token_id=teacher.tokenizer.pad_token_id,
        id2label=labels,
    )
    network = networks.from_config(config, "mean")
    with torch.no_grad():
        networks.encoder(network).get_parameter("tokens.weight").copy_(reduced * (SPREAD / reduced.std()))
    return Network(config, teacher.tokenizer, network)


def _states_of_tokens(network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the mean state of a text of one token, for each token id (ids, numbers)."""
    encoder = networks.encoder(network)
    size = encoder.get_input_embeddings().weight.shape[0]
    before, after = _special(tokenizer)
    found = []
    with torch.inference_mode():
        for first in range(0, size, AT_ONCE):
            ids = torch.arange(first, min(first + AT_ONCE, size))
            parts = [torch.tensor(part).expand(len(ids), len(part)) for part in (before, after)]
            rows = torch.cat([parts[0], ids[:, None], parts[1]], dim=1)
            found.append(encoder(input_ids=rows).last_hidden_state.float().mean(dim=1))
    return torch.cat(found)


def _special(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the token ids that stand before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first = next(place for place in range(len(whole)) if whole[place : place + len(plain)] == plain)
    return whole[:first], whole[first + len(plain) :]


def _ngrams(student: StudentConfig, texts: Iterable[str], labels: dict[int, str]) -> Network:
    tokenizer = _words(texts, student.words)
    config = BagConfig(
        vocab_size=len(tokenizer),
        hidden_size=student.dimensions,
        longest=student.ngrams,
        buckets=student.buckets,
        pad_token_id=tokenizer.pad_token_id,
        id2label=labels,
    )
    return Network(config, tokenizer, networks.from_config(config, "mean"))


def _words(texts: Iterable[str], most: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer of whole words in lower case that knows the most frequent ones.

    Each text begins with a token of its own, so that none is empty.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordLevelTrainer(
        vocab_size=most + 3, min_frequency=2, special_tokens=[PADDING, UNKNOWN, START], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    start = (START, tokenizer.token_to_id(START))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[start])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PADDING, unk_token=UNKNOWN, cls_token=START)

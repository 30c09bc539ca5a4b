"""Encoders of many kinds go from a local folder through training, saving, conversion and labelling."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from inference import run
from inference.classifier import Classifier
from models import network as networks
from models import weights
from models.decision import probabilities
from models.errors import ModelError
from tests.tiny import tiny_tokenizer
from tests.training.conftest import toy_rows
from training import distill, measurement, students

pytestmark = [pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")]

TEXTS = [row["text"] for row in toy_rows()]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS = 66


def pieces(folder: Path, name: str) -> Path:
    """Train a SentencePiece model on the texts of the toy problem."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3),
        model_prefix=str(folder / name),
        vocab_size=90,
        model_type="unigram",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
    )
    return folder / f"{name}.model"


def bytes_of(texts: list[str], special: dict[str, str], first: str, last: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, as RoBERTa, Longformer, ModernBERT and BART have."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special.values()), show_progress=False)
    backend.train_from_iterator(texts, trainer)
    ids = {name: backend.token_to_id(token) for name, token in special.items()}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special[first]} $A {special[last]}",
        special_tokens=[(special[first], ids[first]), (special[last], ids[last])],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=POSITIONS, **special)


ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
BERT = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}


def roberta() -> PreTrainedTokenizerFast:
    return bytes_of(TEXTS, ROBERTA, "bos_token", "eos_token")


def save(folder: Path, config: Any, tokenizer: Any = None) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def save_with_pieces(folder: Path, name: str, tokenizer: str, config: Callable[..., Any]) -> Path:
    """Make a folder as the hub has many: a SentencePiece model and no tokenizer.json."""
    folder.mkdir()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(pieces(folder, name)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer}))
    return save(folder, config(vocab_size=processor.get_piece_size() + 8, **SMALL))


def deberta_v3(folder: Path) -> Path:
    """Make a DeBERTa-v3; mDeBERTa is alike."""
    config = functools.partial(
        transformers.DebertaV2Config, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"],
        share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, max_position_embeddings=POSITIONS,
        type_vocab_size=0, pooler_hidden_size=32,
    )  # fmt: skip
    return save_with_pieces(folder, "spm", "DebertaV2Tokenizer", config)


def xlm_roberta(folder: Path) -> Path:
    config = functools.partial(
        transformers.XLMRobertaConfig, max_position_embeddings=POSITIONS, pad_token_id=1, type_vocab_size=1
    )
    return save_with_pieces(folder, "sentencepiece.bpe", "XLMRobertaTokenizer", config)


def mpnet(folder: Path) -> Path:
    tokenizer = tiny_tokenizer(TEXTS)
    config = transformers.MPNetConfig(
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, pad_token_id=1, **SMALL
    )
    return save(folder, config, tokenizer)


def longformer(folder: Path) -> Path:
    tokenizer = roberta()
    config = transformers.LongformerConfig(
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, pad_token_id=1, attention_window=[8, 8],
        type_vocab_size=1, **SMALL,
    )  # fmt: skip
    return save(folder, config, tokenizer)


def modern_bert(folder: Path) -> Path:
    tokenizer = bytes_of(TEXTS, BERT, "cls_token", "sep_token")
    config = transformers.ModernBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, local_attention=16, pad_token_id=1,
        cls_token_id=0, sep_token_id=2, bos_token_id=0, eos_token_id=2, **SMALL,
    )  # fmt: skip
    return save(folder, config, tokenizer)


ENCODERS: dict[str, Callable[[Path], Path]] = {
    "DeBERTa-v3": deberta_v3,
    "XLM-RoBERTa": xlm_roberta,
    "MPNet": mpnet,
    "Longformer": longformer,
    "ModernBERT": modern_bert,
}
SHORT = "epochs = 1\nbatch_size = 16\nlearning_rate = 1e-3\nmax_train_samples = 64\n"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write texts of many lengths as a corpus."""
    path = tmp_path / "corpus.jsonl"
    with path.open("w") as file:
        for number, text in enumerate([*TEXTS[:20], "red", " ".join(TEXTS[:9])]):
            file.write(json.dumps({"id": f"c{number}", "text": text}) + "\n")
    return path


@pytest.mark.parametrize("pooling", [pytest.param("stock", marks=pytest.mark.slow), "mean"])
@pytest.mark.parametrize("name", list(ENCODERS))
def test_an_encoder_goes_the_whole_way(
    name: str, pooling: str, tmp_path: Path, start: Callable[..., int], rows: Path, record_property: Callable[..., None]
) -> None:
    """Its scores by OpenVINO, by torch in inference and by the plain loop of training differ in the last digits."""
    if name == "MPNet" and pooling == "stock":
        pooling = "first"
    base = ENCODERS[name](tmp_path / "base_model")
    flags = ["--set", f"model.base={base}"]
    assert start("multi_label", tmp_path / "m", *flags, pooling=pooling, training=SHORT) == 0
    loaded = weights.load(tmp_path / "m")
    texts = [loaded.manifest.text.clean(json.loads(line)["text"]) for line in rows.read_text().splitlines()]
    logits = measurement.score(loaded.network, loaded.tokenizer, texts, loaded.manifest.text)
    expected = probabilities(logits, loaded.manifest.labels.task, loaded.manifest.decision)
    differences = {}
    for runtime in ("torch", "auto"):
        classifier = Classifier(str(tmp_path / "m"), runtime=runtime, precision="fp32", device="cpu")
        found = classifier.score(texts)
        differences[runtime] = float(np.abs(found - expected).max())
    record_property("differences", differences)
    print(f"{name}, {pooling}: " + ", ".join(f"{key} {value:.1e}" for key, value in differences.items()))
    assert max(differences.values()) < 1e-5
    assert (
        run.main(["--model", str(tmp_path / "m"), "--input", str(rows), "--output", str(tmp_path / "out.jsonl")]) == 0
    )
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(texts)
    for kind in ("layers", "static"):  # it can be a teacher
        (tmp_path / "student.toml").write_text(f"[student]\nkind = '{kind}'\n")
        config = distill.config_of(tmp_path / "m", tmp_path / "student.toml", [])
        student = students.start(config, loaded, [])
        assert getattr(networks.encoder(student.module).config, "num_hidden_layers", 0) == (kind == "layers")
        logits = measurement.score(student.module, student.tokenizer, texts, loaded.manifest.text)
        assert logits.shape == expected.shape
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ["Longformer", "MPNet", "XLM-RoBERTa"])
def test_positions_that_the_padding_takes_are_not_read(
    name: str, tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """These architectures number positions from the padding token's id + 1, so two of 66 cannot be used."""
    base = ENCODERS[name](tmp_path / "base_model")
    assert start("multi_label", tmp_path / "m", "--set", f"model.base={base}", f"text.max_tokens={POSITIONS}") == 2
    assert f"reads {POSITIONS - 2} at most" in capsys.readouterr().err


def bart(folder: Path) -> Path:
    tokenizer = roberta()
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=POSITIONS,
    )  # fmt: skip
    return save(folder, config, tokenizer)


def t5(folder: Path) -> Path:
    tokenizer = roberta()
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    return save(folder, config, tokenizer)


def gpt2(folder: Path) -> Path:
    tokenizer = bytes_of(TEXTS, {"bos_token": "<s>", "eos_token": "</s>"}, "bos_token", "eos_token")
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=POSITIONS)
    return save(folder, config, tokenizer)


@pytest.mark.parametrize("pooling", ["stock", "mean"])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (bart, "expected an encoder, found an encoder with a decoder (bart)"),
        (t5, "expected an encoder, found an encoder with a decoder (t5)"),
        (gpt2, "expected a tokenizer that can pad, found none"),
    ],
)
def test_what_is_no_encoder_is_refused_before_training(
    make: Callable[[Path], Path],
    sentence: str,
    pooling: str,
    tmp_path: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = make(tmp_path / "base_model")
    assert start("multi_label", tmp_path / "m", "--set", f"model.base={base}", pooling=pooling) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m.checkpoints").exists()


def test_a_runtime_by_name_is_refused_for_a_network_that_branches(tmp_path: Path, start: Callable[..., int]) -> None:
    """Its conversion once ended the process. Without a name, torch takes over, and the receipts say why."""
    base = longformer(tmp_path / "base_model")
    assert start("multi_label", tmp_path / "m", "--set", f"model.base={base}", training=SHORT) == 0
    with pytest.raises(ModelError, match="openvino cannot compute a longformer network; use --runtime torch"):
        Classifier(str(tmp_path / "m"), runtime="openvino", device="cpu")
    runtime = Classifier(str(tmp_path / "m"), device="cpu")._scorer.runtime
    assert (runtime.name, runtime.reason) == ("torch", "openvino cannot compute longformer")

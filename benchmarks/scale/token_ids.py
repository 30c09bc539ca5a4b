"""Compares the token ids of cut texts with those of whole ones; writes results/token_ids.json.

    python -m benchmarks.scale.token_ids --data DATA --model models/trained/demo

The texts are real: papers, comments, docstrings, and several of one kind joined to a long text by different spaces.
Each tokenizer reads all of them, and so little of each that most are cut. WordPiece is the model's own. The others are
trained here on the papers, because no hub is needed then.
"""

import argparse
import ast
import itertools
import json
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks import environment
from benchmarks.scale.cases import papers
from models import tokenizing, weights
from models.text import CLEANING_STEPS, TextRecipe

RESULT = Path(__file__).parent / "results" / "token_ids.json"
TEXTS = 100_000
JOINED = 20  # texts in a long one
SEPARATORS = (" ", "\n", "\n\n", " \n  ", "\t", "\u00a0", " \u3000 ")
CHUNK = 2_000  # texts that are compared at a time
MAX_TOKENS = 64
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
RECIPES = (("nfc", "whitespace"), tuple(step for step in CLEANING_STEPS if step != "lower_case"))


def main() -> None:
    """Compare all texts with every tokenizer and two cleanings, and count the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with arxiv/ and goemotions/")
    parser.add_argument("--model", type=Path, required=True, help="directory of a trained model")
    parser.add_argument("--texts", type=int, default=TEXTS, help=f"number of texts (default: {TEXTS:,})")
    flags = parser.parse_args()
    texts = list(_texts(flags.data, flags.texts))
    result: dict[str, Any] = {**environment.describe(), "texts": len(texts), "max_tokens": MAX_TOKENS, "rows": []}
    for name, tokenizer in _tokenizers(flags.model, texts[:3_000]):
        for cleaning in RECIPES:
            row = {"tokenizer": name, "cleaning": cleaning, **_compare(tokenizer, texts, TextRecipe(cleaning=cleaning))}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _texts(data: Path, count: int) -> Iterator[str]:
    """Yield papers, comments and docstrings by turns, and among a hundred a long one."""
    comments = (line.split("\t")[0] for line in (data / "goemotions" / "train.tsv").open(encoding="utf-8"))
    sources = itertools.cycle(
        [papers(data, "recent.jsonl.xz"), comments, papers(data, "archive.jsonl.xz"), _docstrings()]
    )
    separators = itertools.cycle(SEPARATORS)
    for number in range(count):
        length = 1 if number % 101 else JOINED
        yield next(separators).join(itertools.islice(next(sources), length))


def _docstrings() -> Iterator[str]:
    """Yield the docstrings of the installed packages."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        try:
            nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kinds)]
        except (SyntaxError, ValueError):
            continue
        yield from filter(None, (ast.get_docstring(node, clean=False) for node in nodes))


def _tokenizers(model: Path, texts: Sequence[str]) -> Iterator[tuple[str, PreTrainedTokenizerBase]]:
    yield "WordPiece", weights.load(str(model)).tokenizer
    options: dict[str, Any] = {"special_tokens": SPECIAL, "show_progress": False, "vocab_size": 8_000}
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    byte_level.train_from_iterator(
        texts, trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    yield "byte-level BPE", _wrapped(byte_level)
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(texts, trainers.UnigramTrainer(**options, unk_token="<unk>"))
    yield "Unigram", _wrapped(unigram)


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerBase:
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


def _compare(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: TextRecipe) -> dict[str, int]:
    cut = differ = 0
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        whole = tokenizer([recipe.clean(text) for text in chunk], truncation=True, max_length=MAX_TOKENS)["input_ids"]
        found = tokenizing.encode(tokenizing.of(tokenizer), chunk, MAX_TOKENS, recipe)
        differ += sum(ours != theirs for ours, theirs in zip(found, whole, strict=True))
        cut += sum(len(text) > tokenizing.CHARACTERS_PER_TOKEN * MAX_TOKENS for text in chunk)
    return {"cut": cut, "differences": differ}


if __name__ == "__main__":
    main()

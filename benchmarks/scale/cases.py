"""Times one case on whichever clone comes first on the path, and prints a JSON object. `texts.py` runs it.

Only names that earlier commits have too are used here. All times are CPU times of the process and its threads, because
other programs may run beside it.
"""

import hashlib
import itertools
import json
import lzma
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ROUNDS = 15  # the fastest one counts
LONG_TEXTS = 40
LONG_WORDS = 10_000  # words of a long text
SHORT_TOKENS = 512  # tokens of a short text, with special tokens
DOCUMENTS, LABELS = 14_000, 1_212


def papers(data: Path, file: str) -> Iterator[str]:
    """Yield the title and the abstract of each arXiv paper in a file."""
    with lzma.open(data / "arxiv" / file) as lines:
        for line in lines:
            paper = orjson.loads(line)
            yield paper["title"] + "\n" + paper["abstract"]


def lengths(model: str, data: str, max_tokens: str) -> dict[str, Any]:
    """CPU time to parse, clean and tokenise a long text and a short one, when the model reads `max_tokens`."""
    from inference.corpus.records import DocumentRecipe, Line, read_documents
    from inference.scoring.options import ScoringOptions, text_recipes
    from inference.scoring.scorer import Scorer
    from models import weights

    words = " ".join(itertools.islice(papers(Path(data), "recent.jsonl.xz"), 5_000)).split(" ")
    long = [" ".join(words[i * LONG_WORDS :][:LONG_WORDS]) for i in range(LONG_TEXTS)]
    loaded = weights.load(model)
    ends = loaded.tokenizer(long, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    short = [text[: offsets[SHORT_TOKENS - 2][1]] for text, offsets in zip(long, ends, strict=True)]
    options = ScoringOptions((model,), runtime="torch", max_tokens=int(max_tokens))
    recipe = DocumentRecipe(text_recipes(options, [loaded.manifest]))
    scorer = Scorer(options)
    found: dict[str, Any] = {"max_tokens": int(max_tokens)}
    seconds: dict[str, list[float]] = {"short": [], "long": []}
    for _ in range(ROUNDS):
        for name, texts in (("short", short), ("long", long)):
            lines = [Line(i, orjson.dumps({"id": i, "text": text})) for i, text in enumerate(texts)]
            began = time.process_time()
            tokens = scorer.count_tokens(read_documents(lines, "f", recipe).documents)
            seconds[name].append((time.process_time() - began) / len(lines))
            found[f"{name}_tokens"] = tokens / len(lines)
    found |= {f"{name}_ms": round(min(times) * 1e3, 3) for name, times in seconds.items()}
    return found | {"ratio": round(min(seconds["long"]) / min(seconds["short"]), 2)}


def integers() -> dict[str, Any]:
    """CPU time to parse lines with and without integers of 19 digits, in microseconds a line."""
    from inference.corpus.records import parse_record

    chance, text = np.random.default_rng(0), "a tweet of some length about nothing " * 5
    records = {
        "tweet, short id": {"id": 123_456, "text": text},
        "tweet, 19 digits": {"id": 1_812_345_678_901_234_567, "text": text},
        "tweet, 20 digits in the text": {"id": 123_456, "text": text + " 12345678901234567890"},
        "integer beyond 64 bits": {"id": 123_456_789_012_345_678_901, "text": text},
        "10,000 words": {"id": 123_456, "text": "a word " * 10_000},
        "768 floats": {"id": 123_456, "text": text, "vector": chance.normal(size=768).tolist()},
    }
    return {name: _microseconds(parse_record, json.dumps(record).encode()) for name, record in records.items()}


def _microseconds(function: Callable[[bytes], Any], data: bytes) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(200):
            function(data)
        times.append((time.process_time() - began) / 200 * 1e6)
    return round(min(times), 2)


def labels(file_format: Any, selection: str) -> dict[str, Any]:
    """CPU seconds and peak memory from random logits to a written file, and the hash of the file and of the counts."""
    from inference.runs import rows
    from inference.runs.options import RunOptions
    from inference.scoring.options import ScoringOptions
    from inference.scoring.predictions import ModelScores, Predictions
    from inference.scoring.tally import Counts
    from models.decision import Decision
    from models.labels import LabelSchema, Task
    from models.text import TextRecipe
    from models.trained_model import Manifest

    names = tuple(f"label {i}" for i in range(LABELS))
    decision = Decision(temperature=1.7, thresholds=(0.5,) * LABELS)
    schema = LabelSchema(task=Task.MULTI_LABEL, names=names)
    manifest = Manifest(labels=schema, text=TextRecipe(), decision=decision, pooling="mean", base_model="")
    logits = np.random.default_rng(0).normal(-4, 2, (DOCUMENTS, LABELS)).astype(np.float32)
    ids, kept = [f"d{i}" for i in range(DOCUMENTS)], [{"year": i} for i in range(DOCUMENTS)]
    options = RunOptions("", 1, ScoringOptions(("m",)), keep_fields=("year",), file_format=file_format)
    counts = Counts()
    with tempfile.TemporaryFile() as file:
        began = time.process_time()
        scores = ModelScores.from_logits(manifest, selection, logits)
        counts.count_labels("m", names, scores.all_decided())
        rows.write(Predictions(range(DOCUMENTS), ids, kept, {"m": scores}), options, file)
        seconds = time.process_time() - began
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"format": file_format, "scores": selection, "seconds": round(seconds, 2), "sha256": sha256[:16]}


def metrics() -> dict[str, Any]:
    """CPU seconds of each measure of a training on random scores, and the hash of all results to ten places."""
    from models.decision import Decision, decide
    from models.labels import LabelSchema, Task
    from training import calibrate
    from training import metrics as measures

    chance = np.random.default_rng(0)
    targets = (chance.random((DOCUMENTS, LABELS)) < chance.beta(0.5, 60, LABELS)).astype(np.float32)
    probs = 1 / (1 + np.exp(4 - 4 * targets - chance.normal(0, 2, targets.shape)))
    schema = LabelSchema(task=Task.MULTI_LABEL, names=tuple(f"label {i}" for i in range(LABELS)))
    decision = Decision(thresholds=calibrate.choose_thresholds(probs, targets, schema))
    cases: dict[str, Callable[[], Any]] = {
        "thresholds": lambda: calibrate.choose_thresholds(probs, targets, schema),
        "measure": lambda: measures.measure(probs, targets, schema, decision),
        "ranking": lambda: measures.ranking(probs, targets, schema),
        "intervals": lambda: measures.intervals(decide(probs, schema, decision), targets, schema),
    }
    seconds, digest = {}, hashlib.sha256()
    for name, case in cases.items():
        began = time.process_time()
        value = case()
        seconds[name] = round(time.process_time() - began, 2)
        digest.update(json.dumps(_rounded(value)).encode())
    return seconds | {"sha256": digest.hexdigest()[:16]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 10) if isinstance(value, float) else value


def main(arguments: Sequence[str]) -> None:
    """Run the case that is named first, with the other arguments."""
    case: Callable[..., dict[str, Any]] = {
        function.__name__: function for function in (lengths, integers, labels, metrics)
    }[arguments[0]]
    print(json.dumps(case(*arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])

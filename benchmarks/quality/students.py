r"""Distils students of each kind from a teacher of arXiv subjects; writes results/students.json.

    python -m benchmarks.quality.students --data_dir DATA --models models/trained --texts 12000 \
        --set text.max_tokens=128

The teacher is trained by training/configs/arxiv_subjects.toml, unless it is in --models already. It labels papers, and
each configuration in training/configs/students/ learns from those that it was neither trained nor measured on. The
speed is that of scoring test papers in memory, without a start. The models take turns.
"""

import argparse
import json
import lzma
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from inference.classifier import Classifier
from models import network as networks
from models import trained_model, weights
from training import data_splits, distill, terminal, train
from training.config_file import load_config

RESULT = Path(__file__).parent / "results" / "students.json"
CONFIGS = environment.ROOT / "training" / "configs"
CONFIG = CONFIGS / "arxiv_subjects.toml"
WARM_UP = 64  # texts that are scored before the clock starts
AT_LEAST = 3.0  # seconds of a timing, for which the texts are scored again and again


def main() -> None:
    """Train the teacher, let it label, distil each student, and measure them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("models/trained"))
    parser.add_argument("--texts", type=int, default=12_000, help="papers for the teacher to label")
    parser.add_argument("--speed_on", type=int, default=1_000, help="test papers to score for the speed")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", nargs="+", default=[], help="settings of the teacher, such as text.max_tokens=128")
    flags = parser.parse_args()
    terminal.quiet_libraries()
    teacher = flags.models / CONFIG.stem
    if not teacher.exists():
        given = ["--data_dir", flags.data_dir, "--output", teacher]
        _run(train.main, [CONFIG, *given, *(["--set", *flags.set] if flags.set else [])])
    texts = flags.models / f"unlabelled_{flags.texts}.jsonl"
    if not texts.exists():
        _write(texts, flags.data_dir, flags.texts)
    models = {"teacher": teacher}
    run = None
    for student in sorted((CONFIGS / "students").glob("*.toml")):
        models[student.stem] = output = flags.models / f"{CONFIG.stem}_{student.stem}"
        source = ["--run", run] if run else ["--texts", texts]
        given = ["--teacher", teacher, "--student", student, "--data_dir", flags.data_dir, "--output", output]
        _run(distill.main, [*given, *source, "--resume"])
        run = run or output.with_name(f"{output.name}.taught")
    rows = {name: _quality(folder) for name, folder in models.items()}
    speeds = _speeds(models, flags.data_dir, flags.speed_on, flags.rounds)
    result = {
        **environment.describe(),
        "texts": flags.texts,
        "settings": flags.set,
        "models": {name: row | {"docs_per_second": speeds[name]} for name, row in rows.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RESULT}")


def _run(command: Any, words: Iterable[object]) -> None:
    if code := command(list(map(str, words))):
        sys.exit(code)


def _write(path: Path, data_dir: Path, count: int) -> None:
    """Write papers that are drawn by chance, without their labels."""
    with lzma.open(data_dir / "arxiv" / "recent.jsonl.xz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    kept = ({key: rows[place][key] for key in ("id", "title", "abstract")} for place in chosen)
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _quality(folder: Path) -> dict[str, Any]:
    manifest = trained_model.read_manifest(folder)
    test = manifest.metrics["test"]
    return {
        "parameters": networks.num_parameters(weights.load(folder).network),
        "bytes": sum((folder / name).stat().st_size for name in manifest.files),
        "macro_f1": test["macro_f1"],
        "interval": test["intervals"]["macro_f1"],
        "f1": {name: row["f1"] for name, row in test["labels"].items()},
        "training_seconds": manifest.training["seconds"],
        "training_documents": manifest.training["documents"],
    }


def _speeds(models: dict[str, Path], data_dir: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Return the documents per second of each model in each round; the models take turns."""
    config = load_config(CONFIG)
    splits = data_splits.prepare(config, data_dir).splits
    texts = list(splits.test.texts[:count])
    speeds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, folder in models.items():
            classifier = Classifier(str(folder))
            classifier.score(texts[:WARM_UP])
            scored, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < AT_LEAST or not scored:
                classifier.score(texts)
                scored += len(texts)
            speeds[name].append(round(scored / (time.perf_counter() - began), 1))
            print(f"{name}: {speeds[name][-1]:,.1f} docs/s, {took:.1f} s", flush=True)
    return speeds


if __name__ == "__main__":
    main()

"""Measures the memory and time that a training needs for its data; writes results/memory.json.

    python -m benchmarks.training.memory --data DATA --base DIR --corpora DIR --papers 250000 2000000

The papers are made from those in DATA/arxiv, so that any number of them has the lengths and the shared phrases of real
ones. Each size is read, cleaned, split and tokenised in a process of its own. Two updates follow.
"""

import argparse
import gc
import json
import lzma
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import environment
from models import hardware

RESULT = Path(__file__).parent / "results" / "memory.json"
CONFIG = environment.ROOT / "training" / "configs" / "arxiv_subjects.toml"
TOGETHER = 64  # papers whose words are mixed
UPDATES = 2


def main() -> None:
    """Measure each number of papers, or be the process of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds arxiv/")
    parser.add_argument("--base", required=True, help="base model, a small one: it decides the time of two updates")
    parser.add_argument("--corpora", type=Path, default=Path("build/corpora"), help="folder that keeps the papers made")
    parser.add_argument("--papers", type=int, nargs="+", required=True)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(_measured(flags.data, flags.base)))
        return
    papers = _papers(flags.data / "arxiv")
    result: dict[str, Any] = {**environment.describe(), "updates": UPDATES, "rows": []}
    for count in flags.papers:
        folder = flags.corpora / str(count)
        if not folder.exists():
            _write(papers, count, folder)
        command = [sys.executable, "-m", "benchmarks.training.memory", "--data", str(folder), "--base", flags.base]
        command += ["--papers", str(count), "--measure"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result["rows"].append({"papers": count} | json.loads(output.splitlines()[-1]))
        print(json.dumps(result["rows"][-1]), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _papers(folder: Path) -> list[dict[str, Any]]:
    papers = []
    for path in sorted(folder.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            papers += [json.loads(line) for line in lines]
    return papers


def _write(papers: list[dict[str, Any]], count: int, folder: Path) -> None:
    """Write a corpus under the name that the configuration has."""
    staging = folder.with_name(f".{folder.name}")
    (staging / "arxiv").mkdir(parents=True, exist_ok=True)
    with lzma.open(staging / "arxiv" / "recent.jsonl.xz", "wt", encoding="utf-8", preset=0) as file:
        file.writelines(json.dumps(paper) + "\n" for paper in _made(papers, count))
    staging.rename(folder)


def _made(papers: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Yield papers whose abstracts are runs of four to nine words of others. Each has its length and its labels."""
    chance = random.Random(0)
    made = 0
    while True:
        for start in range(0, len(papers), TOGETHER):
            some = papers[start : start + TOGETHER]
            lengths = [len(paper["abstract"].split()) for paper in some]
            words = [word for paper in some for word in paper["abstract"].split()]
            runs = []
            while words:
                length = chance.randrange(4, 10)
                runs.append(words[-length:])
                del words[-length:]
            chance.shuffle(runs)
            words = [word for run in runs for word in run]
            for paper, length in zip(some, lengths, strict=True):
                abstract, words = " ".join(words[:length]), words[length:]
                yield {**paper, "id": f"{made}", "abstract": abstract}
                made += 1
                if made == count:
                    return


def _measured(data_dir: Path, base: str) -> dict[str, Any]:
    """Return the peak memory of this process and the seconds, after the preparation and after the updates."""
    from transformers import TrainerCallback

    from training import base_model, config_file, data_splits, fit, terminal

    class Stop(TrainerCallback):
        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            control.should_training_stop = state.global_step >= UPDATES

    terminal.quiet_libraries()
    overrides = ("data.split.validation=0.01", "training.max_train_samples=100000000", f"model.base={base}")
    config = config_file.load_config(CONFIG, overrides)
    began = time.monotonic()
    prepared = data_splits.prepare(config, data_dir)
    found = {"prepared": hardware.peak_memory() >> 20, "prepare_seconds": round(time.monotonic() - began)}
    gc.collect()
    network = base_model.start(config, prepared.schema)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as checkpoints:
        fit.fit(network, prepared, config, Path(checkpoints), [Stop()])
    characters = sum(map(len, prepared.splits.train.texts))
    return {
        **found,
        "trained": hardware.peak_memory() >> 20,
        "fit_seconds": round(time.monotonic() - began),
        "documents": {name: len(part) for name, part in prepared.splits.items()},
        "characters": round(characters / len(prepared.splits.train)),
    }


if __name__ == "__main__":
    main()

"""Trains one model for each way of reading texts of more than 512 tokens; writes results/long_texts.json.

    python -m benchmarks.quality.long_texts

A text is all docstrings of a module of an installed package, one after the other. The label is the package.
"""

import hashlib
import json
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from models import trained_model
from training import base_model, config_file, terminal, train
from training.demo_corpus import PACKAGES, docstrings

RESULT = Path(__file__).parent / "results" / "long_texts.json"
CONFIG = environment.ROOT / "training" / "configs" / "demo.toml"
AT_LEAST = 512  # tokens of a text
SIZES = {"train": 40, "validation": 15, "test": 30}  # most texts of a package
WAYS = {  # settings of a training by its name
    "head, 64 tokens": ("text.max_tokens=64",),
    "head and tail, 64 tokens": ("text.max_tokens=64", 'text.long="head_tail"'),
    "mean of 4 windows of 64 tokens": ("text.max_tokens=64", 'text.long="windows_mean"', "text.windows=4"),
    "maximum of 4 windows of 64 tokens": ("text.max_tokens=64", 'text.long="windows_max"', "text.windows=4"),
    "head, 256 tokens": ("text.max_tokens=256",),
}


def main() -> None:
    """Make the corpus, and train and measure each way of reading it."""
    terminal.quiet_libraries()
    result: dict[str, Any] = {**environment.describe(), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        result["corpus"] = _write(Path(folder))
        print(json.dumps(result["corpus"]), flush=True)
        for name, settings in WAYS.items():
            result["rows"].append({"name": name} | _measured(Path(folder), settings))
            print(json.dumps(result["rows"][-1]), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _write(folder: Path) -> dict[str, Any]:
    """Write the three splits. Return the number of texts of each, and the quartiles of their lengths in tokens."""
    config = config_file.load_config(CONFIG)
    tokenizer = base_model.tokenizer(config.model)
    site_packages = Path(sysconfig.get_paths()["purelib"])
    parts: dict[str, list[dict[str, str]]] = {split: [] for split in SIZES}
    lengths = []
    for package in PACKAGES:
        left = dict(SIZES)
        paths = (site_packages / package).rglob("*.py")
        for module in sorted((str(path.relative_to(site_packages)) for path in paths), key=_hash):
            if not any(left.values()):
                break
            split = max(left, key=lambda name: left[name] / SIZES[name])
            text = "\n".join(text for _, text in docstrings(site_packages / module))
            if len(text.split()) < AT_LEAST / 2 or (length := len(tokenizer(text)["input_ids"])) < AT_LEAST:
                continue
            lengths.append(length)
            left[split] -= 1
            parts[split].append({"id": module, "text": text, "package": package})
    for split, rows in parts.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    quartiles = np.percentile(lengths, (25, 50, 75)).astype(int).tolist()
    return {"texts": {split: len(rows) for split, rows in parts.items()}, "tokens": quartiles}


def _measured(folder: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    output = folder / "model"
    overrides = ("training.epochs=3", "training.batch_size=16", *settings)
    flags = [word for setting in overrides for word in ("--set", setting)]
    command = [str(CONFIG), "--data_dir", str(folder), "--output", str(output), "--overwrite", *flags]
    if train.main(command):
        sys.exit(2)
    manifest = trained_model.read_manifest(output)
    metrics = manifest.metrics["test"]
    return {
        "macro_f1": metrics["macro_f1"],
        "interval": metrics["intervals"]["macro_f1"],
        "seconds": manifest.training["seconds"],
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()

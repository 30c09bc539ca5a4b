"""Trains a configuration of training/configs and a baseline on the same splits; writes results/NAME.json.

python -m benchmarks.quality.run goemotions --data_dir data
python -m benchmarks.quality.run arxiv_subjects arxiv_cyber tweets_offensive tweets_irony --data_dir data
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.quality import baseline
from models import trained_model
from training import data_splits, terminal, train
from training.config_file import load_config
from training.examples import SPLITS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONFIGS = environment.ROOT / "training" / "configs"


def main() -> None:
    """Run every named configuration, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(path.stem for path in CONFIGS.glob("*.toml")))
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("models/trained"), help="where the models go")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was killed")
    flags = parser.parse_args()
    where = environment.describe()
    for name in flags.names:
        row = measure(name, flags.data_dir, flags.models / name, resume=flags.resume)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps({"name": name, **where, **row}, indent=1) + "\n")
        print(f"wrote {RESULTS / name}.json")


def measure(name: str, data_dir: Path, output: Path, *, resume: bool) -> dict[str, Any]:
    """Train one model and one baseline on the same documents, and return both results."""
    path = CONFIGS / f"{name}.toml"
    config = load_config(path)
    terminal.quiet_libraries()
    prepared = data_splits.prepare(config, data_dir)
    splits = data_splits.limited(prepared, config).splits
    began = time.monotonic()
    tfidf = baseline.run(splits, prepared.schema)
    baseline_seconds = time.monotonic() - began
    print(f"{name}: baseline macro-F1 {tfidf.metrics['macro_f1']:.3f} in {baseline_seconds:.0f} s", flush=True)
    flags = ["--resume"] if resume else ["--overwrite"]
    if train.main([str(path), "--data_dir", str(data_dir), "--output", str(output), *flags]):
        sys.exit(2)
    manifest = trained_model.read_manifest(output)
    return {
        "seed": config.training.seed,
        "documents": {part: len(getattr(splits, part)) for part in SPLITS},
        "data_sha256": {part: getattr(splits, part).sha256() for part in SPLITS},
        "config": manifest.training["config"],
        "model": _kept(manifest.metrics["test"])
        | {key: manifest.training[key] for key in ("seconds", "examples_per_second", "peak_memory_mib")}
        | {"decision": manifest.decision.model_dump()},
        "baseline": _kept(tfidf.metrics) | {"seconds": round(baseline_seconds, 1)},
    }


def _kept(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key not in ("data_sha256", "confusion")}


if __name__ == "__main__":
    main()

"""Weights & Biases gets a run for each model, with base model, data and test metrics, and a sweep sets any key."""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import UserError
from training import trackers

ROOT = Path(__file__).parents[2]


def test_an_error_of_a_tracker_is_one_sentence() -> None:
    error = type("UsageError", (Exception,), {"__module__": "wandb.errors"})
    sentence = r"W&B cannot begin a run \(No API key configured\); log in with `wandb login`"
    with pytest.raises(UserError, match=sentence), trackers.explained():
        raise error("No API key\nconfigured.")
    with pytest.raises(KeyError), trackers.explained():
        raise KeyError("ours")


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a W&B file, which is a log of LevelDB's format behind seven bytes."""
    raw, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(raw):
        if (left := 32_768 - place % 32_768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", raw[place : place + 7])
        record += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def contents(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return configuration and summary of a W&B run, as JSON by key."""
    wandb_internal_pb2: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    config: dict[str, str] = {}
    summary: dict[str, str] = {}
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for one in (*record.run.config.update, *record.config.update):
            config[one.key] = one.value_json
        for one in record.summary.update:
            summary["/".join(one.nested_key) or one.key] = one.value_json
    return config, summary


@pytest.mark.slow
def test_each_model_is_a_run_of_wandb(tmp_path: Path, start: Callable[..., int]) -> None:
    """The words after the configuration are those that W&B's agent writes for a sweep's parameters."""
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    assert start("multi_label", tmp_path / "first", "--epochs=1") == 0
    words = [sys.executable, "-m", "training.train", str(tmp_path / "config.toml"), "--data_dir", str(tmp_path)]
    words += ["--output", str(tmp_path / "m"), "--learning_rate=0.004", "--training.batch_size=8", "--epochs=1"]
    words += ["--training.one_vs_rest=true", "--report_to=wandb"]
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [contents(path) for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))]
    assert [config["labels"] for config, _ in found] == [
        f'["not_{name}","{name}"]' for name in ("red", "green", "blue")
    ]
    for config, summary in found:
        assert config["base_model"].strip('"').endswith("tiny")
        assert "rows.jsonl" in config["data"]
        assert (config["learning_rate"], config["per_device_train_batch_size"]) == ("0.004", "8")
        assert 0 <= float(summary["test/macro_f1"]) <= 1
        assert 0 <= float(summary["validation/f1"]) <= 1
    environment["WANDB_MODE"] = "online"
    done = subprocess.run(
        [*words, "--overwrite"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "training.report_to: W&B cannot begin a run" in done.stderr

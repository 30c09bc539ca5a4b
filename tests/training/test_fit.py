"""Weights are fitted with the configured rates, weights, precision and checkpoints, in one process or several."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import T5Config

from models import network as networks
from models import trained_model, weights
from models.errors import UserError
from models.trained_model import Pooling
from tests.tiny import tiny_config
from tests.training.conftest import toy_rows, write_rows
from training import base_model, fit, measurement
from training.config import TrainingConfig

pytestmark = [
    # The Trainer looks for an accelerator, and torch says so on machines without one.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def parameters(network: torch.nn.Module, settings: TrainingConfig) -> dict[tuple[float, float], set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: dict[tuple[float, float], set[str]] = {}
    for group in fit._optimizer(network, settings, fused=True).param_groups:
        groups.setdefault((group["lr"], group["weight_decay"]), set()).update(names[id(p)] for p in group["params"])
    return groups


@pytest.mark.parametrize(("pooling", "head"), [("mean", "head"), ("stock", "model.classifier")])
def test_the_head_learns_at_its_own_rate_and_starts_at_its_own_bias(pooling: Pooling, head: str) -> None:
    network = networks.from_config(tiny_config(50, num_labels=4), pooling)
    settings = TrainingConfig(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)
    groups = parameters(network, settings)
    assert groups[(1e-2, 0.1)] == {f"{head}.weight"}
    assert groups[(1e-2, 0.0)] == {f"{head}.bias"}
    assert not any(name.startswith(head) or "bias" in name for name in groups[(1e-4, 0.1)])
    assert all("bias" in name or "LayerNorm" in name for name in groups[(1e-4, 0.0)])
    assert sum(map(len, groups.values())) == len(list(network.parameters()))
    base_model.set_head_bias(network, -3.0)
    assert dict(network.named_parameters())[f"{head}.bias"].tolist() == [-3.0] * 4


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_gradient_checkpointing_changes_no_weight(
    pooling: str, tmp_path: Path, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are computed twice, with the same dropout."""
    passes: list[int] = []
    attention = transformers.models.bert.modeling_bert.BertSelfAttention
    forward = attention.forward

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(1)
        return forward(*given, **named)

    monkeypatch.setattr(attention, "forward", counted)
    states = []
    for setting in ("false", "true"):
        flags = ("--set", "training.epochs=1", f"training.gradient_checkpointing={setting}", "training.precision=fp32")
        assert start("multi_label", tmp_path / setting, *flags, pooling=pooling) == 0
        states.append((weights.load(tmp_path / setting).network.state_dict(), len(passes)))
        passes.clear()
    (plain, once), (checkpointed, twice) = states
    assert all(torch.equal(tensor, checkpointed[name]) for name, tensor in plain.items())
    assert twice > once


def test_attention_dropout_reaches_every_layer_of_the_encoder(tmp_path: Path, start: Callable[..., int]) -> None:
    flags = ("--set", "training.epochs=1", "--set", "training.attention_dropout=0")
    assert start("binary", tmp_path / "model", *flags) == 0
    layers: Any = weights.load(tmp_path / "model").network.modules()
    rates = [layer.dropout.p for layer in layers if type(layer).__name__ == "BertSelfAttention"]
    assert rates == [0, 0]


def test_attention_dropout_is_refused_where_the_encoder_has_none() -> None:
    with pytest.raises(UserError, match="t5 has neither; remove the key"):
        base_model.set_attention_dropout(T5Config(), 0.0)


def test_bf16_is_used_on_request_and_weights_are_kept_in_fp32(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1", "--set", "training.precision=bf16") == 0
    state = torch.load(tmp_path / "model" / "model.pth", weights_only=True)
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(("capability", "fp16"), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_that_only_emulates_bf16_trains_in_fp16(
    capability: tuple[int, int], fp16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(fit, "TrainingArguments", lambda **given: SimpleNamespace(**given))
    arguments = fit._arguments(TrainingConfig(), 64, tmp_path)
    assert (arguments.fp16, arguments.bf16, arguments.use_cpu) == (fp16, not fp16, False)


@pytest.mark.parametrize("name", ["is_torch_xpu_available", "is_torch_xla_available"])
def test_another_accelerator_is_used_even_beside_a_processor_with_bf16(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.hardware.has_bf16", lambda _: True)
    monkeypatch.setattr(fit, "TrainingArguments", lambda **given: SimpleNamespace(**given))
    assert fit._arguments(TrainingConfig(), 64, tmp_path).use_cpu
    monkeypatch.setattr(fit, name, lambda: True)
    arguments = fit._arguments(TrainingConfig(), 64, tmp_path)
    assert (arguments.use_cpu, arguments.bf16) == (False, False)


@pytest.mark.parametrize(("max_tokens", "documents"), [(16, 512), (512, 16), (10_000, 1)])
def test_a_batch_of_an_evaluation_has_a_budget_of_tokens(max_tokens: int, documents: int, tmp_path: Path) -> None:
    assert fit._arguments(TrainingConfig(), max_tokens, tmp_path).per_device_eval_batch_size == documents


def test_class_weights_raise_the_recall_of_a_rare_label(tmp_path: Path, start: Callable[..., int]) -> None:
    rows = [row for number, row in enumerate(toy_rows(600)) if not row["has_red"] or number % 20 == 1]
    write_rows(tmp_path / "rare.jsonl", rows)
    probs = []
    for weigh in ("false", "true"):
        flags = ["data.train=rare.jsonl", "training.epochs=1", f"training.class_weights={weigh}"]
        output = tmp_path / weigh
        assert start("multi_label", output, *(part for flag in flags for part in ("--set", flag))) == 0
        model = weights.load(output)
        logits = measurement.score(model.network, model.tokenizer, [row["text"] for row in rows], model.manifest.text)
        probs.append(float(np.mean(logits[:, 0])))
    assert probs[1] > probs[0]


def test_weights_of_single_labels_are_for_labels_that_there_are(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--set", "training.epochs=1", "--set", "training.class_weights={violet = 2.0}")
    assert start("multi_label", tmp_path / "model", *flags) == 2
    assert "expected labels among ['red', 'green', 'blue'], found ['violet']" in capsys.readouterr().err
    assert start("multi_label", tmp_path / "plain", "--set", "training.epochs=1") == 0
    assert start("multi_label", tmp_path / "model", *flags[:3], "training.class_weights={red = 5.0}") == 0
    red = [
        np.mean(
            measurement.score(model.network, model.tokenizer, [row["text"] for row in toy_rows()], model.manifest.text)[
                :, 0
            ]
        )
        for model in (weights.load(tmp_path / name) for name in ("plain", "model"))
    ]
    assert red[1] > red[0]


STEPS = ("--set", "training.evaluate_every=10")  # an epoch has 9 updates, so checkpoints fall inside epochs


def is_whole(path: Path) -> bool:
    """Return whether a JSON file is written to its end."""
    try:
        return bool(json.loads(path.read_bytes()))
    except ValueError:
        return False


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("multi_label", tmp_path / "whole", *STEPS) == 0
    output, checkpoints = tmp_path / "model", tmp_path / "model.checkpoints"
    flags = [str(tmp_path / "config.toml"), "--data_dir", str(tmp_path), "--output", str(output), *STEPS]
    with subprocess.Popen([sys.executable, "-m", "training.train", *flags], stderr=subprocess.DEVNULL) as process:
        while not any(is_whole(path) for path in checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    found = sorted(checkpoints.glob("checkpoint-*/trainer_state.json"))
    assert not output.exists()
    (checkpoints / "checkpoint-999").mkdir()  # a kill in the middle of a checkpoint leaves such a folder
    capsys.readouterr()

    assert start("multi_label", output, *STEPS) == 2
    assert "holds an unfinished training: add --resume" in capsys.readouterr().err
    assert start("multi_label", output, *STEPS, "--resume", "--set", "training.weight_decay=0.5") == 2
    assert "belongs to a training with another configuration" in capsys.readouterr().err
    assert found[0].exists()

    assert start("multi_label", output, *STEPS, "--resume") == 0
    whole, resumed = (trained_model.read_manifest(tmp_path / name) for name in ("whole", "model"))
    assert resumed.files == whole.files
    assert resumed.metrics == whole.metrics
    assert not checkpoints.exists()

    before = (output / "model.json").read_bytes()
    assert start("multi_label", output, *STEPS, "--resume") == 0
    assert "is finished already" in capsys.readouterr().out
    assert (output / "model.json").read_bytes() == before
    assert start("multi_label", output, *STEPS, "--resume", "--set", "training.seed=5") == 2
    assert "holds a model of another configuration" in capsys.readouterr().err


def test_overwrite_starts_anew_beside_old_checkpoints(tmp_path: Path, start: Callable[..., int]) -> None:
    old = tmp_path / "model.checkpoints" / "checkpoint-3"
    old.mkdir(parents=True)
    (old / "trainer_state.json").write_text("{}")
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1", "--overwrite") == 0
    assert not old.parent.exists()


def test_the_best_evaluation_is_kept_and_training_stops_early(tmp_path: Path, start: Callable[..., int]) -> None:
    flags = [
        "training.early_stopping=2",
        "training.epochs=40",
        "training.metric=loss",
        "training.gradient_accumulation=2",
        "training.label_smoothing=0.1",
        "training.scheduler=cosine",
    ]
    assert start("multi_label", tmp_path / "model", *(part for flag in flags for part in ("--set", flag))) == 0
    losses = [
        row["eval_loss"]
        for row in trained_model.read_manifest(tmp_path / "model").training["history"]
        if "eval_loss" in row
    ]
    assert 3 <= len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3  # training stops after two evaluations without a better one
    model = weights.load(tmp_path / "model")
    rows = toy_rows()
    logits = measurement.score(model.network, model.tokenizer, [row["text"] for row in rows], model.manifest.text)
    assert logits.shape == (240, 3)


def test_what_a_training_needed_is_recorded(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("binary", tmp_path / "model", "--set", "training.epochs=2") == 0
    training = trained_model.read_manifest(tmp_path / "model").training
    assert 100 < training["peak_memory_mib"] < 20_000
    assert training["peak_gpu_memory_mib"] is None or training["peak_gpu_memory_mib"] > 0
    assert [row["epoch"] for row in training["history"] if "eval_loss" in row] == [1.0, 2.0]
    assert any("loss" in row for row in training["history"])


def test_trackers_that_are_not_installed_are_refused_before_anything_is_read(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("binary", tmp_path / "model", "--set", 'training.report_to=["wandbb"]') == 2
    assert "expected installed trackers, found no wandbb" in capsys.readouterr().err


def test_each_model_of_a_training_has_its_own_folder_for_tensorboard(
    tmp_path: Path, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []
    make = fit._Trainer.__init__

    def noted(*arguments: Any, **options: Any) -> None:
        folders.append(os.environ["TENSORBOARD_LOGGING_DIR"])
        make(*arguments, **options)

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr(fit._Trainer, "__init__", noted)
    flags = ["--set", "training.one_vs_rest=true", "--set", "training.epochs=1"]
    assert start("multi_label", tmp_path / "models", *flags) == 0
    assert folders == [str(tmp_path / "models" / f"{name}.tensorboard") for name in ("red", "green", "blue")]
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1") == 0
    assert folders[3:] == ["mine"]


def test_a_diverged_training_leaves_nothing_that_stands_in_the_way(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("multi_label", tmp_path / "model", "--set", "training.learning_rate=1e30") == 2
    assert start("multi_label", tmp_path / "model", "--set", "training.epochs=1") == 0


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("multi_label", tmp_path / "alone", "--set", "training.epochs=1") == 0
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--module", "training.train"]
    flags = [tmp_path / "config.toml", "--data_dir", tmp_path, "--output", tmp_path / "both"]
    command = [sys.executable, "-m", *launch, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train:") == 1  # only the first process speaks
    assert trained_model.verify(tmp_path / "both").metrics["test"]["macro_f1"] > 0.9
    assert not (tmp_path / "both.checkpoints").exists()

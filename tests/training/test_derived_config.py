"""A training starts from a file and two column names, and from a configuration of the GLUE script."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import trained_model
from models.labels import Task
from tests.training.conftest import toy_rows, write_rows
from training import config_file, prepare, train
from training.config import TrainConfig


def load(*words: str) -> TrainConfig:
    return config_file.load(config_file.parse_flags(prepare.make_parser(), [*words, "--output", "out"]))


@pytest.mark.parametrize(
    ("cells", "task", "names"),
    [
        (["spam", "ham", "ham", "ham"], Task.BINARY, ("ham", "spam")),  # the rarer one is the positive label
        ([True, False, False], Task.BINARY, ("not_y", "y")),
        (["0", "1", "1"], Task.BINARY, ("not_y", "y")),
        (["b", "a", "c"], Task.MULTI_CLASS, ("a", "b", "c")),
        ([["b"], ["a", "b"], []], Task.MULTI_LABEL, ("a", "b")),
        (["['b', 'a']", "['c']"], Task.MULTI_LABEL, ("a", "b", "c")),
    ],
)
def test_the_data_tells_task_and_labels(tmp_path: Path, cells: list[Any], task: Task, names: tuple[str, ...]) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"t": f"text {n}", "y": cell} for n, cell in enumerate(cells)])
    config = load("--data_dir", str(tmp_path), "--data", "rows.jsonl", "--text", "t", "--label", "y")
    assert (config.labels.task, config.labels.names) == (task, names)
    assert config.text.fields == ("t",)


def test_settings_come_before_what_the_data_tells(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("t,y\none,a;b\ntwo,b\nthree,c\n")
    words = ["--data_dir", str(tmp_path), "--data", "rows.csv", "--text", "t", "--label", "y"]
    config = load(*words, "--set", "labels.delimiter=;", "training.epochs=7", "--batch_size=5", "--text.max_tokens=9")
    assert (config.labels.task, config.labels.names) == (Task.MULTI_LABEL, ("a", "b", "c"))
    assert (config.training.epochs, config.training.batch_size, config.text.max_tokens) == (7, 5, 9)
    assert load(*words, "--set", 'labels.names=["a;b", "b", "c"]', "--task", "multi_class").labels.names[0] == "a;b"


def test_words_that_set_keys(write_config: Callable[..., Path]) -> None:
    """A sweep of Weights & Biases writes --key=value for each parameter, or --set a=b c=d if told so."""
    path = write_config(data='train = "x.jsonl"', labels='task = "binary"\nnames = ["a", "b"]', model='base = "tiny"')
    for words in (
        [str(path), "--learning_rate=0.001", "--training.epochs=2", "--data.undersample=1.5"],
        [str(path), "--set", "training.learning_rate=0.001", "training.epochs=2", "data.undersample=1.5"],
        ["--set", "training.learning_rate=0.001", "training.epochs=2", "data.undersample=1.5", str(path)],
    ):
        config = load(*words)
        assert (config.training.learning_rate, config.training.epochs, config.data.undersample) == (0.001, 2, 1.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "expected CONFIG.toml, or --data, --text and --label, found none"),
        (["--data", "rows.csv", "--text", "t"], "expected --label too, found none"),
        (["any.toml", "--data", "rows.csv"], "--data: expected no configuration beside, found any.toml"),
        (["any.toml", "--base", "x", "--task", "binary"], "--task, --base: expected no configuration beside"),
        (
            ["--data", "rows.csv", "more.csv", "--text", "t", "--label", "y"],
            "labels in more.csv, found",
        ),
        (
            ["--data", "rows.csv", "--text", "t", "--label", "z"],
            "expected a column 'z' of labels in rows.csv",
        ),
        (["--data", "rows.csv", "--text", "t", "--label", "t"], "found 600 different values; name another column"),
        (["--data", "rows.csv", "--text", "z", "--label", "y"], "expected columns ['z']"),
        (["--data", "no.csv", "--text", "t", "--label", "y"], "expected files at"),
        (["glue.json", "--learning_rat=3"], "unknown flag --learning_rat"),
    ],
)
def test_what_cannot_make_a_configuration(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("t,y\n" + "".join(f"text {n},{n % 3}\n" for n in range(600)))
    (tmp_path / "more.csv").write_text("t,x\none,1\n")
    flags = ["--data_dir", str(tmp_path), "--output", str(tmp_path / "out")]
    assert prepare.main([*words, *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_without_a_configuration_writes_the_one_it_used(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", toy_rows())
    words = ["--data_dir", str(tmp_path), "--data", "rows.jsonl", "--text", "text", "--label", "colours"]
    words += ["--base", str(base), "--epochs=1", "--max_train_samples=64", "--text.max_tokens=32"]
    assert train.main([*words, "--output", str(tmp_path / "one")]) == 0
    assert 'names = [\n    "blue",\n    "green",\n    "red",\n]' in capsys.readouterr().out
    used = tmp_path / "one" / config_file.USED
    assert train.main([str(used), "--data_dir", str(tmp_path), "--output", str(tmp_path / "two")]) == 0
    one, two = (trained_model.read_manifest(tmp_path / name) for name in ("one", "two"))
    assert one.files == two.files
    assert one.training["config"] == two.training["config"]


GLUE = {
    "model_name_or_path": "tiny",
    "train_file": "train.csv",
    "validation_file": "dev.csv",
    "test_file": "test.csv",
    "do_train": True,
    "do_eval": True,
    "max_seq_length": 128,
    "per_device_train_batch_size": 16,
    "learning_rate": 5e-5,
    "num_train_epochs": 4,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "lr_scheduler_type": "linear",
    "evaluation_strategy": "epoch",
    "eval_steps": 500,
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_f1",
    "fp16": False,
    "max_train_samples": 1000,
    "max_eval_samples": 200,
    "output_dir": "out",
    "overwrite_output_dir": True,
    "seed": 42,
    "report_to": "wandb",
}


def glue(tmp_path: Path, **more: Any) -> list[str]:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.csv").write_text("sentence1,sentence2,label\n" + "a,b,yes\nc,d,no\ne,f,no\n" * 4)
    (tmp_path / "glue.json").write_text(json.dumps(GLUE | more))
    return [str(tmp_path / "glue.json"), "--data_dir", str(tmp_path)]


def test_a_configuration_of_the_glue_script_is_read_as_it_is(tmp_path: Path) -> None:
    config = load(*glue(tmp_path))
    assert (config.data.train, config.data.validation, config.data.test) == (
        ("train.csv",),
        ("dev.csv",),
        ("test.csv",),
    )
    assert (config.labels.task, config.labels.names) == (Task.BINARY, ("no", "yes"))
    assert config.text.fields == ("sentence1", "sentence2")
    assert config.text.max_tokens == 128
    assert config.model.base == "tiny"
    used = config.training
    assert (used.epochs, used.batch_size, used.learning_rate, used.seed) == (4, 16, 5e-5, 42)
    assert (used.metric, used.evaluate_every, used.precision) == ("macro_f1", None, "auto")
    assert (used.max_train_samples, used.max_eval_samples, used.report_to) == (1000, 200, ("wandb",))
    steps = load(*glue(tmp_path, evaluation_strategy="steps", fp16=True, text_column_names="sentence2"))
    assert (steps.training.evaluate_every, steps.training.precision, steps.text.fields) == (500, "fp16", ("sentence2",))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"learning_rte": 1}, "unknown key 'learning_rte'; did you mean 'learning_rate'?"),
        ({"qqqq": 1}, "unknown key 'qqqq'; remove it."),
        ({"trust_remote_code": True}, "code from the hub is never run"),
        ({"task_name": "sst2"}, "set dataset_name and dataset_config_name"),
        ({"do_regression": True}, "labelbeam trains no regression"),
        ({"metric_for_best_model": "bleu"}, "metric_for_best_model: expected one of"),
        ({"lr_scheduler_type": "polynomial"}, "training.scheduler"),
    ],
)
def test_what_the_glue_script_does_and_this_project_does_not(
    more: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main([*glue(tmp_path, **more), "--output", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1]", "{", "nope"])
def test_a_json_file_that_is_no_configuration(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "glue.json").write_text(content)
    assert prepare.main([str(tmp_path / "glue.json"), "--output", str(tmp_path / "out")]) == 2
    assert "glue.json" in capsys.readouterr().err


def test_what_is_said_of_the_labels_is_kept(tmp_path: Path) -> None:
    """Names, and with them the positive label, are the user's. Ignored labels and rows are no classes."""
    rows = [{"t": f"t{n}", "y": "spam" if n % 3 else "ham", "ok": n % 2} for n in range(30)]
    write_rows(tmp_path / "rows.jsonl", [*rows, {"t": "x", "y": "n/a", "ok": 1}, {"t": "z", "y": "odd", "ok": 0}])
    words = ["--data_dir", str(tmp_path), "--data", "rows.jsonl", "--text", "t", "--label", "y"]
    words += ["--set", 'labels.ignore=["n/a"]', 'data.where=["ok == 1"]']
    assert load(*words).labels.names == ("spam", "ham")  # the rarer one is the positive label
    assert load(*words, 'labels.names=["ham", "spam"]').labels.names == ("ham", "spam")


def test_nulls_and_no_tracker_in_a_configuration_of_the_glue_script(tmp_path: Path) -> None:
    config = load(*glue(tmp_path, report_to="none", text_column_names=None, model_revision=None))
    assert config.training.report_to == ()
    assert config.text.fields == ("sentence1", "sentence2")

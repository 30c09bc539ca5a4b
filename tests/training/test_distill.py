"""Tests of distillation: a teacher labels texts, and students of each kind learn from its scores."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import beam_runner
from inference.classifier import Classifier
from models import bag, trained_model, weights
from models import network as networks
from models.labels import LabelSchema, Task
from tests.training.conftest import toy_rows, write_rows
from training import distill, objective, students, teaching, train
from training.config import DataConfig, LabelsConfig, ModelConfig, TrainConfig
from training.data_splits import Prepared
from training.examples import Examples, Splits, concatenate
from training.spool import Texts
from training.token_file import TokenFile

STUDENTS = {
    "layers": "[student]\nkind = 'layers'\n",
    "static": "[student]\nkind = 'static'\ndimensions = 16\n"
    "[training]\nepochs = 20\nlearning_rate = 2e-2\nhead_learning_rate = 5e-2\n",
    "ngrams": "[student]\nkind = 'ngrams'\ndimensions = 16\nbuckets = 512\n"
    "[training]\nepochs = 20\nlearning_rate = 2e-2\n",
}
# The texts that are taught, of 480: 240 are labelled ones, and 34 nearly repeat one of validation or test.
TAUGHT = 206
CONFIG = """
[data]
train = "rows.jsonl"
split = {validation = 0.2, test = 0.2}

[labels]
task = "multi_label"
column = "colours"
names = ["red", "green", "blue"]

[text]
max_tokens = 32

[training]
epochs = 12
batch_size = 16
learning_rate = 5e-3
"""


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with labelled rows, a teacher that was trained on them, unlabelled texts, and a run over these.

    Half of the unlabelled texts are the labelled ones.
    """
    folder = tmp_path_factory.mktemp("distill")
    write_rows(folder / "rows.jsonl", toy_rows())
    write_rows(folder / "texts.jsonl", [{"id": row["id"], "text": row["text"]} for row in toy_rows(480)])
    (folder / "config.toml").write_text(f'{CONFIG}\n[model]\nbase = "{base}"\npooling = "mean"\n')
    given = [str(folder / "config.toml"), "--data_dir", str(folder), "--output", str(folder / "teacher")]
    assert train.main(given) == 0
    run_of(folder, "run", "--scores", "all", "--keep_fields", "text")
    return folder


def run_of(made: Path, name: str, *more: str) -> Path:
    """Label the texts with the teacher, as a user would."""
    given = ["--model", str(made / "teacher"), "--input", str(made / "texts.jsonl"), "--output", str(made / name)]
    assert beam_runner.main([*given, *more]) == 0
    return made / name


def distilled(made: Path, kind: str, output: Path, *more: object, expect: int = 0) -> None:
    """Distil a student of a kind, from the run of the teacher unless other flags name texts."""
    student = output.with_suffix(".toml")
    student.write_text(STUDENTS.get(kind, kind))
    source = () if {"--texts", "--run"} & set(more) else ("--run", made / "run")
    given = ("--teacher", made / "teacher", "--student", student, "--data_dir", made, "--output", output)
    assert distill.main(list(map(str, (*given, *source, *more)))) == expect


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_student_learns_from_its_teacher(kind: str, made: Path, tmp_path: Path) -> None:
    output = tmp_path / kind
    distilled(made, kind, output)
    manifest, of_teacher = trained_model.verify(output), trained_model.verify(made / "teacher")
    assert manifest.metrics["test"]["macro_f1"] > 0.9
    assert manifest.metrics["test"]["data_sha256"] == of_teacher.metrics["test"]["data_sha256"]
    teacher = manifest.training["teacher"]
    assert teacher["sha256"] == trained_model.fingerprint(made / "teacher")
    assert (teacher["documents"], teacher["left_out"]) == (TAUGHT, 480 - TAUGHT)
    assert manifest.training["documents"] == of_teacher.training["documents"] + TAUGHT
    card = (output / "README.md").read_text()
    assert f"a student of the model teacher (SHA-256 {teacher['sha256'][:12]}…), of the kind {kind}" in card
    assert f"The teacher gave the labels of {TAUGHT} of these documents." in card
    # It is a model like any other, and OpenVINO computes what torch does.
    texts = [row["text"] for row in toy_rows(60)]
    assert Classifier(str(output), precision="fp32").label(["the red grass", "a blue sky"]) == [("red",), ("blue",)]
    scores = [Classifier(str(output), runtime=name, precision="fp32").score(texts) for name in ("torch", "openvino")]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4


def test_the_run_of_the_teacher_is_kept_and_used_again(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, texts = tmp_path / "student", ("--texts", made / "texts.jsonl")
    distilled(made, "static", output, *texts)
    before = trained_model.read_manifest(output)
    distilled(made, "static", output, *texts, expect=2)  # neither --resume nor --overwrite
    rows = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "student.taught" / "predictions").iterdir()}
    shutil.rmtree(output)
    capfd.readouterr()
    distilled(made, "static", output, *texts, "--resume")
    assert rows == {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "student.taught" / "predictions").iterdir()
    }
    assert trained_model.read_manifest(output).files == before.files
    fingerprint = trained_model.fingerprint(output)
    distilled(made, "static", output, *texts, "--resume")
    assert "is finished already" in capfd.readouterr().out
    assert trained_model.fingerprint(output) == fingerprint


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--keep_fields", "text"],
            "expected the scores of all labels, found predicted; label again with --scores all",
        ),
        (["--scores", "all"], "found no text; label again with --keep_fields text"),
        (["--scores", "all", "--keep_fields", "text", "--max_tokens", "16"], "found --text_fields or --max_tokens"),
    ],
)
def test_a_run_without_scores_or_texts_is_refused(
    more: list[str], sentence: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(made, f"run{len(more)}{more[0]}", *more)
    distilled(made, "static", tmp_path / "student", "--run", run, expect=2)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "student").exists()


def test_a_run_that_is_not_the_teachers_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "teacher", tmp_path / "teacher")
    manifest = trained_model.read_manifest(tmp_path / "teacher")
    trained_model.write_manifest(tmp_path / "teacher", manifest.model_copy(update={"base_revision": "another"}))
    distilled(made, "static", tmp_path / "student", "--run", made / "run", "--teacher", tmp_path / "teacher", expect=2)
    assert "expected a run of" in capsys.readouterr().err
    # Nor does the folder of an earlier teacher's labels serve another one.
    shutil.copytree(made / "run", tmp_path / "student.taught")
    texts = ("--texts", made / "texts.jsonl", "--teacher", tmp_path / "teacher")
    distilled(made, "static", tmp_path / "student", *texts, expect=2)
    assert "remove it, or label into another folder" in capsys.readouterr().err


def test_a_run_whose_rows_changed_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(made / "run", tmp_path / "run")
    (run / "predictions" / "stranger.jsonl").write_text("{}\n")  # no receipt names it
    distilled(made, "layers", tmp_path / "student", "--run", run, "--set", "training.epochs=1")
    (path,) = (path for path in (run / "predictions").iterdir() if path.name != "stranger.jsonl")
    content = path.read_text()
    path.write_text(content.replace("red", "rot", 1))
    distilled(made, "static", tmp_path / "other", "--run", run, expect=2)
    assert "expected the file that its receipt names" in capsys.readouterr().err
    path.write_text(content)
    (receipt,) = (run / "receipts").iterdir()
    receipt.unlink()
    distilled(made, "static", tmp_path / "other", "--run", run, expect=2)
    assert "expected 1 receipts, found 0" in capsys.readouterr().err
    (run / "summary.json").unlink()
    distilled(made, "static", tmp_path / "other", "--run", run, expect=2)
    assert "expected a finished run" in capsys.readouterr().err


def test_a_near_duplicate_of_what_is_measured_is_not_taught() -> None:
    texts = {"train": "one", "validation": "a b c d e f g h i j k l m n", "test": "o p q r s t u v w x y z"}
    splits = Splits(*(Examples.of([text], np.zeros((1, 2), np.float32), [name]) for name, text in texts.items()))
    prepared = Prepared(LabelSchema(task=Task.MULTI_LABEL, names=("x", "y")), splits, {}, [], {})
    given = ["A B C D E F G H I J K L M N", "o p q r s t u v w x y", "one", "new", "new"]
    scores = np.linspace(0.1, 0.9, 10, dtype=np.float32).reshape(5, 2)
    taught = Examples(Texts.of(given), (scores > 0.5).astype(np.float32), [f"t{i}" for i in range(5)], taught=scores)
    config = TrainConfig(
        data=DataConfig(train="x"),
        labels=LabelsConfig(task="multi_label", names=("x", "y")),
        model=ModelConfig(base="x"),
    )
    found = teaching.joined(prepared, taught, config)
    assert list(found.splits.train.texts) == ["one", "new"]
    assert found.card["taught"] == {"documents": 1, "left_out": 4}
    assert found.splits.train.learnt.tolist() == [[0, 0], scores[3].tolist()]


def test_the_loss_takes_what_the_teacher_says(made: Path) -> None:
    """Labels are what the teacher decides, for counts and weights, and its probabilities are learnt."""
    scores = np.array([[0.9, 0.2, 0.4]], np.float32)
    taught = Examples(Texts.of(["red"]), np.array([[0, 1, 0]], np.float32), ["t"], taught=scores)
    labelled = Examples.of(["blue"], np.array([[0, np.nan, 1]], np.float32), ["l"])
    both = concatenate([labelled, taught]).take(np.array([1, 0]))
    model = weights.load(made / "teacher")
    file = TokenFile(both, model.tokenizer, model.manifest.text)
    assert np.array_equal(file[0]["labels"], scores[0])
    assert np.array_equal(file[1]["labels"], [0, np.nan, 1], equal_nan=True)
    assert both.sha256() != replace(both, taught=both.targets).sha256()


@pytest.mark.parametrize("task", ["binary", "multi_class"])
def test_a_teacher_of_another_task_and_a_run_of_two_models_in_parquet(
    task: str, start: Callable[..., int], made: Path, tmp_path: Path
) -> None:
    assert start(task, tmp_path / "teacher") == 0
    models = ["--model", str(made / "teacher_of_all"), "--model", str(tmp_path / "teacher")]
    if not (made / "teacher_of_all").exists():
        shutil.copytree(made / "teacher", made / "teacher_of_all")
    given = ["--input", str(made / "texts.jsonl"), "--output", str(tmp_path / "run"), "--format", "parquet"]
    assert beam_runner.main([*models, *given, "--scores", "all", "--keep_fields", "text"]) == 0
    (tmp_path / "student.toml").write_text(STUDENTS["ngrams"])
    flags = ["--teacher", tmp_path / "teacher", "--run", tmp_path / "run", "--student", tmp_path / "student.toml"]
    output = tmp_path / "student"
    assert distill.main(list(map(str, [*flags, "--data_dir", tmp_path, "--output", output]))) == 0
    assert trained_model.verify(output).metrics["test"]["macro_f1"] > 0.9


def test_slices_without_a_prediction_are_no_obstacle(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"id": "e", "text": ""}\n')
    (tmp_path / "good.jsonl").write_text((made / "texts.jsonl").read_text())
    output = tmp_path / "student"
    distilled(made, "static", output, "--texts", tmp_path / "*.jsonl", "--set", "training.epochs=1")
    assert trained_model.read_manifest(output).training["teacher"]["documents"] == TAUGHT


def test_texts_that_cannot_be_labelled_leave_no_student(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    distilled(made, "static", tmp_path / "student", "--texts", tmp_path / "none.jsonl", expect=2)
    assert "expected the teacher to label them" in capfd.readouterr().err
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[training]\nepochs = 1\n", "expected a section [student], found none"),
        ("[student]\nkind = 'layers'\nlayers = 3\n", "expected at most the teacher's 2, found 3"),
        ("[student]\nkind = 'half'\n", "student.kind"),
        ("[student]\nkind = 'ngrams'\nngrams = 3\nbuckets = 6000000\n", "ngrams times buckets is at most 16,777,216"),
        ("[student]\n[text]\nmax_tokens = 4096\n", "expected at most the teacher's 128, found 4096"),
        ("[student]\n[training]\none_vs_rest = true\n", "found training.one_vs_rest; remove it"),
        ("[student]\n[text]\ncleaning = ['urls']\n", "expected the teacher's [text], found other values"),
        ("[student]\n[data]\nsubsample = 0.5\n", "expected the teacher's [data], found other values"),
        ("[student]\n[training]\nmax_train_samples = 20\n", "expected the 127 documents that"),
        ("[labels]\nnames = ['red', 'blue']\nignore = ['green']\n[student]\n", "expected the teacher's [labels]"),
    ],
)
def test_a_student_is_described_by_a_section(
    content: str, sentence: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled(made, content, tmp_path / "student", expect=2)
    assert sentence in capsys.readouterr().err


def test_a_training_takes_no_student(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (made / "teacher" / "training.toml").read_text() + "\n[student]\nkind = 'static'\n"
    (tmp_path / "whole.toml").write_text(config)
    assert train.main([str(tmp_path / "whole.toml"), "--output", str(tmp_path / "student")]) == 2
    assert "[student] is for `python -m training.distill`" in capsys.readouterr().err


def test_half_of_the_layers_are_the_teachers(made: Path, tmp_path: Path) -> None:
    model = weights.load(made / "teacher")
    (tmp_path / "half.toml").write_text("[student]\nkind = 'layers'\nlayers = 1\n")
    config = distill.config_of(made / "teacher", tmp_path / "half.toml", [])
    encoder, original = networks.encoder(students.start(config, model, []).module), networks.encoder(model.network)
    assert encoder.config.num_hidden_layers == 1
    assert original.config.num_hidden_layers == 2
    same = zip(encoder.encoder.layer[0].parameters(), original.encoder.layer[0].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


def test_ngrams_look_back_and_never_at_padding() -> None:
    torch.manual_seed(0)
    model = bag.BagModel(bag.BagConfig(vocab_size=50, hidden_size=4, longest=3, buckets=97)).eval()
    ids = torch.randint(1, 50, (2, 7))
    states = model(ids).last_hidden_state
    padded = model(torch.nn.functional.pad(ids, (0, 3))).last_hidden_state
    assert torch.equal(padded[:, :7], states)
    changed = ids.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 50
    differs = (model(changed).last_hidden_state != states).any(dim=2)
    assert differs[:, 2:5].all()  # the n-grams of up to three tokens that hold it
    assert not differs[:, :2].any()
    assert not differs[:, 5:].any()


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_CLASS])
def test_the_loss_of_probabilities(task: Task) -> None:
    """Its gradient is zero where the scores are the teacher's, and with 0 and 1 it is the usual loss."""
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2 if task is Task.BINARY else 5, generator=chance).double().requires_grad_()
    soft = logits.detach().softmax(dim=1)
    objective.loss(logits, soft, task).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12
    hard = torch.nn.functional.one_hot(soft.argmax(dim=1), soft.shape[1]).double()
    weight = torch.linspace(0.5, 2, soft.shape[1]).double()
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(logits, soft.argmax(dim=1), weight, label_smoothing=smoothing)
        assert np.isclose(objective.loss(logits, hard, task, weight, smoothing).item(), expected.item())

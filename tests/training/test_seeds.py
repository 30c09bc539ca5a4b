"""Models that differ in the seed, the fold or the number of documents, and what they say together."""

import csv
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import trained_model
from training import learning_curve, sampling
from training.examples import Examples
from training.paired import Difference

SHORT = ("--set", "training.epochs=1")


def test_seeds_differ_in_the_training_alone(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m"
    assert start("multi_label", output, *SHORT, "--seeds", "3", "--set", "training.seed=4") == 0
    manifests = [trained_model.verify(output / f"seed{seed}") for seed in (4, 5, 6)]
    assert len({manifest.files["model.pth"] for manifest in manifests}) == 3
    assert len({manifest.metrics["test"]["data_sha256"] for manifest in manifests}) == 1
    assert len({manifest.training["data_sha256"] for manifest in manifests}) == 1
    found = json.loads((output / "seeds.json").read_bytes())
    scores = [manifest.metrics["test"]["macro_f1"] for manifest in manifests]
    assert found["metrics"]["macro_f1"]["values"] == pytest.approx(scores)
    assert found["metrics"]["macro_f1"]["mean"] == pytest.approx(statistics.mean(scores))
    assert found["metrics"]["macro_f1"]["deviation"] == pytest.approx(statistics.stdev(scores))
    assert found["labels"]["red"]["highest"] == max(m.metrics["test"]["labels"]["red"]["f1"] for m in manifests)
    assert "3 models, alike but for the seed" in capsys.readouterr().out

    (output / "seed6" / "model.json").unlink()  # as if the job had died before the last model
    assert start("multi_label", output, *SHORT, "--seeds", "3", "--set", "training.seed=4", "--resume") == 0
    assert trained_model.verify(output / "seed6").files == manifests[2].files
    assert "seed4 is finished already" in capsys.readouterr().out


def test_each_document_is_tested_once(start: Callable[..., int], tmp_path: Path) -> None:
    output = tmp_path / "m"
    assert start("multi_label", output, *SHORT, "--folds", "3", "--set", "data.drop_leaks=false") == 0
    tested = [ids_of(output / f"fold{fold}") for fold in range(3)]
    everything = {document for fold in tested for document in fold}
    assert sum(map(len, tested)) == len(everything)
    manifests = [trained_model.verify(output / f"fold{fold}") for fold in range(3)]
    for fold, manifest in enumerate(manifests):
        splits = manifest.training["card"]["splits"]
        assert sum(split["documents"] for split in splits.values()) == len(everything)
        assert splits["test"]["documents"] == len(tested[fold])
    found = json.loads((output / "folds.json").read_bytes())
    assert found["metrics"]["macro_f1"]["values"] == [manifest.metrics["test"]["macro_f1"] for manifest in manifests]


def test_each_fold_has_its_share_of_a_rare_label_and_whole_groups() -> None:
    rare = np.zeros(300, np.float32)
    rare[:9] = 1
    targets = np.stack([1 - rare, rare], axis=1)
    texts = [f"text {place}" for place in range(300)]
    fold_of = sampling.folds(Examples.of(texts, targets, texts), 3, seed=1)
    assert [int(rare[fold_of == fold].sum()) for fold in range(3)] == [3, 3, 3]
    assert np.bincount(fold_of).tolist() == [100, 100, 100]
    groups = [str(place // 5) for place in range(300)]
    fold_of = sampling.folds(Examples.of(texts, targets, texts, groups), 3, seed=1)
    assert all(len(set(fold_of[start : start + 5])) == 1 for start in range(0, 300, 5))


def ids_of(model: Path) -> list[str]:
    with (model / "evaluation" / "holdout_red_scores.csv").open(encoding="utf-8", newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_a_learning_curve_tells_whether_more_labels_would_help(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m"
    assert start("multi_label", output, "--set", "training.epochs=3", "--learning_curve") == 0
    found = json.loads((output / "learning_curve.json").read_bytes())
    quarter, half, everything = found["documents"]
    assert quarter == round(everything / 4)
    assert half == round(everything / 2)
    manifests = [trained_model.verify(output / name) for name in ("quarter", "half", "all")]
    assert found["macro_f1"] == [manifest.metrics["test"]["macro_f1"] for manifest in manifests]
    assert found["gain"]["difference"] == pytest.approx(found["macro_f1"][2] - found["macro_f1"][1])
    said = capsys.readouterr().out
    assert "From half to all documents, macro-F1" in said
    assert ("more labels would probably help" in said) == (found["gain"]["low"] > 0)

    shutil.rmtree(output / "half" / "evaluation")  # as if its tables could not have been written
    assert start("multi_label", output, "--set", "training.epochs=3", "--learning_curve", "--resume") == 0
    assert "tell together could not be said (FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (Difference(0.5, 0.6, 0.05, 0.15, 0.001), "rose by +0.100 (95 % +0.050 to +0.150): more labels would"),
        (
            Difference(0.5, 0.51, -0.01, 0.03, 0.3),
            "changed by +0.010 (95 % -0.010 to +0.030), which the choice",
        ),
        (Difference(0.6, 0.5, -0.15, -0.05, 0.001), "fell by -0.100"),
    ],
)
def test_the_verdict_follows_the_interval(gain: Difference, verdict: str) -> None:
    assert learning_curve._verdict(gain).startswith(verdict)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--folds", "2"), "expected a whole number of at least 3, found '2'"),
        (("--folds", "90"), "expected at least 900 documents with 90 different texts"),
        (("--folds", "3", "--seeds", "2"), "--seeds and --folds: expected one of these"),
        (("--folds", "3", "--prepared", "somewhere"), "leave out --prepared"),
        (("--folds", "3", "--set", "data.test=rows.jsonl"), "remove data.validation and data.test"),
        (("--seeds", "1"), "expected a whole number of at least 2, found '1'"),
        (("--seeds", "2", "--set", "training.one_vs_rest=true"), "expected one model for all labels"),
        (("--seeds", "2", "--push_to_hub", "me/m"), "expected one model for all labels that stays here"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: tuple[str, ...],
    problem: str,
    start: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code: object
    try:
        code = start("multi_label", tmp_path / "m", *flags)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "m").exists()

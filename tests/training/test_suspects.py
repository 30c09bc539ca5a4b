"""Labels that were changed on purpose are found, and a killed search for them goes on."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.labels import LabelSchema, Task
from tests.training.conftest import LABELS, TRAINING, toy_rows, write_rows
from training import fit, label_noise, sampling, suspects
from training.examples import Examples


@pytest.fixture
def command(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Return a function that looks for suspects in the toy problem, of which twelve labels are wrong."""
    rows = toy_rows()
    for row in random.Random(1).sample(rows, 12):
        row["colours"] = [
            colour for colour in ("red", "green", "blue") if (colour in row["colours"]) != (colour == "red")
        ]
        row["id"] = f"wrong-{row['id']}"
    write_rows(tmp_path / "rows.jsonl", rows)
    config = write_config(
        data='train = "rows.jsonl"\nid_column = "id"\nnear_duplicate = 1.0',
        labels=f'task = "multi_label"\n{LABELS["multi_label"]}',
        text="max_tokens = 32",
        model=f'base = "{base}"\npooling = "mean"',
        training=TRAINING,
    )

    def run(*flags: str) -> int:
        words = [str(config), "--data_dir", str(tmp_path), "--output", str(tmp_path / "out"), "--folds", "3"]
        return suspects.main([*words, *flags])

    return run


def sheet(folder: Path) -> list[dict[str, str]]:
    with (folder / label_noise.SHEET).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_come_first(tmp_path: Path, command: Callable[..., int]) -> None:
    assert command() == 0
    rows = sheet(tmp_path / "out")
    first = rows[:12]
    wrong = [row for row in first if row["id"].startswith("wrong") and row["label"] == "red"]
    assert len(wrong) >= 6  # of 720 labels, twelve are wrong
    assert {row["given"] for row in wrong} == {"yes", "no"}
    page = (tmp_path / "out" / label_noise.PAGE).read_text()
    assert wrong[0]["id"] in page
    assert "<script" not in page


def test_a_killed_search_keeps_the_folds_that_ended(
    tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    original = fit.fit

    def stopped(network: object, prepared: object, config: object, checkpoints: Path) -> object:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(checkpoints.name)
        return original(network, prepared, config, checkpoints)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit", stopped)
        assert command() != 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["fold-0.npy"]
    before = (tmp_path / "out" / "fold-0.npy").stat().st_mtime_ns
    assert command() == 0
    assert (tmp_path / "out" / "fold-0.npy").stat().st_mtime_ns == before
    capsys.readouterr()
    assert command("--set", "training.seed=9") == 2
    assert "holds something else, or scores of other data" in capsys.readouterr().err


def test_one_class_of_several() -> None:
    """Each document has one label. If that one is suspect, the most probable label is proposed."""
    schema = LabelSchema(task=Task.MULTI_CLASS, names=("a", "b", "c"))
    targets = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    probs = np.array(
        [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0, 0.9, 0.1], [0.1, 0, 0.9], [0.03, 0.95, 0.02]],
        np.float32,
    )
    names = [f"d{number}" for number in range(6)]
    (found,) = label_noise.suspects(Examples.of(names, targets, names), probs, schema)
    assert (found.id, found.label, found.given, found.instead) == ("d5", "a", True, "b")


def test_unknown_labels_are_never_suspect() -> None:
    schema = LabelSchema(task=Task.MULTI_LABEL, names=("a", "b"))
    targets = np.array([[1, np.nan], [0, np.nan], [1, 1], [0, 0]], np.float32)
    probs = np.array([[0.9, 0.0], [0.1, 1.0], [0.8, 0.9], [0.2, 0.1]], np.float32)
    names = [f"d{number}" for number in range(4)]
    assert label_noise.suspects(Examples.of(names, targets, names), probs, schema) == []


@pytest.mark.parametrize("folds", ["0", "2", "200"])
def test_folds_that_make_no_sense(
    folds: str, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--folds", folds) == 2
    assert f"--folds{':' if int(folds) < 3 else f' {folds}:'} expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_few_groups_are_spread_over_all_folds() -> None:
    names = [f"d{number}" for number in range(60)]
    keys = [f"g{number % 6}" for number in range(60)]
    folds = sampling.folds(Examples.of(names, np.zeros((60, 1), np.float32), names, keys), 5, 0)
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}
    assert len({(key, fold) for key, fold in zip(keys, folds.tolist(), strict=True)}) == 6


def test_one_model_for_each_label_is_no_obstacle(tmp_path: Path, command: Callable[..., int]) -> None:
    assert command("--set", "training.one_vs_rest=true", "training.metric=f1", "training.epochs=1") == 0
    assert (tmp_path / "out" / label_noise.SHEET).is_file()


def test_scores_that_are_guesses_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    schema = LabelSchema(task=Task.MULTI_LABEL, names=("known", "guessed", "never"))
    chance = np.random.default_rng(0)
    targets = np.concatenate([chance.random((200, 2)) < 0.5, np.zeros((200, 1))], axis=1).astype(np.float32)
    probs = np.stack([targets[:, 0] * 0.5 + 0.2, chance.random(200), chance.random(200)], axis=1)
    names = [f"d{number}" for number in range(200)]
    label_noise._warn_of_guesses(Examples.of(names, targets, names), probs, schema)
    assert "the models hardly know guessed (0." in capsys.readouterr().out

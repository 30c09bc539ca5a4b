"""A search tries settings, prunes, resumes, and trains the best settings in full."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from models import trained_model
from tests.training.conftest import toy_rows, write_rows
from training import fit, hub, sweep, terminal
from training.search import Pruning

pytestmark = [pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")]

SPACE = 'trials = 3\nspace."training.learning_rate" = {low = 1e-6, high = 1e-2, log = true}\n'
SPACE += 'space."training.batch_size" = [16, 32]\n'


@pytest.fixture
def search(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Return a function that runs the command on the toy problem and returns the exit code."""

    def run(*flags: str, space: str = SPACE) -> int:
        write_rows(tmp_path / "rows.jsonl", toy_rows())
        config = write_config(
            data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}',
            labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
            text="max_tokens = 32",
            model=f'base = "{base}"\npooling = "mean"',
            training="epochs = 4",
            search=space,
        )
        return sweep.main([str(config), "--data_dir", str(tmp_path), "--output", str(tmp_path / "best"), *flags])

    return run


def trials(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "best.search" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_of_the_trials_is_trained_for_good(
    tmp_path: Path, search: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("--search_only") == 0
    assert not (tmp_path / "best").exists()
    first = trials(tmp_path)
    assert [row["number"] for row in first] == ["0", "1", "2"]

    assert search("--trials", "5") == 0  # three trials are there already
    rows = trials(tmp_path)
    assert rows[:3] == first
    assert len(rows) == 5
    rates = [row["params_training.learning_rate"] for row in rows]
    assert len(set(rates)) == 5
    ended = [row for row in rows if row["state"] == "COMPLETE"]
    best = max(ended, key=lambda row: float(row["value"]))
    manifest = trained_model.verify(tmp_path / "best")
    settings = manifest.training["config"]["training"]
    assert settings["learning_rate"] == float(best["params_training.learning_rate"])
    assert settings["batch_size"] == int(best["params_training.batch_size"])
    evaluations = [row["eval_macro_f1"] for row in manifest.training["history"] if "eval_macro_f1" in row]
    assert max(evaluations) == pytest.approx(float(best["value"]))  # the same seed gives the same training
    assert f"{float(best['value']):.4f}" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "best.search").iterdir()) == ["trials.csv", "trials.db"]


def test_no_trial_is_lost_because_of_a_table(
    tmp_path: Path, search: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise RuntimeError("not today")

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "trials_dataframe", raises)
        patched.setattr(terminal, "print_table", raises)
        assert search("--trials", "1") == 0
    warnings = {line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")}
    assert len(warnings) == 3  # trials.csv, the best trials, the metrics of the model
    assert any("trials.csv could not be written (RuntimeError: not today); the trials are safe" in w for w in warnings)
    trained_model.verify(tmp_path / "best")
    assert not (tmp_path / "best.search" / "trials.csv").exists()
    assert search("--trials", "1") == 0  # the same command again, as the warning says
    assert len(trials(tmp_path)) == 1


def test_another_search_in_the_same_place_is_refused(
    tmp_path: Path, search: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("--search_only", "--trials", "1") == 0
    assert search("--search_only", "--trials", "1", "--set", "training.epochs=3") == 2
    assert "holds a search with another configuration or other data" in capsys.readouterr().err


def test_a_trial_that_lags_behind_is_pruned() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    arguments = SimpleNamespace(metric_for_best_model="macro_f1")

    def run(values: list[float]) -> optuna.trial.FrozenTrial:
        trial = study.ask()
        callback = Pruning(trial)
        try:
            for value in values:
                callback.on_evaluate(arguments, None, None, metrics={"eval_macro_f1": value})
            study.tell(trial, values[-1])
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        return study.trials[trial.number]

    assert run([0.5, 0.6]).state is TrialState.COMPLETE
    lagging = run([0.55, 0.3, 0.9])
    assert lagging.state is TrialState.PRUNED
    assert lagging.intermediate_values == {1: 0.55, 2: 0.3}
    assert run([0.6, 0.7]).state is TrialState.COMPLETE


def test_a_trial_that_diverges_does_not_end_the_search(tmp_path: Path, search: Callable[..., int]) -> None:
    space = 'trials = 3\nspace."training.learning_rate" = [1e30, 5e-3]\n'
    assert search("--search_only", space=space) == 0
    rows = trials(tmp_path)
    assert {row["state"] for row in rows if float(row["params_training.learning_rate"]) == 1e30} <= {"PRUNED"}
    assert any(row["state"] == "COMPLETE" for row in rows)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ('space."training.epoch" = [1, 2]', "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ('space."training.batch_size" = {low = 0, high = 8}', "training.batch_size: Input should be greater than"),
        ('space."training.learning_rate" = {low = 1, high = 0.1}', "low must be below high"),
        ("trials = 3", "'search.space' is missing"),
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(
    search: Callable[..., int], capsys: pytest.CaptureFixture[str], space: str, sentence: str
) -> None:
    assert search(space=space) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_a_trial_without_memory_does_not_end_the_search(
    error: Exception, tmp_path: Path, search: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fit.fit

    def once(network: Any, prepared: Any, config: Any, checkpoints: Path, *more: Any) -> Any:
        if checkpoints.name == "trial-1":
            raise error
        return trained(network, prepared, config, checkpoints, *more)

    monkeypatch.setattr(fit, "fit", once)
    assert search("--search_only", "--epochs=1") == 0
    assert [row["state"] for row in trials(tmp_path)] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_another_error_of_a_trial_ends_the_search(
    tmp_path: Path, search: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(fit, "fit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        search("--search_only")


def test_the_best_model_is_uploaded_and_an_upload_can_be_repeated(
    tmp_path: Path, search: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[tuple[Path, str, bool]] = []
    monkeypatch.setattr(hub, "check", lambda _: None)
    monkeypatch.setattr(hub, "push", lambda directory, name, *, texts: pushed.append((directory, name, texts)))
    assert search("--push_to_hub", "me/best", "--epochs=1", "--trials", "1") == 0
    assert search("--push_to_hub", "me/best", "--epochs=1", "--trials", "1", "--push_texts") == 0
    assert pushed == [(tmp_path / "best", "me/best", False), (tmp_path / "best", "me/best", True)]

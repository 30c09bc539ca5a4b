"""Searches for the settings with the best validation metric. Optuna keeps the trials in a SQLite file."""

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.errors import UserError
from training import base_model, data_splits, fit, jobs, terminal, trackers
from training.callbacks import DivergedError
from training.config import Range, SearchConfig, TrainConfig
from training.config_file import with_values
from training.data_splits import Prepared
from training.output_folder import not_essential

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # a trial that was killed is not among them, and is made up for
MOST_SHOWN = 10  # trials in the printed table


@dataclass(frozen=True)
class Search:
    """A search for the settings with the best validation metric."""

    config: TrainConfig
    search: SearchConfig
    prepared: Prepared
    data_dir: Path
    output: Path

    @property
    def folder(self) -> Path:
        """Return the folder of the trials."""
        return self.output.with_name(self.output.name + ".search")

    def run(self, worker: int = 0) -> TrainConfig:
        """Run trials until there are as many as wanted. Return the configuration of the best one.

        Raises:
            UserError: the folder holds another search, or no trial was completed.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        study = self._study()
        while len(study.get_trials(deepcopy=False, states=ENDED)) < self.search.trials:
            # The seed depends on the trials so far, so a resumed search does not repeat its first suggestions.
            seed = self.config.training.seed + 1000 * worker + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed)
            study.optimize(self._try, n_trials=1)
            self._write_table(study)
        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(
                f"{self.folder}: expected a completed trial, found none; search a lower learning rate, or set "
                "search.prune = false."
            )
        self._write_table(study)
        with not_essential("the table of trials", f"the trials are in {self.folder}", step="printed"):
            _show(study, self.config.training.metric)
        return with_values(self.config, study.best_params, source="the best trial")

    def _study(self) -> optuna.Study:
        study = optuna.create_study(
            storage=f"sqlite:///{self.folder.resolve() / 'trials.db'}",
            study_name=self.output.name,
            load_if_exists=True,
            direction="minimize" if self.config.training.metric == "loss" else "maximize",
            pruner=optuna.pruners.MedianPruner() if self.search.prune else optuna.pruners.NopPruner(),
        )
        identity = jobs.Job(self.config, self.prepared, self.output).identity
        identity += self.search.model_dump_json(exclude={"trials"})
        if study.user_attrs.get("identity", identity) != identity:
            raise UserError(
                f"{self.folder} holds a search with another configuration or other data: restore what was changed, "
                "name another --output, or remove that folder."
            )
        study.set_user_attr("identity", identity)
        return study

    def _try(self, trial: optuna.Trial) -> float:
        """Train with the settings that a trial suggests. Return its best validation metric."""
        values = {key: _suggest(trial, key, space) for key, space in self.search.space.items()}
        config = with_values(self.config, values, source=f"trial {trial.number}")
        print(f"trial {trial.number}: " + ", ".join(f"{key} {_short(value)}" for key, value in values.items()))
        prepared = data_splits.limited(self.prepared_for(config), config)
        torch.manual_seed(config.training.seed)
        network = base_model.start(config, prepared.schema)
        checkpoints = self.folder / f"trial-{trial.number}"
        try:
            fitted = fit.fit(network, prepared, config, checkpoints, [Pruning(trial)])
        except DivergedError:
            raise optuna.TrialPruned from None
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "out of memory" not in str(error):
                raise
            print(f"trial {trial.number}: out of memory, so the search goes on without it")
            raise optuna.TrialPruned from None
        finally:
            trackers.finish(config.training)
            del network
            gc.collect()
            torch.cuda.empty_cache()
            shutil.rmtree(checkpoints, ignore_errors=True)
        return fitted.best

    def prepared_for(self, config: TrainConfig) -> Prepared:
        """Return the data, prepared again if a trial changes how it is read, cut or cleaned."""
        same = all(getattr(config, part) == getattr(self.config, part) for part in ("data", "labels", "text"))
        return self.prepared if same else data_splits.prepare(config, self.data_dir)

    def _write_table(self, study: optuna.Study) -> None:
        path = self.folder / "trials.csv"
        with not_essential(path, "the trials are safe, and the same command writes it again"):
            table = study.trials_dataframe(attrs=("number", "value", "params", "duration", "state"))
            table.to_csv(path, index=False)


class Pruning(TrainerCallback):
    """Reports each evaluation of a trial, and ends a trial that lags behind the others."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial, self._evaluations = trial, 0

    def on_evaluate(
        self, args: TrainingArguments, _state: TrainerState, _control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Report an evaluation.

        Raises:
            TrialPruned: the trial lags behind the others.
        """
        self._evaluations += 1
        self._trial.report(metrics[f"eval_{args.metric_for_best_model}"], self._evaluations)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _suggest(trial: optuna.Trial, key: str, space: Range | Sequence[Any]) -> Any:
    if not isinstance(space, Range):
        return trial.suggest_categorical(key, list(space))
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(key, space.low, space.high, log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(study: optuna.Study, metric: str) -> None:
    """Print the best trials."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    best_first = sorted(completed, key=lambda trial: trial.value or 0.0, reverse=study.direction.name == "MAXIMIZE")
    table = terminal.new_table(f"{len(completed)} trials completed, {pruned} pruned; the best:")
    for heading in ("trial", metric, *study.best_params):
        table.add_column(heading, justify="right")
    for trial in best_first[:MOST_SHOWN]:
        table.add_row(str(trial.number), f"{trial.value:.4f}", *map(_short, trial.params.values()))
    terminal.print_table(table)

"""Searches for good settings: trains with what [search] of the configuration names, then trains the best for good.

python -m training.sweep my_labels.toml --data_dir my_data --output models/trained/my_labels

Trials are kept in OUTPUT.search/, so the same command goes on after a kill, and several processes (an array of cluster
jobs, each with --search_only and a --worker of its own) share one search; OUTPUT.search/trials.csv is their table.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.errors import UserError, exit_code
from training import base_model, command, fit, prepare, train
from training.config import Range, SearchConfig, TrainConfig, load_config, with_values
from training.prepare import Prepared

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # a trial that was killed does not count: another takes its place


def main(argv: Sequence[str] | None = None) -> int:
    """Searches what the configuration says. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(argv), "The same command goes on; trials that have ended are kept.")


def make_parser() -> command.Parser:
    """The parser of `training.sweep`."""
    parser = command.Parser("training.sweep", __doc__)
    parser.add_config()
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="take what training.prepare wrote there")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the best model goes")
    parser.add_argument("--trials", type=int, metavar="N", help="trials in all, instead of search.trials")
    parser.add_argument("--search_only", action="store_true", help="do not train the best settings for good")
    parser.add_argument("--worker", type=int, default=0, metavar="N", help="this process's number among several (0)")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse_args(argv)
    overrides = [*flags.set, *([f"search.trials={flags.trials}"] if flags.trials is not None else [])]
    config = load_config(flags.config, overrides)
    if config.search is None:
        raise UserError(f"{flags.config}: expected a section [search] with a space to search, found none; add it.")
    _check_space(config, config.search)
    train.quiet_libraries()
    prepared = prepare.read(flags.prepared, config) if flags.prepared else prepare.prepare(config, flags.data_dir)
    search = Search(config, config.search, prepared, flags.data_dir, flags.output)
    best = search.run(flags.worker)
    if not flags.search_only:
        job = train.Job(best, search.prepared_for(best), flags.output)
        for left in train.pending([job], resume=True, overwrite=False):
            train.train(left)


def _check_space(config: TrainConfig, search: SearchConfig) -> None:
    """Every key exists and takes the values at both ends of its range, or all of its choices."""
    for key, space in search.space.items():
        for value in (space.low, space.high) if isinstance(space, Range) else space:
            with_values(config, {key: value}, source=f"search.space.{key}")


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
        """Where the trials are kept."""
        return self.output.with_name(self.output.name + ".search")

    def run(self, worker: int = 0) -> TrainConfig:
        """Runs trials until there are as many as wanted. Returns the configuration of the best.

        Raises:
            UserError: the folder holds another search, or no trial came to an end.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        study = self._study()
        while len(study.get_trials(deepcopy=False, states=ENDED)) < self.search.trials:
            # Seeded by what is there: a search that goes on does not suggest again what it suggested at its start.
            seed = self.config.training.seed + 1000 * worker + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed)
            study.optimize(self._try, n_trials=1)
            self._write_table(study)
        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(
                f"{self.folder}: expected a trial that came to its end, found none; search a lower learning rate, or "
                "set search.prune = false."
            )
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
        identity = train.Job(self.config, self.prepared, self.output).identity
        identity += self.search.model_dump_json(exclude={"trials"})
        if study.user_attrs.get("identity", identity) != identity:
            raise UserError(
                f"{self.folder} holds a search with another configuration or other data: give back what was changed, "
                "name another --output, or remove that folder."
            )
        study.set_user_attr("identity", identity)
        return study

    def _try(self, trial: optuna.Trial) -> float:
        values = {key: _suggest(trial, key, space) for key, space in self.search.space.items()}
        config = with_values(self.config, values, source=f"trial {trial.number}")
        print(f"trial {trial.number}: " + ", ".join(f"{key} {_short(value)}" for key, value in values.items()))
        prepared = train.sample(self.prepared_for(config), config.training)
        torch.manual_seed(config.training.seed)
        network = base_model.start(config, prepared.schema)
        checkpoints = self.folder / f"trial-{trial.number}"
        try:
            fitted = fit.fit(network, prepared, config, checkpoints, [_Pruning(trial)])
        except fit.DivergedError:
            raise optuna.TrialPruned from None
        finally:
            shutil.rmtree(checkpoints, ignore_errors=True)
        return fitted.best

    def prepared_for(self, config: TrainConfig) -> Prepared:
        """The data, made anew where a trial changes how it is read, cut or cleaned."""
        same = all(getattr(config, part) == getattr(self.config, part) for part in ("data", "labels", "text"))
        return self.prepared if same else prepare.prepare(config, self.data_dir)

    def _write_table(self, study: optuna.Study) -> None:
        table = study.trials_dataframe(attrs=("number", "value", "params", "duration", "state"))
        table.to_csv(self.folder / "trials.csv", index=False)


class _Pruning(TrainerCallback):
    """Reports each evaluation of a trial, and ends the trial where it lags behind the others."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial, self._evaluations = trial, 0

    def on_evaluate(
        self, args: TrainingArguments, _state: TrainerState, _control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Called after each evaluation."""
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


def _show(study: optuna.Study, metric: str, most: int = 10) -> None:
    """Prints the best trials."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    best_first = sorted(ended, key=lambda trial: trial.value or 0.0, reverse=study.direction.name == "MAXIMIZE")
    table = Table(title=f"{len(ended)} trials to the end, {pruned} pruned; the best:", title_justify="left")
    for heading in ("trial", metric, *study.best_params):
        table.add_column(heading, justify="right")
    for trial in best_first[:most]:
        table.add_row(str(trial.number), f"{trial.value:.4f}", *map(_short, trial.params.values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

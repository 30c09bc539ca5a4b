"""Plans the models of a training, and concludes what they say together: one, or several that differ in one thing."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from training import data_splits, jobs, learning_curve, spread
from training.config import TrainConfig
from training.jobs import Job
from training.output_folder import not_essential


def plan(flags: argparse.Namespace, config: TrainConfig) -> list[Job]:
    """Return the jobs that the flags ask for.

    Raises:
        UserError: the data cannot be read.
    """
    if flags.folds:
        return jobs.of_folds(config, data_splits.folds(config, flags.data_dir, flags.folds), flags.output)
    if flags.prepared:
        prepared = data_splits.read(flags.prepared, config)
    else:
        prepared = data_splits.prepare(config, flags.data_dir)
    if flags.seeds:
        return jobs.of_seeds(config, prepared, flags.output, flags.seeds)
    if flags.learning_curve:
        return jobs.of_sizes(config, prepared, flags.output)
    return jobs.plan(config, prepared, flags.output)


def conclude(flags: argparse.Namespace, models: Sequence[Path]) -> None:
    """Write and print what the finished models say together."""
    again = "the models are safe, and the same command with --resume says it again"
    with not_essential(f"what the models in {flags.output} tell together", again, step="said"):
        if flags.seeds:
            spread.write(flags.output, models, "seed")
        if flags.folds:
            spread.write(flags.output, models, "fold")
        if flags.learning_curve:
            learning_curve.write(flags.output, models)

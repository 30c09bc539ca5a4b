"""Search for good settings: train with the settings in [search] of the configuration, then train the best in full.

    python -m training.sweep my_labels.toml --data_dir my_data --output models/trained/my_labels

OUTPUT.search/ keeps the trials, so the same command continues after a kill. OUTPUT.search/trials.csv lists them.
Several processes, such as an array of cluster jobs, share one search if each has --search_only and its own --worker.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, output_folder, train
from training.config import Range, SearchConfig, TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Search the space of a configuration. Return 0 when done, 1 when stopped, 2 after wrong use."""
    return exit_code(lambda: _run(argv), "The same command continues, and keeps the trials that have ended.")


def make_parser() -> Parser:
    """Return the parser of `training.sweep`."""
    parser = Parser("python -m training.sweep", __doc__)
    config_file.add_flags(parser)
    parser.add_argument(
        "--prepared", type=Path, metavar="DIR", help="folder written by training.prepare, to train on instead of files"
    )
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="directory of the best model"
    )
    parser.add_argument("--trials", type=int, metavar="N", help="number of trials in all (default: search.trials)")
    train.hub_flags(parser)
    parser.add_argument("--search_only", action="store_true", help="do not train the best settings in full")
    parser.add_argument(
        "--worker", type=int, default=0, metavar="N", help="number of this process among several (default: 0)"
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = config_file.parse_flags(make_parser(), argv)
    flags.set += [f"search.trials={flags.trials}"] if flags.trials is not None else []
    config = config_file.load(flags)
    if config.search is None:
        raise UserError(
            f"{flags.config or '--set'}: expected a section [search] with a space to search, found none; add it."
        )
    _check_space(config, config.search)

    from training import build, data_splits, hub, jobs, search, terminal

    if flags.push_to_hub:
        hub.check(flags.push_to_hub)
    terminal.quiet_libraries()
    if flags.prepared:
        prepared = data_splits.read(flags.prepared, config)
    else:
        prepared = data_splits.prepare(config, flags.data_dir)
    trials = search.Search(config, config.search, prepared, flags.data_dir, flags.output)
    best = trials.run(flags.worker)
    if not flags.search_only:
        job = jobs.Job(best, trials.prepared_for(best), flags.output)
        for unfinished in jobs.pending([job], resume=True, overwrite=False):
            build.build(unfinished)
        if flags.push_to_hub:
            hub.push(flags.output, flags.push_to_hub, texts=flags.push_texts)


def _check_space(config: TrainConfig, search: SearchConfig) -> None:
    """Check that every key exists, and takes the values at both ends of its range, or all of its choices.

    Raises:
        UserError: names the key and the value that it does not take.
    """
    for key, space in search.space.items():
        for value in (space.low, space.high) if isinstance(space, Range) else space:
            config_file.with_values(config, {key: value}, source=f"search.space.{key}")


if __name__ == "__main__":
    sys.exit(main())

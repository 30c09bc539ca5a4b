"""Train a classifier and write it as a trained model, with tables of its metrics, a report and a model card.

    python -m training.train training/configs/demo.toml --data_dir data/demo --output models/trained/demo

With --resume, a training that was killed continues from its last checkpoint in OUTPUT.checkpoints.
`accelerate launch -m training.train CONFIG.toml ...` uses several GPUs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, output_folder, processes
from training.config import TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Train the model of a configuration. Return 0 when done, 1 when stopped, 2 after wrong use."""
    return exit_code(lambda: _run(argv), "The same command with --resume continues from the last checkpoint.")


def make_parser() -> Parser:
    """Return the parser of `training.train`."""
    parser = Parser("python -m training.train", __doc__)
    config_file.add_flags(parser)
    parser.add_argument(
        "--prepared", type=Path, metavar="DIR", help="folder written by training.prepare, to train on instead of files"
    )
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="directory of the trained model"
    )
    parser.add_argument(
        "--seeds",
        type=at_least_two,
        metavar="N",
        help="number of models to train on the same data with other seeds, as OUTPUT/seed0, ..., for the mean and the "
        "spread of the metrics",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    hub_flags(parser)
    return parser


def at_least_two(text: str) -> int:
    """Return a number of models whose metrics can be compared."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 2, found {text!r}")
    return int(text)


def hub_flags(parser: Parser) -> None:
    """Add the flags that upload a model."""
    parser.add_argument(
        "--push_to_hub",
        metavar="REPO",
        help="repository on huggingface.co to upload the model to (token: HF_TOKEN); --resume tries an upload again",
    )
    parser.add_argument(
        "--push_texts", action="store_true", help="upload the report too, which shows texts of the data"
    )


def _run(argv: Sequence[str] | None) -> None:
    flags = config_file.parse_flags(make_parser(), argv)
    config = config_file.load(flags)
    if processes.is_first() and (flags.config is None or flags.config.suffix == ".json"):
        print(f"The configuration, which {flags.output / config_file.USED} will hold:\n\n{config_file.to_toml(config)}")
    _check(flags, config)

    from training import build, data_splits, hub, jobs, spread, terminal, trackers

    trackers.check(config.training)
    if flags.push_to_hub:
        hub.check(flags.push_to_hub)
    with processes.only_first_speaks():
        terminal.quiet_libraries()
        if flags.prepared:
            prepared = data_splits.read(flags.prepared, config)
        else:
            prepared = data_splits.prepare(config, flags.data_dir)
        if flags.seeds:
            planned = jobs.of_seeds(config, prepared, flags.output, flags.seeds)
        else:
            planned = jobs.plan(config, prepared, flags.output)
        pending = {job.output for job in jobs.pending(planned, flags.resume, flags.overwrite)}
        for job in planned:
            if job.output in pending:
                build.build(job)
            if flags.push_to_hub and processes.is_first():
                label = f"-{job.output.name}" if config.training.one_vs_rest else ""
                hub.push(job.output, f"{flags.push_to_hub}{label}", texts=flags.push_texts)
        if flags.seeds and processes.is_first():
            spread.write(flags.output, [job.output for job in planned])


def _check(flags: argparse.Namespace, config: TrainConfig) -> None:
    """Refuse what cannot work before anything is read.

    Raises:
        UserError: the flags contradict the configuration, or the output is there already.
    """
    if flags.seeds and (config.training.one_vs_rest or flags.push_to_hub):
        raise UserError(
            "--seeds: expected one model for all labels that stays here; leave out one_vs_rest and --push_to_hub."
        )
    if not flags.resume and not config.training.one_vs_rest and not flags.seeds and processes.is_first():
        output_folder.check_free(flags.output, flags.overwrite)


if __name__ == "__main__":
    sys.exit(main())

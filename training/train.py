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
    parser.add_argument(
        "--folds",
        type=at_least_three,
        metavar="N",
        help="number of folds to divide data.train into, for N models as OUTPUT/fold0, ..., each measured on the fold "
        "that it did not see, and the mean and the spread of the metrics",
    )
    parser.add_argument(
        "--learning_curve",
        action="store_true",
        help="train on a quarter, a half and all of the training documents, as OUTPUT/quarter, half and all, and say "
        "whether more labels would help",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="say what the training would take, from some of its updates, and write nothing",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    hub_flags(parser)
    return parser


def at_least_two(text: str) -> int:
    """Return a number of models whose metrics can be compared."""
    return _at_least(2, text)


def at_least_three(text: str) -> int:
    """Return a number of folds, of which one is test, one validation, and the others train."""
    return _at_least(3, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
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

    from training import build, hub, jobs, plan, series, terminal, trackers

    if not flags.plan:
        trackers.check(config.training)
    if flags.push_to_hub and not flags.plan:
        hub.check(flags.push_to_hub)
    with processes.only_first_speaks():
        terminal.quiet_libraries()
        planned = series.plan(flags, config)
        if flags.plan:
            plan.show(plan.measure(planned[-1]), planned)  # the last one of a learning curve is the largest
            return
        pending = {job.output for job in jobs.pending(planned, flags.resume, flags.overwrite)}
        for job in planned:
            if job.output in pending:
                build.build(job)
            if flags.push_to_hub and processes.is_first():
                label = f"-{job.output.name}" if config.training.one_vs_rest else ""
                hub.push(job.output, f"{flags.push_to_hub}{label}", texts=flags.push_texts)
        if processes.is_first():
            series.conclude(flags, [job.output for job in planned])


def _check(flags: argparse.Namespace, config: TrainConfig) -> None:
    """Refuse what cannot work before anything is read.

    Raises:
        UserError: the flags contradict the configuration, or the output is there already.
    """
    given = [f"--{name}" for name in ("seeds", "folds", "learning_curve") if getattr(flags, name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: expected one of these; train twice.")
    if given and (config.training.one_vs_rest or flags.push_to_hub):
        raise UserError(
            f"{given[0]}: expected one model for all labels that stays here; leave out one_vs_rest and --push_to_hub."
        )
    if flags.folds and flags.prepared:
        raise UserError("--folds divides the files of data.train: leave out --prepared.")
    if flags.plan and processes.are_several():
        raise UserError("--plan: expected one process, found several; leave out accelerate.")
    if not flags.plan and not flags.resume and not config.training.one_vs_rest and not given and processes.is_first():
        output_folder.check_free(flags.output, flags.overwrite)


if __name__ == "__main__":
    sys.exit(main())

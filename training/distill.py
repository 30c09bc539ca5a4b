"""Train a small, fast model on what a large one says of unlabelled texts.

    python -m training.distill --teacher models/trained/subjects --texts 'corpus/*.jsonl.gz' --data_dir data \
        --student training/configs/students/half.toml --output models/trained/subjects_half

The teacher labels the texts into OUTPUT.taught/, a run like any other: the same command with --resume goes on where it
stopped, and the folder may be removed at the end. Then the student learns the teacher's probabilities, and the labels
of the teacher's own training documents. It is measured on the teacher's validation and test documents, and is a trained
model like any other.

The student's configuration names what differs from the teacher's: a [student] section, and other keys as needed.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models import trained_model
from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, output_folder, processes
from training.config import TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Train a student. Return 0 when done, 1 when stopped, 2 after wrong use."""
    return exit_code(lambda: _run(argv), "The same command with --resume goes on from there.")


def make_parser() -> Parser:
    """Return the parser of `training.distill`."""
    parser = Parser("python -m training.distill", __doc__)
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="directory of the trained model")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument(
        "--texts", action="append", metavar="GLOB", help="unlabelled files for the teacher to label; may be repeated"
    )
    texts.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="finished run of the teacher over such files, with --scores all and the text fields as --keep_fields",
    )
    parser.add_argument(
        "--student",
        type=Path,
        required=True,
        metavar="CONFIG.toml",
        help="configuration of the student, as in training/configs/students/",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder of the teacher's labelled data files (default: .)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values for keys of the configuration, such as student.layers=2 or training.epochs=1",
    )
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="directory of the student"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a distillation that stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    config = config_of(flags.teacher, flags.student, flags.set)
    if flags.texts and processes.are_several():
        raise UserError("--texts: expected one process, found several; label the texts first, and give the --run.")

    from training import build, data_splits, jobs, teaching, terminal

    terminal.quiet_libraries()
    prepared = data_splits.limited(data_splits.prepare(config, flags.data_dir), config)
    labels = trained_model.read_manifest(flags.teacher).labels
    if prepared.schema != labels:
        raise UserError(
            f"--data_dir {flags.data_dir}: expected the teacher's labels {', '.join(labels.names)}, found "
            f"{', '.join(prepared.schema.names)}; give the data that it was trained on."
        )
    every = config.model_copy(update={"training": config.training.model_copy(update={"max_train_samples": None})})
    job = jobs.Job(every, prepared, flags.output, flags.teacher)
    if not flags.resume:
        jobs.pending([job], resume=False, overwrite=flags.overwrite)  # a refusal should not follow hours of labelling
    run = flags.run or flags.output.with_name(flags.output.name + ".taught")
    if flags.run is None:
        teaching.run(flags.teacher, flags.texts, run)
    taught = teaching.read(run, flags.teacher, config)
    job = replace(job, prepared=teaching.joined(prepared, taught, config))
    if not flags.resume or jobs.pending([job], resume=True, overwrite=False):
        build.build(job)


def config_of(teacher: Path, student: Path, overrides: Sequence[str]) -> TrainConfig:
    """Return the configuration of the teacher's training, with the keys of the student's in place of its own.

    Raises:
        UserError: the student's file is missing or wrong, or describes no student; or the teacher was not trained here.
    """
    content = trained_model.read_manifest(teacher).training.get("config")
    if content is None:
        raise UserError(
            f"--teacher {teacher}: expected a model of training.train, found one without a configuration, such as an "
            "imported one; its labelled data is not known."
        )
    content = {name: section for name, section in content.items() if section is not None}
    for name, section in config_file.read_toml(student).items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    config = config_file.parse_config(content, overrides, source=str(student))
    if config.student is None:
        raise UserError(f"{student}: expected a section [student], found none; add it, for example kind = 'layers'.")
    if config.student.kind == "layers":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"pooling": "mean"})})


if __name__ == "__main__":
    sys.exit(main())

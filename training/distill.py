r"""Train a small, fast model on what a large one says of unlabelled texts.

    python -m training.distill --teacher models/trained/subjects --texts 'corpus/*.jsonl.gz' --data_dir data \
        --student training/configs/students/half.toml --output models/trained/subjects_half

The teacher labels the texts into OUTPUT.taught/. That is a run like any other, so that the same command with --resume
goes on where it stopped; the folder may be removed at the end. Then the student learns the teacher's probabilities, and
the labels of the teacher's own training documents. It is measured on the teacher's validation and test documents.

The student's configuration has a [student] section. It may also change [training], [decision], and how long a text may
be. All else is the teacher's.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models import paths, trained_model
from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, output_folder, processes
from training.config import TrainConfig

LENGTH = ("max_tokens", "long", "windows")  # keys of [text] that leave the text as it is


def main(argv: Sequence[str] | None = None) -> int:
    """Train a student. Return 0 when done, 1 when stopped, 2 after wrong use."""
    return exit_code(lambda: _run(argv), "The same command with --resume goes on from there.")


def make_parser() -> Parser:
    """Return the parser of `training.distill`."""
    parser = Parser("python -m training.distill", __doc__)
    parser.add_argument("--teacher", type=_here, required=True, metavar="DIR", help="directory of the trained model")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument(
        "--texts", action="append", metavar="GLOB", help="unlabelled files for the teacher to label; may be repeated"
    )
    texts.add_argument(
        "--run",
        type=_here,
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
    config_file.add_data_flags(parser)
    parser.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        help="folder written by training.prepare that the teacher was trained on",
    )
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="directory of the student"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a distillation that stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    return parser


def _here(text: str) -> Path:
    return Path(paths.here(text))


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    config = config_of(flags.teacher, flags.student, flags.set)
    if flags.texts and processes.are_several():
        raise UserError("--texts: expected one process, found several; label the texts first, and give the --run.")

    from models import weights
    from training import build, data_splits, jobs, students, teaching, terminal, trackers

    trackers.check(config.training)
    with processes.only_first_speaks():
        terminal.quiet_libraries()
        students.check(config, weights.load(flags.teacher))
        if flags.prepared:
            prepared = data_splits.read(flags.prepared, config)
        else:
            prepared = data_splits.prepare(config, flags.data_dir)
        prepared = data_splits.limited(prepared, config)
        _check_documents(prepared.splits.train.sha256(), flags.teacher)
        every = config.model_copy(update={"training": config.training.model_copy(update={"max_train_samples": None})})
        job = jobs.Job(every, prepared, flags.output, flags.teacher)
        if not flags.resume:
            jobs.pending([job], resume=False, overwrite=flags.overwrite)  # a refusal must not follow hours of labelling
        run = flags.run or flags.output.with_name(flags.output.name + ".taught")
        if flags.run is None:
            teaching.run(flags.teacher, flags.texts, run)
        taught = teaching.read(run, flags.teacher, config)
        job = replace(job, prepared=teaching.joined(prepared, taught, config))
        if not flags.resume or jobs.pending([job], resume=True, overwrite=False):
            build.build(job)


def _check_documents(sha256: str, teacher: Path) -> None:
    """Check that the labelled training documents are the teacher's own.

    Otherwise the student could be measured on documents that the teacher was trained on.
    """
    training = trained_model.read_manifest(teacher).training
    if sha256 != training["data_sha256"]:
        raise UserError(
            f"expected the {training['documents']:,} documents that {teacher} was trained on, found others in the "
            "data; check --data_dir, or give --prepared if the teacher had it."
        )


def config_of(teacher: Path, student: Path, overrides: Sequence[str]) -> TrainConfig:
    """Return the configuration of the teacher's training, with the keys of the student's in place of its own.

    Raises:
        UserError: the student's file is missing or wrong, describes no student, or changes the data; or the teacher
            was not trained here.
    """
    content = trained_model.read_manifest(teacher).training.get("config")
    if content is None:
        raise UserError(
            f"--teacher {teacher}: expected a model of training.train, found one without a configuration, such as an "
            "imported one; its labelled data is not known."
        )
    content = {name: section for name, section in content.items() if section is not None}
    of_teacher = config_file.parse_config(content, source=f"--teacher {teacher}")
    content["data"] = {**content["data"], "seed": of_teacher.data_seed}
    for name, section in config_file.read_toml(student).items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    config = config_file.parse_config(content, overrides, source=str(student))
    if config.student is None:
        raise UserError(f"{student}: expected a section [student], found none; add it, for example kind = 'layers'.")
    _check_same_data(config, of_teacher, student)
    if config.student.kind == "layers":
        return config
    # A student of the other kinds has a head on the mean of its embeddings, and no layers.
    training = config.training.model_copy(update={"gradient_checkpointing": False})
    model = config.model.model_copy(update={"pooling": "mean"})
    return config.model_copy(update={"model": model, "training": training})


def _check_same_data(config: TrainConfig, of_teacher: TrainConfig, student: Path) -> None:
    """Refuse settings with which the student would read other documents or labels than its teacher."""
    data = of_teacher.data.model_copy(update={"seed": of_teacher.data_seed})
    changed = [
        name
        for name, section in (("data", data), ("labels", of_teacher.labels), ("model", of_teacher.model))
        if getattr(config, name) != section
    ]
    if config.text.model_dump(exclude=set(LENGTH)) != of_teacher.text.model_dump(exclude=set(LENGTH)):
        changed.append("text")
    if changed:
        raise UserError(
            f"{student}: expected the teacher's [{'], ['.join(changed)}], found other values; a student may change "
            f"[student], [training], [decision], and of [text] {', '.join(LENGTH)}."
        )
    if config.training.one_vs_rest:
        raise UserError(f"{student}: expected one model for all labels, found training.one_vs_rest; remove it.")


if __name__ == "__main__":
    sys.exit(main())

"""The models that a training makes: where each goes, and whether it is finished, resumed or started anew."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models import names, trained_model
from models.errors import UserError
from models.labels import LabelSchema, Task
from training import fit, output_folder, processes
from training.config import TrainConfig
from training.data_splits import Prepared
from training.examples import Examples, Splits

SIZES = {"quarter": 0.25, "half": 0.5}  # of a learning curve, before all


@dataclass(frozen=True)
class Job:
    """One model to train."""

    config: TrainConfig
    prepared: Prepared
    output: Path
    teacher: Path | None = None  # directory of the trained model that a student is made from

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints, which exists until the model is written."""
        return self.output.with_name(self.output.name + ".checkpoints")

    @property
    def epochs(self) -> Path:
        """Return the folder of the models of each evaluation, with `training.keep_epochs`."""
        return self.output.with_name(self.output.name + ".epochs")

    @property
    def identity(self) -> str:
        """Return a text that is equal for trainings that would give the same model."""
        splits = [examples.sha256() for _, examples in self.prepared.splits.items()]
        teacher = {"teacher": trained_model.fingerprint(self.teacher)} if self.teacher else {}
        config = self.config.model_dump(mode="json", exclude={"search"})
        return json.dumps({"config": config, "labels": self.prepared.schema.names, "splits": splits} | teacher)

    @property
    def identity_sha256(self) -> str:
        """Return the hash of the identity, which model.json holds."""
        return hashlib.sha256(self.identity.encode()).hexdigest()


def plan(config: TrainConfig, prepared: Prepared, output: Path) -> list[Job]:
    """Return one job, or with `one_vs_rest` a binary one for each label, in a directory below `output`."""
    if not config.training.one_vs_rest:
        return [Job(config, prepared, output)]
    folders = names.distinct(prepared.schema.names)  # they are fit for columns, as the names of models are
    return [_one_vs_rest(config, prepared, place, output / folder) for place, folder in enumerate(folders)]


def of_folds(config: TrainConfig, folds: Sequence[Prepared], output: Path) -> list[Job]:
    """Return a job for each of the prepared folds, below `output`."""
    return [Job(config, prepared, output / f"fold{number}") for number, prepared in enumerate(folds)]


def of_sizes(config: TrainConfig, prepared: Prepared, output: Path) -> list[Job]:
    """Return a job for a quarter, a half and all of the training documents, below `output`.

    Each size holds the documents of the smaller ones.
    """
    most = min(len(prepared.splits.train), config.training.max_train_samples or len(prepared.splits.train))
    jobs = []
    for name, share in SIZES.items():
        training = config.training.model_copy(update={"max_train_samples": max(1, round(share * most))})
        jobs.append(Job(config.model_copy(update={"training": training}), prepared, output / name))
    return [*jobs, Job(config, prepared, output / "all")]


def of_seeds(config: TrainConfig, prepared: Prepared, output: Path, seeds: int) -> list[Job]:
    """Return a job for each `training.seed` from the configuration's on, all with the same data, below `output`."""
    data = config.data.model_copy(update={"seed": config.data_seed})
    first = config.training.seed
    trainings = (config.training.model_copy(update={"seed": seed}) for seed in range(first, first + seeds))
    return [
        Job(config.model_copy(update={"data": data, "training": training}), prepared, output / f"seed{training.seed}")
        for training in trainings
    ]


def _one_vs_rest(config: TrainConfig, prepared: Prepared, place: int, output: Path) -> Job:
    def binary(examples: Examples) -> Examples:
        examples = examples.take(np.flatnonzero(examples.known[:, place]), "no_label")
        positive = examples.targets[:, place]
        return replace(examples, targets=np.stack([1 - positive, positive], axis=1))

    labels = config.labels.one_vs_rest(prepared.schema, prepared.schema.names[place])
    training = config.training.model_copy(update={"one_vs_rest": False})
    splits = Splits(*(binary(examples) for _, examples in prepared.splits.items()))
    return Job(
        config.model_copy(update={"labels": labels, "training": training}),
        replace(prepared, schema=LabelSchema(task=Task.BINARY, names=labels.names), splits=splits),
        output,
    )


def pending(jobs: Sequence[Job], resume: bool, overwrite: bool) -> list[Job]:
    """Return the jobs that are to be trained, once nothing stands in their way.

    Raises:
        UserError: an output or its checkpoints belong to something else.
    """
    if resume:
        finished = [job for job in jobs if _is_finished(job)]
        for job in finished:
            print(f"{job.output} is finished already.")
        return [job for job in jobs if job not in finished]
    if processes.is_first():
        for job in jobs:
            _make_room(job, overwrite)
    return list(jobs)


def _make_room(job: Job, overwrite: bool) -> None:
    output_folder.check_free(job.output, overwrite)
    if job.config.training.keep_epochs:
        _clear_epochs(job.epochs, overwrite)
    if job.checkpoints.exists():
        if fit.last_checkpoint(job.checkpoints) and not overwrite:
            raise UserError(
                f"{job.checkpoints} holds an unfinished training: add --resume to continue it, or --overwrite to "
                "start anew."
            )
        shutil.rmtree(job.checkpoints)


def _clear_epochs(folder: Path, overwrite: bool) -> None:
    """Remove the models that an earlier training kept of its evaluations, and nothing else.

    Raises:
        UserError: the folder holds something else, or models that may not be replaced.
    """
    entries = list(folder.iterdir()) if folder.is_dir() else []
    others = [path.name for path in entries if not path.is_symlink() and not (path / trained_model.MANIFEST).is_file()]
    if others:
        raise UserError(
            f"{folder} is for the models of each evaluation: expected no others there, found {others[0]!r}."
        )
    if entries and not overwrite:
        raise UserError(f"{folder} holds models of an earlier training: name another --output, or add --overwrite.")
    for path in entries:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _is_finished(job: Job) -> bool:
    """Return whether the model exists and its checkpoints do not, since a training removes them at its end.

    Raises:
        UserError: the model belongs to another training.
    """
    if not (job.output / trained_model.MANIFEST).is_file() or job.checkpoints.exists():
        return False
    if trained_model.read_manifest(job.output).training.get("identity") != job.identity_sha256:
        raise UserError(
            f"--output {job.output} holds a model of another configuration or of other data: name another directory, "
            "or train anew with --overwrite and without --resume."
        )
    return True


def claim_checkpoints(job: Job) -> None:
    """Make the folder of checkpoints, or check that it belongs to this very job.

    Raises:
        UserError: the folder belongs to another training.
    """
    claim = job.checkpoints / "training.json"
    if claim.is_file() and claim.read_text(encoding="utf-8") != job.identity:
        raise UserError(
            f"{job.checkpoints} belongs to a training with another configuration or other data: restore what was "
            "changed, or start anew with --overwrite and without --resume."
        )
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    claim.write_text(job.identity, encoding="utf-8")

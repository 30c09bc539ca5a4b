"""Trains a classifier and writes it as a trained model, with its evaluation, a report and a model card.

python -m training.train training/configs/demo.toml --data_dir data/demo --output models/trained/demo

A training that was killed goes on with --resume from its last checkpoint, in OUTPUT.checkpoints.
Several GPUs: accelerate launch -m training.train CONFIG.toml ...
"""

import contextlib
import hashlib
import json
import os
import platform
import resource
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from models import network as networks
from models import trained_model, weights
from models.errors import UserError, exit_code
from models.labels import LabelSchema, Task
from models.trained_model import Manifest
from training import base_model, calibrate, command, fit, hub, model_card, prepare, report
from training.base_model import Network
from training.config import TrainConfig, TrainingConfig, load_config
from training.data import SPLITS, Examples, Splits
from training.evaluation import Evaluation, evaluate, score, show, write_tables
from training.prepare import Prepared

EVALUATION = "evaluation"  # the folder of the CSV tables, inside the model's directory


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what the configuration says. Returns 0 done, 1 stopped, 2 wrong use."""
    return exit_code(lambda: _run(argv), "The same command with --resume goes on from the last checkpoint.")


def make_parser() -> command.Parser:
    """The parser of `training.train`."""
    parser = command.Parser("training.train", __doc__)
    parser.add_config()
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="take what training.prepare wrote there")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the trained model's directory")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, where there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload the model to huggingface.co (token: HF_TOKEN)")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse_args(argv)
    config = load_config(flags.config, flags.set)
    fit.check_trackers(config.training)
    if flags.push_to_hub:
        hub.check(flags.push_to_hub)
    if not flags.resume and not config.training.one_vs_rest and _is_first_process():
        command.check_output(flags.output, flags.overwrite)  # before minutes of reading
    with _only_first_process_speaks():
        quiet_libraries()
        prepared = prepare.read(flags.prepared, config) if flags.prepared else prepare.prepare(config, flags.data_dir)
        for job in pending(jobs(config, prepared, flags.output), flags.resume, flags.overwrite):
            train(job)
            if flags.push_to_hub and _is_first_process():
                label = f"-{job.output.name}" if config.training.one_vs_rest else ""
                hub.push(job.output, f"{flags.push_to_hub}{label}")


@dataclass(frozen=True)
class Job:
    """One model to train."""

    config: TrainConfig
    prepared: Prepared
    output: Path

    @property
    def checkpoints(self) -> Path:
        """Where its training keeps checkpoints until the model is written."""
        return self.output.with_name(self.output.name + ".checkpoints")

    @property
    def identity(self) -> str:
        """Equal for trainings that would give the same model."""
        splits = [getattr(self.prepared.splits, name).sha256() for name in SPLITS]
        config = self.config.model_dump(mode="json", exclude={"search"})
        return json.dumps({"config": config, "labels": self.prepared.schema.names, "splits": splits})


def jobs(config: TrainConfig, prepared: Prepared, output: Path) -> list[Job]:
    """One job, or with `one_vs_rest` a binary one for each label, in a directory below `output`."""
    if not config.training.one_vs_rest:
        return [Job(config, prepared, output)]
    schema = prepared.schema
    found = [_one_vs_rest(config, prepared, schema, i, output) for i in range(len(schema.names))]
    folders = {job.output: name for job, name in zip(found, schema.names, strict=True)}
    if len(folders) < len(found):
        shared = sorted(set(schema.names) - set(folders.values()))
        raise UserError(
            f"training.one_vs_rest: expected label names that differ in letters and digits, since each is a directory; "
            f"found several like {', '.join(shared)}; rename them."
        )
    return found


def _one_vs_rest(config: TrainConfig, prepared: Prepared, schema: LabelSchema, place: int, output: Path) -> Job:
    def binary(examples: Examples) -> Examples:
        positive = examples.targets[:, place]
        return replace(examples, targets=np.stack([1 - positive, positive], axis=1))

    name = schema.names[place]
    labels = config.labels.one_vs_rest(schema, name)
    training = config.training.model_copy(update={"one_vs_rest": False})
    splits = Splits(*(binary(getattr(prepared.splits, part)) for part in SPLITS))
    return Job(
        config.model_copy(update={"labels": labels, "training": training}),
        replace(prepared, schema=LabelSchema(task=Task.BINARY, names=labels.names), splits=splits),
        output / trained_model.model_name(name),
    )


def pending(of: Sequence[Job], resume: bool, overwrite: bool) -> list[Job]:
    """The jobs that are to be trained, once it is certain that nothing stands in their way."""
    if resume:
        finished = [job for job in of if _is_finished(job)]
        for job in finished:
            print(f"{job.output} is finished already.")
        return [job for job in of if job not in finished]
    if _is_first_process():
        for job in of:
            _make_room(job, overwrite)
    return list(of)


def _make_room(job: Job, overwrite: bool) -> None:
    command.check_output(job.output, overwrite)
    if job.checkpoints.exists():
        if fit.last_checkpoint(job.checkpoints) and not overwrite:
            raise UserError(
                f"{job.checkpoints} holds an unfinished training: add --resume to go on with it, or --overwrite to "
                "start anew."
            )
        shutil.rmtree(job.checkpoints)


def _is_finished(job: Job) -> bool:
    """The model is there and its checkpoints are gone, which is the last that a training does."""
    if not (job.output / trained_model.MANIFEST).is_file() or job.checkpoints.exists():
        return False
    if trained_model.read_manifest(job.output).training.get("identity") != _hash(job.identity):
        raise UserError(
            f"--output {job.output} holds a model of another configuration or of other data: name another directory, "
            "or train anew with --overwrite and without --resume."
        )
    return True


def _claim_checkpoints(job: Job) -> None:
    """Makes the folder of checkpoints, or sees that it belongs to this very job."""
    claim = job.checkpoints / "training.json"
    if claim.is_file() and claim.read_text(encoding="utf-8") != job.identity:
        raise UserError(
            f"{job.checkpoints} belongs to a training with another configuration or other data: give back what was "
            "changed, or start anew with --overwrite and without --resume."
        )
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    claim.write_text(job.identity, encoding="utf-8")


def train(job: Job) -> None:
    """Fits the network, its temperature and thresholds, measures, and writes the model with its report.

    Raises:
        UserError: the base model or the checkpoints do not fit, or the loss is no longer a number.
    """
    config, schema = job.config, job.prepared.schema
    torch.manual_seed(config.training.seed)
    prepared = sample(job.prepared, config.training)
    splits = prepared.splits
    _print_counts(splits)
    network = base_model.start(config, schema)
    _claim_checkpoints(job)
    try:
        fitted = fit.fit(network, prepared, config, job.checkpoints)
    except fit.DivergedError:
        shutil.rmtree(job.checkpoints, ignore_errors=True)  # nothing to go on from
        raise
    if not _is_first_process():
        return
    logits = {
        name: score(network.module, network.tokenizer, part.texts, config.text.max_tokens)
        for name in ("validation", "test")
        if len(part := getattr(splits, name))
    }
    decision = calibrate.fit(logits["validation"], splits.validation.targets, schema)
    evaluations = [evaluate(name, getattr(splits, name), found, schema, decision) for name, found in logits.items()]
    manifest = Manifest(
        labels=schema,
        text=config.text,
        decision=decision,
        pooling=config.model.pooling,
        base_model=config.model.base,
        base_revision=config.model.revision,
        metrics={evaluation.split: evaluation.metrics for evaluation in evaluations},
        training=_record(job, splits.train, fitted),
        versions=_versions(),
    )
    _write(job, network, manifest, evaluations)
    show(evaluations[-1])
    parameters = networks.num_parameters(network.module)
    print(f"{parameters:,} parameters, trained in {fitted.seconds:,.0f} s: {job.output}")


def sample(prepared: Prepared, training: TrainingConfig) -> Prepared:
    """At most `max_train_samples` of the training documents, drawn by the seed."""
    limit, train_split = training.max_train_samples, prepared.splits.train
    if limit is None or limit >= len(train_split):
        return prepared
    chosen = np.random.default_rng(training.seed).permutation(len(train_split))[:limit]
    return replace(prepared, splits=replace(prepared.splits, train=train_split.take(np.sort(chosen))))


def _record(job: Job, examples: Examples, fitted: fit.Fitted) -> dict[str, Any]:
    """What `model.json` says of the training."""
    counts = examples.targets.sum(axis=0).astype(int).tolist()
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    cuda = torch.cuda.is_available()
    return {
        "run_id": uuid.uuid4().hex[:12],
        "identity": _hash(job.identity),
        "config": job.config.model_dump(mode="json", exclude={"search"}),
        "documents": len(examples),
        "label_counts": dict(zip(job.prepared.schema.names, counts, strict=True)),
        "data_sha256": examples.sha256(),
        "card": job.prepared.card,
        "seconds": round(fitted.seconds, 1),
        "examples_per_second": round(len(examples) * job.config.training.epochs / fitted.seconds, 1),
        "peak_memory_mib": round(peak / 2**20),
        "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
        "history": fitted.history,
    }


def _write(job: Job, network: Network, manifest: Manifest, evaluations: Sequence[Evaluation]) -> None:
    if network.tokenizer.is_fast:  # as loaded: without the truncation and padding that the last call left in it
        network.tokenizer.backend_tokenizer.no_truncation()
        network.tokenizer.backend_tokenizer.no_padding()
    weights.save(job.output, network.module, network.config, network.tokenizer, manifest)
    for evaluation in evaluations:
        sources = getattr(job.config.data, evaluation.split) or job.config.data.train
        run_id = manifest.training["run_id"]
        write_tables(evaluation, manifest.decision, job.output / EVALUATION, ", ".join(sources), run_id)
    report.write(job.output, evaluations, manifest)
    model_card.write(job.output, manifest)
    shutil.rmtree(job.checkpoints)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    installed = {distribution.name for distribution in metadata.distributions()}
    return {"python": platform.python_version()} | {
        name: metadata.version(name)
        for name in ("labelbeam", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn")
        if name in installed  # a checkout that runs in place has no version of its own
    }


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0  # set by accelerate and torchrun


@contextlib.contextmanager
def _only_first_process_speaks() -> Iterator[None]:
    if _is_first_process():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def quiet_libraries() -> None:
    """Training has its own progress bar and messages."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _print_counts(splits: Splits) -> None:
    for name in SPLITS:
        examples: Examples = getattr(splits, name)
        skipped = "".join(f", {count:,} rows left out: {reason}" for reason, count in examples.skipped.items())
        print(f"{name}: {len(examples):,} documents{skipped}")


if __name__ == "__main__":
    sys.exit(main())

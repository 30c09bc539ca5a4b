"""Builds a trained model from prepared data: fits its weights and decision, measures it, saves it, and explains it."""

import json
import platform
import shutil
import uuid
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models import hardware, trained_model, weights
from models import network as networks
from models.trained_model import Manifest
from training import (
    base_model,
    calibrate,
    config_file,
    data_splits,
    explain,
    fit,
    jobs,
    label_tables,
    measurement,
    model_card,
    processes,
    students,
    terminal,
    trackers,
)
from training.base_model import Network
from training.callbacks import DivergedError
from training.data_splits import Prepared
from training.examples import Examples, Splits
from training.explanation import Explanation
from training.jobs import Job
from training.measurement import Measurement
from training.output_folder import not_essential


def build(job: Job) -> None:
    """Fit the network and its decision, measure the model, and write it with its report.

    Raises:
        UserError: the base model or the checkpoints do not fit, or the loss is infinite or not a number.
    """
    config = job.config
    torch.manual_seed(config.training.seed)
    prepared = data_splits.limited(job.prepared, config)
    _print_counts(prepared.splits)
    network = _start(job, prepared)
    jobs.claim_checkpoints(job)
    try:
        fitted = fit.fit(network, prepared, config, job.checkpoints)
    except DivergedError:
        shutil.rmtree(job.checkpoints, ignore_errors=True)  # no checkpoint of it is worth resuming
        raise
    if not processes.is_first():
        return
    manifest, measurements = _measure(job, network, prepared.splits, fitted)
    _save(job.output, network, manifest)
    explanation = _explain(job, manifest, measurements, prepared.splits.train)
    trackers.finish(config.training, manifest)
    if config.training.keep_epochs:
        _save_epochs(job, network, prepared.splits, fitted)
    with not_essential(job.checkpoints, "the model is safe, and you can remove the folder", step="removed"):
        shutil.rmtree(job.checkpoints)
    explain.show(explanation)
    parameters = networks.num_parameters(network.module)
    print(f"{parameters:,} parameters, trained in {fitted.seconds:,.0f} s: {job.output}")


def _start(job: Job, prepared: Prepared) -> Network:
    """Return the network before its first update."""
    if job.teacher:
        return students.start(job.config, weights.load(job.teacher), prepared.splits.train.texts)
    return base_model.start(job.config, prepared.schema)


def _measure(job: Job, network: Network, splits: Splits, fitted: fit.Fitted) -> tuple[Manifest, list[Measurement]]:
    """Choose the decision on validation, and measure it there and on test."""
    config, schema = job.config, job.prepared.schema
    held_out = {name: part for name, part in splits.items() if name != "train" and len(part)}
    logits = {
        name: measurement.score(network.module, network.tokenizer, part.texts, config.text)
        for name, part in held_out.items()
    }
    decision = calibrate.fit(logits["validation"], splits.validation.targets, schema, config.decision)
    measurements = [
        measurement.measure_split(name, part, logits[name], schema, decision) for name, part in held_out.items()
    ]
    from_nothing = config.student is not None and config.student.kind == "ngrams"
    manifest = Manifest(
        labels=schema,
        text=config.text,
        decision=decision,
        pooling=config.model.pooling,
        base_model="" if from_nothing else config.model.base,
        base_revision=None if from_nothing else config.model.revision,
        metrics={one.split: one.metrics for one in measurements},
        training=_record(job, splits.train, fitted),
        versions=_versions(),
    )
    return manifest, measurements


def _save_epochs(job: Job, network: Network, splits: Splits, fitted: fit.Fitted) -> None:
    """Write each checkpoint as a trained model with a decision of its own, named by its epoch, and a link to the best.

    The network is left with the last one's weights.
    """
    for checkpoint in fit.all_checkpoints(job.checkpoints):
        epoch = json.loads((checkpoint / "trainer_state.json").read_bytes())["epoch"]
        network.module.load_state_dict(load_file(checkpoint / "model.safetensors"))
        manifest, _ = _measure(job, network, splits, fitted)
        _save(job.epochs / f"{epoch:g}", network, manifest)
    best = job.epochs / "best_model"
    best.unlink(missing_ok=True)
    best.symlink_to(Path("..", job.output.name))
    print(f"a model of each evaluation: {job.epochs}")


def _save(output: Path, network: Network, manifest: Manifest) -> None:
    """Write the model's directory, with the tokenizer as it was loaded."""
    if network.tokenizer.is_fast:  # its last call left truncation and padding in it
        network.tokenizer.backend_tokenizer.no_truncation()
        network.tokenizer.backend_tokenizer.no_padding()
    weights.save(output, network.module, network.config, network.tokenizer, manifest)


def _explain(job: Job, manifest: Manifest, measurements: Sequence[Measurement], train: Examples) -> Explanation:
    """Write the tables, the report and the model card into the model's directory. Each may fail by itself."""
    command = f"`python -m training.evaluate --model {job.output} --data FILE --output DIR`"
    again = f"the model is safe, and {command} measures it again"
    explanation = Explanation(manifest, measurements, job.prepared.sources, train, again)
    explain.write(explanation, job.output, job.output / label_tables.FOLDER)
    with not_essential(job.output / config_file.USED, "the same settings are in model.json"):
        (job.output / config_file.USED).write_text(config_file.to_toml(job.config), encoding="utf-8")
    with not_essential(job.output / model_card.FILE, "the model is safe, and works without this card"):
        model_card.write(job.output, manifest)
    return explanation


def _record(job: Job, examples: Examples, fitted: fit.Fitted) -> dict[str, Any]:
    """Return what `model.json` says of the training."""
    counts = examples.positive.sum(axis=0).tolist()
    cuda = torch.cuda.is_available()
    return {
        "run_id": uuid.uuid4().hex[:12],
        "identity": job.identity_sha256,
        "teacher": _teacher(job),
        "config": job.config.model_dump(mode="json", exclude={"search"}),
        "documents": len(examples),
        "label_counts": dict(zip(job.prepared.schema.names, counts, strict=True)),
        "unknown_counts": dict(zip(job.prepared.schema.names, (~examples.known).sum(axis=0).tolist(), strict=True)),
        "data_sha256": examples.sha256(),
        "card": job.prepared.card,
        "passes": round(fitted.passes, 4),
        "seconds": round(fitted.seconds, 1),
        "seconds_of_epochs": [round(seconds, 1) for seconds in fitted.epochs],
        "seconds_of_saving": round(fitted.saving, 3),
        "examples_per_second": round(len(examples) * fitted.passes / fitted.seconds, 1),
        "tokens_per_second": round(fitted.tokens * fitted.passes / fitted.seconds),
        "peak_memory_mib": hardware.peak_memory() >> 20,
        "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
        "history": fitted.history,
    }


def _teacher(job: Job) -> dict[str, Any] | None:
    """Return the name and the hash of a student's teacher, and the number of documents that it labelled."""
    if job.teacher is None:
        return None
    name, sha256 = trained_model.model_name(job.teacher), trained_model.fingerprint(job.teacher)
    return {"name": name, "sha256": sha256, **job.prepared.card["taught"]}


def _versions() -> dict[str, str]:
    installed = {distribution.name for distribution in metadata.distributions()}
    return {"python": platform.python_version()} | {
        name: metadata.version(name)
        for name in ("labelbeam", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn")
        if name in installed  # a checkout that is not installed has no version
    }


def _print_counts(splits: Splits) -> None:
    for name, examples in splits.items():
        skipped = [f", {terminal.counted(n, 'row')} left out: {reason}" for reason, n in examples.skipped.items()]
        print(f"{name}: {terminal.counted(len(examples), 'document')}{''.join(skipped)}")

"""Writes README.md of a trained model: a model card in the Hugging Face hub's format, filled in from model.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from models.decision import thresholds_of
from models.labels import Task
from models.trained_model import Manifest
from training import markdown
from training.calibrate import FEWEST_POSITIVES

FILE = "README.md"


def write(directory: Path, manifest: Manifest) -> None:
    """Writes the card into a model's directory."""
    name = directory.name
    page = f"---\n{_data(name, manifest).to_yaml()}\n---\n\n" + "\n".join(_page(name, manifest)) + "\n"
    (directory / FILE).write_text(page, encoding="utf-8")


def _data(name: str, manifest: Manifest) -> ModelCardData:
    """What the hub reads: task, base model, results."""
    split, metrics = _measured(manifest)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type="own",
            dataset_name=f"{split} split, SHA-256 {metrics['data_sha256'][:12]}",
            metric_type="f1",
            metric_name=kind,
            metric_value=round(metrics[key], 4),
        )
        for kind, key in (("macro F1", "macro_f1"), ("micro F1", "micro_f1"))
        if metrics
    ]
    return ModelCardData(
        library_name="labelbeam",
        pipeline_tag="text-classification",
        tags=["text-classification", manifest.labels.task.value.replace("_", "-")],
        base_model=manifest.base_model if _is_on_hub(manifest.base_model) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _is_on_hub(base_model: str) -> bool:
    return (
        bool(base_model)
        and ":" not in base_model
        and not base_model.startswith(("/", "."))
        and (not Path(base_model).exists())
    )


def _measured(manifest: Manifest) -> tuple[str, dict[str, Any]]:
    """The split that counts, and its metrics: test, where there is one."""
    for split in ("test", "validation"):
        if split in manifest.metrics:
            return split, manifest.metrics[split]
    return "", {}


def _page(name: str, manifest: Manifest) -> Iterator[str]:
    labels, training = manifest.labels, manifest.training
    what = {
        Task.BINARY: f"Says of a text whether it is {labels.names[-1]}",
        Task.MULTI_CLASS: f"Gives a text one of {len(labels.names)} labels",
        Task.MULTI_LABEL: f"Gives a text any of {len(labels.names)} labels, or none",
    }[labels.task]
    yield f"# {name}\n"
    yield f"{what}: {', '.join(labels.names)}.\n"
    fields, cleaning = ", ".join(manifest.text.fields), ", ".join(manifest.text.cleaning) or "nothing"
    yield (
        f"Base model: {manifest.base_model or 'none'}. It reads the fields {fields}, cleaned by {cleaning}, and of the "
        f"result the first {manifest.text.max_tokens} tokens.\n"
    )
    yield "## Use\n"
    yield "```\npython -m inference.run --model DIR < documents.jsonl > labelled.jsonl"
    yield "python -m inference.beam_runner --model DIR --input 'corpus/*.jsonl.gz' --output runs/labelled\n```\n"
    if manifest.metrics:
        yield from _results(manifest)
    if training.get("documents"):
        yield from _training(manifest)
    yield "## Limits\n"
    yield from (f"- {limit}" for limit in _limits(manifest))


def _results(manifest: Manifest) -> Iterator[str]:
    split, metrics = _measured(manifest)
    low, high = metrics["intervals"]["macro_f1"]
    error = metrics["calibration_error"]
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    yield f"## Results on {split}\n"
    yield (
        f"{metrics['documents']:,} documents; macro-F1 {metrics['macro_f1']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"micro-F1 {metrics['micro_f1']:.3f}, accuracy {metrics['accuracy']:.3f}.\n"
    )
    yield (
        f"Expected calibration error {error['before']:.3f}, {error['after']:.3f} after a temperature of "
        f"{manifest.decision.temperature}. Temperature and thresholds were chosen on validation.\n"
    )
    yield from markdown.table(
        ("label", "threshold", "precision", "recall", "F1", "95 %", "average precision", "support"),
        (
            (
                label,
                f"{thresholds[label]:.3f}" if label in thresholds else "–",
                *(f"{found[key]:.3f}" for key in ("precision", "recall", "f1")),
                "{:.3f} to {:.3f}".format(*metrics["intervals"]["labels"][label]["f1"]),
                "–" if found["average_precision"] is None else f"{found['average_precision']:.3f}",
                f"{found['support']:,}",
            )
            for label, found in metrics["labels"].items()
        ),
    )
    yield ""


def _training(manifest: Manifest) -> Iterator[str]:
    training = manifest.training
    settings = training["config"]["training"]
    yield "## Training\n"
    yield (
        f"{training['documents']:,} documents (SHA-256 {training['data_sha256']}), {settings['epochs']:g} epochs, "
        f"batch size {settings['batch_size']}, learning rate {settings['learning_rate']:g}, seed {settings['seed']}: "
        f"{training['seconds']:,.0f} s, {training['examples_per_second']:g} documents a second, peak memory "
        f"{training['peak_memory_mib']:,} MiB.\n"
    )
    counts = training["label_counts"].items()
    yield f"Documents with each label: {', '.join(f'{label} {count:,}' for label, count in counts)}.\n"
    yield f"Versions: {', '.join(f'{package} {version}' for package, version in manifest.versions.items())}.\n"


def _limits(manifest: Manifest) -> Iterator[str]:
    """What the numbers say that a user should be wary of."""
    split, metrics = _measured(manifest)
    if not metrics:
        yield "It was not evaluated: the thresholds are 0.5, whatever that means for your data."
    few = [label for label, found in metrics.get("labels", {}).items() if found["support"] < FEWEST_POSITIVES]
    if few:
        number = f"Fewer than {FEWEST_POSITIVES} documents of {split}"
        yield f"{number} had these labels, so what is said of them means little: {', '.join(few)}."
    poor = [label for label, found in metrics.get("labels", {}).items() if found["f1"] < 0.5 and label not in few]
    if poor:
        yield f"F1 is below 0.5 for: {', '.join(poor)}."
    yield f"Text beyond {manifest.text.max_tokens} tokens is not read."
    yield "The numbers hold for texts like those of its training; for others, label a sample by hand and evaluate."

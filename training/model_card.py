"""Writes the README.md of a trained model: a model card for the Hugging Face hub, filled in from model.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from models.decision import thresholds_of
from models.labels import Task
from models.trained_model import Manifest
from training import markdown

FILE = "README.md"
FEW_DOCUMENTS = 20  # documents with a label below which its metrics mean little
COLUMNS = ("precision", "recall", "F1", "95 %", "average precision", "support")


def write(directory: Path, manifest: Manifest) -> None:
    """Write the card into a model's directory."""
    name = directory.name
    page = f"---\n{_data(name, manifest).to_yaml()}\n---\n\n" + "\n".join(_page(name, manifest)) + "\n"
    (directory / FILE).write_text(page, encoding="utf-8")


def _data(name: str, manifest: Manifest) -> ModelCardData:
    """Return what the hub reads: the task, the base model and the results."""
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
    """Return the name and the metrics of the split that counts: test if there is one, else validation."""
    for split in ("test", "validation"):
        if split in manifest.metrics:
            return split, manifest.metrics[split]
    return "", {}


def _page(name: str, manifest: Manifest) -> Iterator[str]:
    labels, training = manifest.labels, manifest.training
    what = {
        Task.BINARY: f"This classifier decides whether a text is {labels.names[-1]}",
        Task.MULTI_CLASS: f"This classifier gives a text one of {len(labels.names)} labels",
        Task.MULTI_LABEL: f"This classifier gives a text any number of {len(labels.names)} labels",
    }[labels.task]
    yield f"# {name}\n"
    yield f"{what}. The labels are {', '.join(labels.names)}.\n"
    fields = f"{'field' if len(manifest.text.fields) == 1 else 'fields'} {', '.join(manifest.text.fields)}"
    cleaning = f"after the cleaning steps {', '.join(manifest.text.cleaning)}" if manifest.text.cleaning else "as it is"
    yield (
        f"{_origin(manifest)}. The classifier reads up to {manifest.text.most_tokens} tokens of the {fields}, "
        f"{cleaning}.\n"
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


def _origin(manifest: Manifest) -> str:
    """Return a sentence on the model that this one was made from."""
    if teacher := manifest.training.get("teacher"):
        kind = manifest.training["config"]["student"]["kind"]
        return (
            f"This is a student of the model {teacher['name']} (SHA-256 {teacher['sha256'][:12]}…), of the kind {kind}"
        )
    return f"The base model is {manifest.base_model or 'unknown'}"


def _results(manifest: Manifest) -> Iterator[str]:
    split, metrics = _measured(manifest)
    low, high = metrics["intervals"]["macro_f1"]
    error = metrics["calibration_error"]
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    yield f"## Results on {split}\n"
    yield (
        f"On {metrics['documents']:,} documents, macro-F1 is {metrics['macro_f1']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"micro-F1 is {metrics['micro_f1']:.3f}, and accuracy is {metrics['accuracy']:.3f}.\n"
    )
    yield (
        "A temperature and a bias of each label change the expected calibration error from "
        f"{error['before']:.3f} to {error['after']:.3f}. "
        + ("They and the thresholds were" if thresholds else "They were")
        + " chosen on validation.\n"
    )
    yield from markdown.table(
        ("label", *(["threshold"] if thresholds else []), *COLUMNS),
        (_result_row(label, metrics, thresholds) for label in metrics["labels"]),
    )
    yield ""


def _result_row(label: str, metrics: dict[str, Any], thresholds: dict[str, float]) -> list[str]:
    values = metrics["labels"][label]
    threshold = [f"{thresholds[label]:.3f}" if label in thresholds else "–"] if thresholds else []
    return [
        label,
        *threshold,
        *(f"{values[key]:.3f}" for key in ("precision", "recall", "f1")),
        "{:.3f} to {:.3f}".format(*metrics["intervals"]["labels"][label]["f1"]),
        "–" if values["average_precision"] is None else f"{values['average_precision']:.3f}",
        f"{values['support']:,}",
    ]


def _training(manifest: Manifest) -> Iterator[str]:
    training = manifest.training
    settings = training["config"]["training"]
    yield "## Training\n"
    yield (
        f"The classifier was trained on {training['documents']:,} documents (SHA-256 {training['data_sha256']}) in "
        f"{training['seconds']:,.0f} s. It read {training['examples_per_second']:g} documents per second and took "
        f"{training['peak_memory_mib']:,} MiB of memory at its peak. The settings were {settings['epochs']:g} epochs, "
        f"batch size {settings['batch_size']}, learning rate {settings['learning_rate']:g} and seed "
        f"{settings['seed']}.\n"
    )
    if teacher := training.get("teacher"):
        yield f"The teacher gave the labels of {teacher['documents']:,} of these documents.\n"
    counts = training["label_counts"].items()
    yield f"Training documents per label: {', '.join(f'{label} {count:,}' for label, count in counts)}.\n"
    yield f"Versions: {', '.join(f'{package} {version}' for package, version in manifest.versions.items())}.\n"


def _limits(manifest: Manifest) -> Iterator[str]:
    """Return what a user should be wary of, judging by the numbers."""
    split, metrics = _measured(manifest)
    if not metrics:
        thresholds = " Its thresholds of 0.5 may not suit your data." if manifest.decision.thresholds else ""
        yield f"The classifier was not evaluated.{thresholds}"
    few = [label for label, values in metrics.get("labels", {}).items() if values["support"] < FEW_DOCUMENTS]
    if few:
        yield (
            f"These labels have fewer than {FEW_DOCUMENTS} documents in {split}, so their metrics mean little: "
            f"{', '.join(few)}."
        )
    poor = [label for label, values in metrics.get("labels", {}).items() if values["f1"] < 0.5 and label not in few]
    if poor:
        yield f"These labels have an F1 below 0.5: {', '.join(poor)}."
    yield f"The classifier does not read more than {manifest.text.most_tokens} tokens of a text."
    yield (
        "The metrics hold for texts like those of the training. For other texts, label a sample by hand and evaluate "
        "the classifier on it."
    )

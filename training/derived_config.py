"""Makes a configuration from a few facts and from the data: from flags, and from files in the GLUE script's names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.labels import Task
from training import data, tables
from training.config_file import closest, parse_config
from training.label_reader import matches, values_of

MOST_CLASSES = 500  # distinct cells up to which a column is taken for one of classes
FLAGS = {"0": False, "1": True, "false": False, "true": True}

# Keys of the configuration for those of transformers' run_glue.py and run_classification.py.
GLUE = {
    "model_name_or_path": "model.base",
    "model_revision": "model.revision",
    "dataset_name": "data.dataset",
    "dataset_config_name": "data.subset",
    "train_file": "data.train",
    "train_split_name": "data.train",
    "validation_file": "data.validation",
    "validation_split_name": "data.validation",
    "test_file": "data.test",
    "test_split_name": "data.test",
    "text_column_name": "text.fields",
    "text_column_names": "text.fields",
    "text_column_delimiter": "text.separator",
    "label_column_name": "labels.column",
    "max_seq_length": "text.max_tokens",
    "num_train_epochs": "training.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.scheduler",
    "warmup_ratio": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "label_smoothing_factor": "training.label_smoothing",
    "seed": "training.seed",
    "max_train_samples": "training.max_train_samples",
    "max_eval_samples": "training.max_eval_samples",
    "eval_steps": "training.evaluate_every",
    "report_to": "training.report_to",
}
# Keys that ask for what is always done, or that change no weight.
NOT_NEEDED = {
    *("cache_dir", "dataloader_num_workers", "ddp_find_unused_parameters", "do_eval", "do_predict", "do_train"),
    *("eval_strategy", "evaluation_strategy", "ignore_mismatched_sizes", "load_best_model_at_end", "logging_dir"),
    *("logging_steps", "logging_strategy", "max_predict_samples", "max_test_samples", "output_dir", "overwrite_cache"),
    *("overwrite_output_dir", "pad_to_max_length", "per_device_eval_batch_size", "preprocessing_num_workers"),
    *("run_name", "save_steps", "save_strategy", "save_total_limit", "shuffle_seed", "shuffle_train_dataset"),
    *("use_auth_token", "use_fast_tokenizer", "greater_is_better", "disable_tqdm", "remove_columns", "token"),
}
METRICS = {"eval_loss": "loss", "loss": "loss", "accuracy": "accuracy", "f1": "macro_f1", "micro_f1": "micro_f1"}


def of_flags(files: Sequence[str], text: Sequence[str], label: str, task: str | None, base: str) -> dict[str, Any]:
    """Return the content of a configuration, without the labels' names, from the flags of a command."""
    labels = {"column": label} | ({"task": task} if task else {})
    return {"data": {"train": list(files)}, "labels": labels, "text": {"fields": list(text)}, "model": {"base": base}}


def of_glue(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the content of a configuration, without the labels' names, from one in the GLUE script's names.

    Raises:
        UserError: has a line for each key that the script or this project does not know.
    """
    content: dict[str, Any] = {"data": {}, "labels": {"column": "label"}, "text": {}, "model": {}, "training": {}}
    problems: list[str] = []
    for key, value in given.items():
        if value is None:
            continue
        if key == "report_to" and value in ("none", ["none"]):
            content["training"]["report_to"] = []
        elif key in GLUE:
            section, name = GLUE[key].split(".")
            content[section][name] = _several(value) if key.startswith("text_column_name") else value
        elif key not in NOT_NEEDED and value not in (False, ""):
            problems += _other(content, key, value)
    if problems:
        raise UserError("\n".join(f"{source}: {problem}" for problem in problems))
    if "dataset" in content["data"]:
        content["data"] = {"train": "train", "validation": "validation", **content["data"]}
    if given.get("eval_strategy", given.get("evaluation_strategy")) != "steps":
        content["training"].pop("evaluate_every", None)
    return {name: section for name, section in content.items() if section}


def _several(value: Any) -> list[str]:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)


def _other(content: dict[str, Any], key: str, value: Any) -> Iterator[str]:
    """Take a key that is not one key of ours. Yield what is wrong with it."""
    if key in ("fp16", "bf16"):
        content["training"]["precision"] = key
    elif key == "metric_for_best_model":
        if value.removeprefix("eval_") in METRICS:
            content["training"]["metric"] = METRICS[value.removeprefix("eval_")]
        else:
            yield f"{key}: expected one of {', '.join(METRICS)}, found {value!r}."
    elif key == "trust_remote_code":
        yield "trust_remote_code: code from the hub is never run; take a model that transformers has."
    elif key == "task_name":
        yield "task_name: expected files or a dataset, found a GLUE task; set dataset_name and dataset_config_name."
    elif key == "do_regression":
        yield "do_regression: expected a classification; labelbeam trains no regression."
    else:
        meant = closest(key, [*GLUE, *NOT_NEEDED])
        yield f"unknown key {key!r}" + (f"; did you mean {meant!r}?" if meant else "; remove it.")


def completed(content: dict[str, Any], data_dir: Path, source: str) -> dict[str, Any]:
    """Return the content with the text columns, the task and the names of the labels that its training files suggest.

    Raises:
        UserError: the files cannot be read, or the column holds no labels.
    """
    labels = content["labels"]
    reading = {**content, "labels": {"task": "multi_label", "names": ["any"], "column": labels["column"]}}
    config = parse_config(reading, source=source)
    text = dict(content.get("text", {}))
    cells: list[Any] = []
    for name, rows in tables.of_split(config, "train", data_dir):
        if not len(rows) or labels["column"] not in rows.columns:
            found = sorted(rows.columns) if len(rows) else "no rows"
            raise UserError(f"{source}: expected a column {labels['column']!r} of labels in {name}, found {found}.")
        text.setdefault("fields", _text_fields(next(rows.of(rows.columns)), labels["column"]))
        needed = rows.of([labels["column"], *data.compared_columns(config)])
        kept = data.kept(needed, f"data.train, {name}", config, Counter())
        cells += [row[labels["column"]] for _, row in kept]
    return {**content, "text": text, "labels": {**labels, **_labels(cells, labels, source)}}


def _text_fields(row: Mapping[str, Any], label: str) -> list[str]:
    """Return the columns that the GLUE script takes for the text: sentence1 and 2, or the first two of strings."""
    fields = [name for name in ("sentence1", "sentence2") if name in row]
    return fields or [name for name, cell in row.items() if name != label and isinstance(cell, str)][:2]


def _labels(cells: Sequence[Any], labels: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return task and names, as far as they are not given. Of two classes, the rarer one is the positive label."""
    if {"names", "names_file", "groups", "columns", "min_documents"} & labels.keys() and "task" in labels:
        return {}
    delimiter, ignore = labels.get("delimiter"), labels.get("ignore", ())
    patterns = [ignore] if isinstance(ignore, str) else [str(pattern) for pattern in ignore]
    lists = [values_of(cell, delimiter) for cell in cells if cell is not None]
    written = (str(value).strip() for values in lists for value in values)
    counts = Counter(name for name in written if not matches(name, patterns))
    several = bool(delimiter) or any(isinstance(c, list) or len(v) > 1 for c, v in zip(cells, lists, strict=False))
    if not 2 <= len(counts) <= MOST_CLASSES and not (several and counts):
        raise UserError(
            f"{source}: expected 2 to {MOST_CLASSES} labels in the column {labels['column']!r}, found {len(counts):,} "
            "different values; name another column, or write a configuration with labels.min_documents."
        )
    names = sorted(counts)
    task = labels.get("task") or (Task.MULTI_LABEL if several else Task.BINARY if len(names) == 2 else Task.MULTI_CLASS)
    if task == Task.BINARY and len(names) == 2:
        if all(name.lower() in FLAGS for name in names):
            names = [f"not_{labels['column']}", labels["column"]]
        else:
            names.sort(key=lambda name: -counts[name])
    found = {"task": str(getattr(task, "value", task))}
    return found if {"names", "names_file", "groups"} & labels.keys() else found | {"names": names}

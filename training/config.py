"""The training configuration: what a TOML file may say, checked at once, before any data or model is read.

[data]      files, how they are split and sampled
[labels]    the task, the label names, and how a cell encodes them
[text]      models.text.TextRecipe
[model]     the base model and its pooling
[training]  epochs, learning rates, checkpoints, seed, precision
[search]    what training.sweep tries
"""

import difflib
import glob
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.errors import UserError
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Pooling


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]  # TOML may give a string or a list of strings


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change once read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(Section):
    """Shares of the training files set aside for a split that has no files of its own."""

    validation: float = Field(0.15, ge=0, lt=1)  # share of the training files, where data.validation names none
    test: float = Field(0.15, ge=0, lt=1)  # the same for data.test; 0 for no test split

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1, or nothing is left to train on")
        return self


class LabelFiles(Section):
    """For line files (`.txt`, a text a line): the files with their labels, a line each."""

    train: Strings = ()  # labels of data.train's line files, in the same order
    validation: Strings = ()  # of data.validation's
    test: Strings = ()  # of data.test's


class WeakNegatives(Section):
    """Texts of another corpus that are taken to have no label, mixed into the training split only."""

    files: Strings = Field(min_length=1)  # files or globs; their labels are not read
    share: float = Field(gt=0, lt=1)  # of the training documents, once mixed in


class DataConfig(Section):
    """Files or globs relative to the data directory, their format told by the suffix (see training.data).

    With `dataset`, a Hugging Face dataset's name or folder, train, validation and test name its splits instead.
    """

    train: Strings = Field(min_length=1)  # files or globs, relative to --data_dir; with dataset, the name of a split
    validation: Strings = ()  # none: cut from the training files, see split
    test: Strings = ()  # none: cut from the training files, see split
    dataset: str | None = None  # a Hugging Face dataset instead of files: a hub name, or a folder in --data_dir
    subset: str | None = None  # of the dataset; some call it its configuration
    label_files: LabelFiles = LabelFiles()
    columns: Strings = ()  # names for CSV and TSV files that have no header line
    split: Split = Split()
    split_by: str | None = None  # rows with the same value in this column land in the same split
    near_duplicate: float = Field(0.8, gt=0, le=1)  # two texts' Jaccard similarity from which they are near duplicates
    drop_leaks: bool = True  # leave out of training what stands, exactly or nearly, in validation or test
    subsample: float = Field(1.0, gt=0, le=1)  # share of the training documents kept
    # The largest class, for multi_label the documents without a label, is cut to this many times all others together.
    undersample: float | None = Field(None, gt=0)
    weak_negatives: WeakNegatives | None = None


class LabelsConfig(Section):
    """Which labels there are and how the label column of a row names them.

    A cell may hold a label's name, its number (position in `names`), a list of either, or, with `delimiter`, several
    in one string; for binary also true/false. With `groups` it holds codes, and a label applies when one of its
    patterns (`*` and `?` allowed) matches one of the codes. With `columns` each label has a column of its own, of
    0 and 1 or true and false.
    """

    task: Task  # binary, multi_class or multi_label
    column: str = "label"  # holds the labels of a row
    columns: tuple[str, ...] = ()  # one a label, of 0 and 1 or true and false; their names are the labels' names
    names: tuple[str, ...] = ()  # of the labels, in the order of the model's outputs; binary: [negative, positive]
    names_file: Path | None = None  # a text file in --data_dir with a name a line, instead of names
    delimiter: str | None = Field(None, min_length=1)  # between several labels in one string
    groups: dict[str, Strings] = Field(default_factory=dict)  # label = [patterns of codes], where a cell holds codes

    @model_validator(mode="after")
    def _one_source_of_names(self) -> Self:
        sources = [key for key in ("names", "names_file", "groups", "columns") if getattr(self, key)]
        binary_group = self.task is Task.BINARY and sources == ["names", "groups"]
        if len(sources) != 1 and not binary_group:
            raise ValueError(
                f"give the labels once, as names, names_file, groups or columns; found {sources or 'none'}"
            )
        if self.columns and self.task is not Task.MULTI_LABEL:
            raise ValueError(f"columns, one a label, are for multi_label; a {self.task} task has a single column")
        if self.task is Task.BINARY and self.groups and len(self.groups) != 1:
            raise ValueError(f"a binary task takes one group, the positive label; found {list(self.groups)}")
        if binary_group and self.names[1:] != tuple(self.groups):
            raise ValueError(f"names must be [negative, positive] with positive = {list(self.groups)[0]!r}, the group")
        if not self.names_file:
            self._schema(self._inline_names())
        return self

    def _schema(self, names: tuple[str, ...]) -> LabelSchema:
        try:
            return LabelSchema(task=self.task, names=names)
        except ValidationError as error:
            raise ValueError(_message(error.errors()[0])) from None

    def _inline_names(self) -> tuple[str, ...]:
        if self.names or self.columns:
            return self.names or self.columns
        names = tuple(self.groups)
        return (f"not_{names[0]}", names[0]) if self.task is Task.BINARY else names

    def schema_in(self, data_dir: Path) -> LabelSchema:
        """The label schema; a names file is looked up in `data_dir`.

        Raises:
            UserError: the names file is missing or its names do not fit the task.
        """
        if self.names_file is None:
            return self._schema(self._inline_names())
        path = data_dir / self.names_file
        if not path.is_file():
            raise UserError(
                f"labels.names_file: expected a text file with a label a line at {path}, found none; check --data_dir."
            )
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        try:
            return self._schema(names)
        except ValueError as error:
            raise UserError(f"{path}: {error}.") from None

    def one_vs_rest(self, schema: LabelSchema, label: str) -> Self:
        """The binary configuration that reads the same cells as this label or not this label."""
        names = (f"not_{label}", label)
        if self.columns:
            return self.model_copy(update={"task": Task.BINARY, "columns": (), "column": label, "names": names})
        either = (glob.escape(label), str(schema.names.index(label)))  # a cell holds names or numbers
        groups = {label: self.groups.get(label, either)}
        return self.model_copy(update={"task": Task.BINARY, "names": names, "names_file": None, "groups": groups})


class ModelConfig(Section):
    """The pretrained encoder: a local folder, a hub name, or `package:NAME/FOLDER` inside an installed package."""

    base: str = Field(min_length=1)  # a hub name, a local folder, or package:NAME/FOLDER inside an installed package
    revision: str | None = None  # of a hub name: branch, tag or commit
    pooling: Pooling = "stock"  # the architecture's own head (stock), or a linear layer on pooled tokens (first, mean)


Metric = Literal["macro_f1", "micro_f1", "weighted_f1", "samples_f1", "f1", "accuracy", "average_precision", "loss"]


class TrainingConfig(Section):
    """How the weights are fitted."""

    epochs: float = Field(3, gt=0)  # passes over the training split
    batch_size: int = Field(32, ge=1)  # documents a device and step
    gradient_accumulation: int = Field(1, ge=1)  # steps whose gradients make one update
    learning_rate: float = Field(2e-5, gt=0)  # of the encoder, and of the head where it has none of its own
    head_learning_rate: float | None = Field(None, gt=0)  # the fresh head's own; none: the same as the encoder's
    head_bias: float | None = None  # where the head's bias starts; about log(p / (1 - p)) suits labels of frequency p
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"  # of the learning rate, after the warm-up
    weight_decay: float = Field(0.01, ge=0)  # of AdamW
    warmup_ratio: float = Field(0.1, ge=0, lt=1)  # share of the updates in which the learning rate rises
    attention_dropout: float | None = Field(None, ge=0, lt=1)  # none: the encoder's own; 0 is faster on CPUs
    max_grad_norm: float = Field(1.0, gt=0)  # gradients are clipped to this norm
    class_weights: bool | dict[str, float] = False  # true: rare labels weigh more in the loss; or a weight by label
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # how far the targets are drawn from 0 and 1
    one_vs_rest: bool = False  # a binary model for each label, instead of one for all
    evaluate_every: int | None = Field(None, ge=1)  # updates between evaluations, and checkpoints; none: an epoch
    metric: Metric = "macro_f1"  # of validation, for the best checkpoint
    early_stopping: int | None = Field(None, ge=1)  # evaluations without a better metric
    seed: int = Field(0, ge=0)  # of splits, sampling, the fresh head and the order of the batches
    max_train_samples: int | None = Field(None, ge=1)  # documents at most, for a quick look
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # bf16 where the processor multiplies it in hardware, else fp32
    report_to: Strings = ()  # trackers: tensorboard, wandb, mlflow, ...


class Range(Section):
    """Numbers from low to high; whole ones where both ends are."""

    low: int | float
    high: int | float
    log: bool = False  # as many trials between 1e-5 and 1e-4 as between 1e-4 and 1e-3

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found low = {self.low}, high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, found low = {self.low}")
        return self


Choices = Annotated[tuple[bool | int | float | str, ...], Field(min_length=1)]


class SearchConfig(Section):
    """What training.sweep tries: a range, or a list of values, for any key such as training.learning_rate."""

    trials: int = Field(20, ge=1)  # in all, those of other processes included
    prune: bool = True  # stop a trial that is worse than the median of the others at the same evaluation
    space: dict[str, Range | Choices] = Field(min_length=1)  # key = { low, high, log } or a list of values


class TrainConfig(Section):
    """Everything one training needs, apart from where its data lies and where its model goes."""

    data: DataConfig
    labels: LabelsConfig
    text: TextRecipe = TextRecipe()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig | None = None

    @model_validator(mode="after")
    def _validation_exists(self) -> Self:
        if not self.data.validation and not self.data.split.validation:
            raise ValueError("data: give validation files or a split.validation above 0; thresholds are chosen on them")
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        task, training = self.labels.task, self.training
        if training.one_vs_rest and task is not Task.MULTI_LABEL:
            raise ValueError(f"training.one_vs_rest makes binary models of a multi_label task; labels.task is {task}")
        binary = task is Task.BINARY or training.one_vs_rest
        if training.metric == "f1" and not binary:
            raise ValueError(f"training.metric 'f1' is of a binary task's positive label; for {task} take 'macro_f1'")
        if training.metric == "samples_f1" and (binary or task is not Task.MULTI_LABEL):
            raise ValueError("training.metric 'samples_f1' is for a multi_label task; take 'macro_f1'")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a TOML file, replaces `section.key=value` for each override, and validates the whole.

    Raises:
        UserError: the file is missing or not TOML, an override has no `=`, or a line for each wrong key or value.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a TOML configuration, found no file; training/configs/ has examples.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    return parse_config(content, overrides, source=str(path))


def parse_config(content: dict[str, Any], overrides: Sequence[str] = (), *, source: str) -> TrainConfig:
    """The same for content that is already read; `source` names it in messages.

    Raises:
        UserError: as for `load_config`.
    """
    for override in overrides:
        _apply(content, override)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{source}: {_explain(dict(problem))}" for problem in error.errors())) from None


def with_values(config: TrainConfig, values: Mapping[str, Any], *, source: str) -> TrainConfig:
    """The configuration with other values for some keys, such as training.learning_rate; without [search].

    Raises:
        UserError: a key that does not exist, or a value that it does not take.
    """
    content = config.model_dump(mode="json", exclude={"search"}, exclude_defaults=True)
    for key, value in values.items():
        _put(content, key, value)
    return parse_config(content, source=source)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set expects section.key=value, such as training.epochs=1; found {override!r}.")
    _put(content, key.strip(), _toml_value(text))


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UserError(f"key {key!r}: {section!r} is a value, not a section; check the key.")
    content[last] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word: --set model.base=bert-base-uncased


def _explain(problem: dict[str, Any]) -> str:
    location = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        valid = _keys_beside(problem["loc"])
        close = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]!r}?" if close else f"valid keys are {', '.join(valid)}."
        return f"unknown key {location!r}; {advice}"
    if problem["type"] == "missing":
        return f"{location!r} is missing; add it."
    found = "" if isinstance(problem["input"], (dict, BaseModel)) else f", found {problem['input']!r}"
    prefix = f"{location}: " if location else ""
    return f"{prefix}{_message(problem)}{'' if problem['type'] == 'value_error' else found}."


def _message(problem: Any) -> str:
    return str(problem["msg"]).removeprefix("Value error, ")


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    section: Any = TrainConfig
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)

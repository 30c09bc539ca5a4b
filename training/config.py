"""The training configuration: the sections and keys of its TOML file, with their types, limits and defaults.

[data]      files, how they are split and sampled
[labels]    the task, the label names, and how a cell encodes them
[text]      models.text.TextRecipe
[model]     the base model and its pooling
[training]  epochs, learning rates, checkpoints, seed, precision
[decision]  what the thresholds are for
[student]   the kind and the size of the network that training.distill makes
[search]    the settings that training.sweep tries

training.config_file reads such a file and explains what is wrong in it.
"""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from models.errors import UserError
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Pooling
from training.thresholds import Objective
from training.where import Condition


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _codes(value: object) -> object:
    """Return codes as strings, as cells are read: groups.hate = [0] names the code 0."""
    values = value if isinstance(value, list | tuple) else [value]
    return [str(code).lower() if isinstance(code, bool) else str(code) for code in values]


Strings = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]  # a string or a list of strings in TOML
Codes = Annotated[tuple[str, ...], BeforeValidator(_codes)]  # codes, or patterns of codes, as strings or numbers


class Section(BaseModel):
    """A part of the configuration. Unknown keys are refused, and values do not change once they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(Section):
    """Shares of the training files that are set aside for splits without files of their own."""

    validation: float = Field(0.15, ge=0, lt=1)  # share of the training files, used if data.validation names no files
    # share of the training files, used if data.test names no files; 0 for no test split
    test: float = Field(0.15, ge=0, lt=1)

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1, or nothing is left to train on")
        return self


class LabelFiles(Section):
    """Files with one label per line, for text files (`.txt`) with one text per line."""

    train: Strings = ()  # label files of the text files in data.train, in the same order
    validation: Strings = ()  # label files of the text files in data.validation, in the same order
    test: Strings = ()  # label files of the text files in data.test, in the same order


class WeakNegatives(Section):
    """Texts of another corpus that count as documents without a label. They join the training split only."""

    files: Strings = Field(min_length=1)  # files or globs, relative to --data_dir; labels in them are not read
    share: float = Field(gt=0, lt=1)  # share of weak negatives in the training split after they were added


class DataConfig(Section):
    """The labelled files, and how they are split and sampled. A file's suffix tells its format.

    A condition of `where` compares a column with a number, a string in quotes, true, false, a list or another column:
    `votes >= 3`, `lang == "en"`, `year in [2024, 2025]`, `yes > no`. The operators are ==, !=, <, <=, >, >=, in and
    not in. A column with spaces stands between backticks. A row with an empty cell fulfils no condition on it.

    With `dataset`, the keys train, validation and test name splits of a Hugging Face dataset instead of files.
    """

    train: Strings = Field(min_length=1)  # training files or globs, relative to --data_dir; with dataset, its splits
    validation: Strings = ()  # validation files or globs; if there are none, data.split cuts them from data.train
    test: Strings = ()  # test files or globs; if there are none, data.split cuts them from data.train
    more: Strings = ()  # files or globs of rows that an audit wrote; their documents join the training split alone
    dataset: str | None = None  # Hugging Face dataset to read instead of files: a hub name, or a folder in --data_dir
    subset: str | None = None  # subset of the dataset, which the hub also calls its configuration
    label_files: LabelFiles = LabelFiles()
    where: Strings = ()  # conditions that a row must fulfil, such as "votes >= 3"; the data card counts the others
    columns: Strings = ()  # column names for CSV and TSV files without a header line
    # character between two cells, whatever the suffix; if not set, a tab in .tsv files, and a comma in .csv files
    separator: str | None = Field(None, min_length=1, max_length=1)
    id_column: str | None = Field(None, min_length=1)  # column with the rows' own ids; if not set, ids are FILE:ROW
    split: Split = Split()
    split_by: str | None = Field(None, min_length=1)  # column whose equal values stay in one split, such as author
    seed: int | None = Field(None, ge=0)  # random seed of splits and sampling; training.seed if not set
    near_duplicate: float = Field(0.8, gt=0, le=1)  # lowest Jaccard similarity of two texts that are near duplicates
    drop_leaks: bool = True  # whether training leaves out duplicates and near duplicates of validation and test texts
    subsample: float = Field(1.0, gt=0, le=1)  # share of the training documents to keep
    # size limit of the most frequent class, as a multiple of all other classes together; for multi_label, the documents
    # without a label are that class
    undersample: float | None = Field(None, gt=0)
    weak_negatives: WeakNegatives | None = None

    @field_validator("where")
    @classmethod
    def _conditions(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            Condition.parse(text)
        return texts


class LabelsConfig(Section):
    """The labels, and how the label column of a row names them.

    A cell holds a label's name, its number (its position in `names`), or a list of either. With `delimiter`, one string
    holds several labels. A binary cell may also hold true or false. With `groups`, cells hold codes, and a label
    applies if one of its patterns (with `*` and `?`) matches a code. With `columns`, each label has its own column. An
    empty cell there means that nobody knows whether the label applies.

    With `value`, the table is in long form: a row says of one text and one label whether the label applies. Rows with
    the same text become one document, and labels without a row of their own are unknown.

    An unknown label has no part in the loss, the thresholds and the metrics.
    """

    task: Task  # binary, multi_class or multi_label
    column: str = "label"  # column that holds the labels of a row
    columns: tuple[str, ...] = ()  # one column for each label, named like it, of 0 and 1 or true and false
    names: tuple[str, ...] = ()  # label names in the order of the model's outputs; for binary [negative, positive]
    names_file: Path | None = None  # text file in --data_dir with one label name per line, instead of labels.names
    delimiter: str | None = Field(None, min_length=1)  # string between several labels in one cell
    groups: dict[str, Codes] = Field(default_factory=dict)  # table label = [patterns], for cells of codes
    value: str | None = Field(
        None, min_length=1
    )  # column of true and false, or 1 and 0, that says whether the row's label applies
    ignore: Codes = ()  # labels in cells, or patterns of them, that are left out; ["*"] is every one but the names
    # fewest training documents of a label; rarer ones are ignored. Without names, every label of the training files
    # that is frequent enough is one
    min_documents: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _value_fits(self) -> Self:
        if self.value and (self.task is Task.MULTI_CLASS or self.columns):
            raise ValueError("value is for one column of labels of a multi_label or binary task; remove it")
        if self.min_documents and (self.task is Task.BINARY or self.groups or self.columns):
            raise ValueError("min_documents is for names in the cells of a multi_class or multi_label task; remove it")
        if self.min_documents and self.names_file:
            raise ValueError("min_documents needs labels.names, or the names in the cells; found names_file")
        return self

    @model_validator(mode="after")
    def _one_source_of_names(self) -> Self:
        sources = [key for key in ("names", "names_file", "groups", "columns") if getattr(self, key)]
        binary_group = self.task is Task.BINARY and sources == ["names", "groups"]
        if len(sources) != 1 and not binary_group and (sources or not self.min_documents):
            raise ValueError(
                f"give the labels once, as names, names_file, groups or columns; found {sources or 'none'}"
            )
        if self.columns and self.task is not Task.MULTI_LABEL:
            raise ValueError(f"columns is for a multi_label task; a {self.task} task has its labels in one column")
        if self.task is Task.BINARY and self.groups and len(self.groups) != 1:
            raise ValueError(f"a binary task takes one group, the positive label; found {list(self.groups)}")
        if binary_group and self.names[1:] != tuple(self.groups):
            raise ValueError(f"names must be [negative, positive] with positive = {list(self.groups)[0]!r}, the group")
        if sources and not self.names_file:
            self._schema(self._inline_names())
        return self

    def schema_of(self, names: tuple[str, ...]) -> LabelSchema:
        """Return the schema of some names.

        Raises:
            UserError: they do not fit the task.
        """
        try:
            return self._schema(names)
        except ValueError as error:
            raise UserError(f"labels: {error}.") from None

    def _schema(self, names: tuple[str, ...]) -> LabelSchema:
        try:
            return LabelSchema(task=self.task, names=names)
        except ValidationError as error:
            raise ValueError(message(error.errors()[0])) from None

    def _inline_names(self) -> tuple[str, ...]:
        if self.names or self.columns or not self.groups:
            return self.names or self.columns
        names = tuple(self.groups)
        return (f"not_{names[0]}", names[0]) if self.task is Task.BINARY else names

    def with_names(self, data_dir: Path) -> Self:
        """Return the same with the names of a names file in place of the file, which is looked up in `data_dir`.

        Raises:
            UserError: as for `schema_in`.
        """
        if self.names_file is None:
            return self
        return self.model_copy(update={"names": self.schema_in(data_dir).names, "names_file": None})

    def schema_in(self, data_dir: Path) -> LabelSchema:
        """Return the label schema of the names in the configuration. A names file is looked up in `data_dir`.

        Raises:
            UserError: the names file is missing, or its names do not fit the task.
        """
        if self.names_file is None:
            return self._schema(self._inline_names())
        path = data_dir / self.names_file
        if not path.is_file():
            raise UserError(
                f"labels.names_file: expected a text file with one label per line at {path}, found none; check "
                "--data_dir."
            )
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        try:
            return self._schema(names)
        except ValueError as error:
            raise UserError(f"{path}: {error}.") from None

    def one_vs_rest(self, schema: LabelSchema, label: str) -> Self:
        """Return the binary configuration that reads the same cells as `label` or not `label`."""
        names = (f"not_{label}", label)
        if self.columns:  # an empty cell there has no label
            return self.model_copy(update={"task": Task.BINARY, "columns": (), "column": label, "names": names})
        names_in_cells = self.names or schema.names  # positions count among these, not among the frequent ones
        numbered = not any(name.isdecimal() for name in names_in_cells)
        position = (str(names_in_cells.index(label)),) if numbered else ()
        groups = {label: self.groups.get(label, (glob.escape(label), *position))}
        update = {"task": Task.BINARY, "names": names, "names_file": None, "groups": groups, "min_documents": None}
        return self.model_copy(update=update)


class ModelConfig(Section):
    """The pretrained encoder that a training starts from, and the head on it."""

    base: str = Field(min_length=1)  # hub name, local folder, or package:NAME/FOLDER inside an installed package
    revision: str | None = None  # branch, tag or commit of a hub model
    pooling: Pooling = "stock"  # head: the architecture's own (stock), or a linear layer on pooled tokens (first, mean)


Metric = Literal["macro_f1", "micro_f1", "weighted_f1", "samples_f1", "f1", "accuracy", "average_precision", "loss"]


class TrainingConfig(Section):
    """Settings of the fit on the training split."""

    epochs: float = Field(3, gt=0)  # number of passes over the training split
    batch_size: int = Field(32, ge=1)  # documents per device and step
    gradient_accumulation: int = Field(1, ge=1)  # steps whose gradients make one update
    learning_rate: float = Field(2e-5, gt=0)  # learning rate of the encoder, and of the head if it has none of its own
    head_learning_rate: float | None = Field(None, gt=0)  # learning rate of the new head; the encoder's if not set
    head_bias: float | None = None  # initial bias of the head; about log(p / (1 - p)) suits labels of frequency p
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = (
        "linear"  # learning rate's course after the warm-up
    )
    weight_decay: float = Field(0.01, ge=0)  # weight decay of AdamW
    warmup_ratio: float = Field(0.1, ge=0, lt=1)  # share of the updates during which the learning rate rises
    # dropout of the attention weights; the encoder's own if not set, and 0 makes training on a CPU faster
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    # whether the backward pass computes activations again instead of keeping them: less memory, and more time
    gradient_checkpointing: bool = False
    max_grad_norm: float = Field(1.0, gt=0)  # norm to which gradients are clipped
    # weights of the labels in the loss: true for higher weights of rare labels, or a table label = weight
    class_weights: bool | dict[str, float] = False
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # amount by which targets move away from 0 and 1
    one_vs_rest: bool = False  # whether to train a binary model for each label instead of one model for all labels
    evaluate_every: int | None = Field(None, ge=1)  # updates between evaluations with a checkpoint; an epoch if not set
    # whether OUTPUT.epochs/ keeps a model of each evaluation, by its epoch, beside OUTPUT with the best one
    keep_epochs: bool = False
    metric: Metric = "macro_f1"  # validation metric that selects the best checkpoint
    early_stopping: int | None = Field(None, ge=1)  # evaluations without a better metric before training stops
    seed: int = Field(0, ge=0)  # random seed of the new head, dropout and the order of the batches
    max_train_samples: int | None = Field(None, ge=1)  # largest number of training documents, for a quick look
    max_eval_samples: int | None = Field(None, ge=1)  # largest number of validation and of test documents
    # number format of the computation; auto is bf16 in hardware, else fp16 on a GPU and fp32 on a CPU
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    report_to: Strings = ()  # experiment trackers, such as tensorboard, wandb or mlflow

    @field_validator("class_weights", mode="before")
    @classmethod
    def _flag_or_table(cls, value: object) -> object:
        if not isinstance(value, bool | Mapping):
            raise ValueError(f"expected true, false or a table of label = weight, found {value!r}")
        return value


class DecisionConfig(Section):
    """How scores become labels. Calibration and thresholds are chosen on validation data, never on test data."""

    # what thresholds are for: macro_f1; best_f1, which for binary is the positive label's; "precision >= 0.9", with the
    # highest recall; "recall >= 0.9", with the highest precision; or fixed
    objective: str = "macro_f1"
    threshold: float = Field(0.5, gt=0, lt=1)  # threshold of all labels, if the objective is fixed
    # positives below which a label's own threshold and calibration are not trusted, but pulled to those of all labels
    fewest_positives: int = Field(20, ge=1)
    abstain_below: float = Field(0.0, ge=0, lt=1)  # score below which a multi_class document gets no label

    @field_validator("objective")
    @classmethod
    def _known(cls, text: str) -> str:
        Objective.parse(text)
        return text


class StudentConfig(Section):
    """The small network that training.distill trains on the probabilities of a teacher."""

    # layers is the teacher with some of its layers. static has an embedding for each of its tokens. ngrams has
    # embeddings of words, and of hashed n-grams
    kind: Literal["layers", "static", "ngrams"] = "layers"
    layers: int | None = Field(None, ge=1)  # layers that are kept, evenly spaced; half of the teacher's if not set
    dimensions: int = Field(256, ge=1)  # numbers of an embedding, for static and ngrams
    words: int = Field(50_000, ge=1)  # most frequent words that ngrams knows; all others are alike
    ngrams: int = Field(2, ge=1, le=5)  # words of the longest n-grams; 1 for words alone
    # embeddings that all n-grams of two words and more share; each takes part in every update, so more are slower
    buckets: int = Field(1 << 18, ge=1)

    @model_validator(mode="after")
    def _hashes_are_exact(self) -> Self:
        if self.ngrams * self.buckets > 1 << 24:  # OpenVINO divides whole numbers in fp32
            raise ValueError(f"ngrams times buckets is at most {1 << 24:,}, found {self.ngrams * self.buckets:,}")
        return self


class Range(Section):
    """Numbers from low to high. They are whole numbers if both ends are."""

    low: int | float  # smallest value
    high: int | float  # largest value
    log: bool = False  # whether as many trials lie between 1e-5 and 1e-4 as between 1e-4 and 1e-3

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found low = {self.low}, high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, found low = {self.low}")
        return self


def _kind_of_space(value: object) -> str | None:
    if isinstance(value, Mapping | Range):
        return "range"
    values = value if isinstance(value, list | tuple) else ()
    return "values" if values and all(isinstance(one, bool | int | float | str) for one in values) else None


Choices = tuple[bool | int | float | str, ...]
Space = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("values")],
    Discriminator(
        _kind_of_space,
        custom_error_type="space",
        custom_error_message="expected a table { low, high, log } or a list of values",
    ),
]


class SearchConfig(Section):
    """The search of training.sweep. Any key, such as training.learning_rate, can be searched."""

    trials: int = Field(20, ge=1)  # number of trials, over all processes
    prune: bool = True  # whether a trial stops if it is worse than the median of the others at the same evaluation
    space: dict[str, Space] = Field(min_length=1)  # table { low, high, log } or list of values, for each key to search


class TrainConfig(Section):
    """Everything that a training needs, apart from where its data lies and where its model goes."""

    data: DataConfig
    labels: LabelsConfig
    text: TextRecipe = TextRecipe()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    decision: DecisionConfig = DecisionConfig()
    student: StudentConfig | None = None
    search: SearchConfig | None = None

    @property
    def data_seed(self) -> int:
        """The random seed of splits and sampling."""
        return self.training.seed if self.data.seed is None else self.data.seed

    @model_validator(mode="after")
    def _validation_exists(self) -> Self:
        if not self.data.validation and not self.data.split.validation:
            raise ValueError("data: give validation files or a split.validation above 0; thresholds need such a split")
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        task, training = self.labels.task, self.training
        if training.one_vs_rest and task is not Task.MULTI_LABEL:
            raise ValueError(f"training.one_vs_rest: expected labels.task 'multi_label', found {task.value!r}")
        if self.decision.abstain_below and task is not Task.MULTI_CLASS:
            raise ValueError(f"decision.abstain_below is for a multi_class task, found {task.value!r}; remove it")
        binary = task is Task.BINARY or training.one_vs_rest
        if training.metric == "f1" and not binary:
            raise ValueError(
                f"training.metric 'f1' measures the positive label of a binary task; for {task} use 'macro_f1'"
            )
        if training.metric == "samples_f1" and (binary or task is not Task.MULTI_LABEL):
            raise ValueError("training.metric 'samples_f1' is for a multi_label task; use 'macro_f1'")
        return self


def message(problem: Any) -> str:
    """Return the sentence of one of pydantic's errors."""
    return str(problem["msg"]).removeprefix("Value error, ")

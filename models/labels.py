"""Declares the label schema: the task of a classifier, and the names of its labels in the order of its outputs."""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class Task(StrEnum):
    """The kind of classification."""

    BINARY = "binary"  # one of two labels; the second output is the positive label
    MULTI_CLASS = "multi_class"  # exactly one of many labels
    MULTI_LABEL = "multi_label"  # any number of labels, including none


class LabelSchema(BaseModel):
    """A task and its label names; pydantic raises `ValidationError` if the names do not fit the task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    names: tuple[str, ...]  # names of the labels, in the order of the network's outputs

    @model_validator(mode="after")
    def _names_fit_task(self) -> Self:
        at_least = 1 if self.task is Task.MULTI_LABEL else 2
        if len(self.names) < at_least:
            raise ValueError(f"a {self.task} model needs at least {at_least} label names, found {len(self.names)}")
        if self.task is Task.BINARY and len(self.names) != 2:
            raise ValueError(
                f"a binary model needs two label names, the negative one first; found {len(self.names)}, use "
                "multi_class or multi_label for more"
            )
        if len(set(self.names)) != len(self.names) or not all(name.strip() for name in self.names):
            raise ValueError(f"label names must be distinct and not empty, found {list(self.names)}")
        return self

    @property
    def thresholds_needed(self) -> int:
        """The number of thresholds of a decision: 1 for binary, 0 for multi_class, one per label for multi_label."""
        return {Task.BINARY: 1, Task.MULTI_CLASS: 0, Task.MULTI_LABEL: len(self.names)}[self.task]

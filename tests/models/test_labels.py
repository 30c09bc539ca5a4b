"""Test which label schemas fit a task and which are refused."""

import pytest
from pydantic import ValidationError

from models.labels import LabelSchema, Task


@pytest.mark.parametrize(
    ("task", "names", "thresholds"),
    [
        ("binary", ("no", "yes"), 1),
        ("multi_class", ("a", "b", "c"), 0),
        ("multi_label", ("a", "b", "c"), 3),
        ("multi_label", ("only",), 1),
    ],
)
def test_schemas_that_fit_and_the_thresholds_they_need(task: str, names: tuple[str, ...], thresholds: int) -> None:
    assert LabelSchema(task=Task(task), names=names).thresholds_needed == thresholds


@pytest.mark.parametrize(
    ("task", "names", "words"),
    [
        ("binary", ("no",), "needs at least 2 label names, found 1"),
        ("binary", ("no", "yes", "perhaps"), "the negative one first; found 3"),
        ("multi_class", ("a",), "needs at least 2"),
        ("multi_label", (), "needs at least 1"),
        ("multi_class", ("a", "a"), "distinct"),
        ("multi_class", ("a", " "), "not empty"),
    ],
)
def test_schemas_that_do_not_fit(task: str, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LabelSchema(task=Task(task), names=names)

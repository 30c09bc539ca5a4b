"""A label that nobody judged is neither learnt nor measured, from the cell of the table to the report."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models import trained_model
from models.decision import Decision, Floats
from models.labels import LabelSchema, Task
from tests.training.conftest import COLOURS, TRAINING, toy_rows, write_rows
from tests.training.test_data import read, settings, write_jsonl
from training import calibrate, config_file, data_splits, jobs, metrics, objective, prepare, train

NAN = float("nan")
SCHEMA = LabelSchema(task=Task.MULTI_LABEL, names=("a", "b"))
LONG = {"task": "multi_label", "names": ["a", "b"], "column": "label", "value": "applies"}


def test_an_empty_cell_of_a_label_s_column_is_unknown(tmp_path: Path) -> None:
    rows = [{"text": "1", "a": "1", "b": ""}, {"text": "2", "a": None, "b": "false"}, {"text": "3", "a": "", "b": None}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    examples = read(settings({"task": "multi_label", "columns": ["a", "b"]}), tmp_path)
    np.testing.assert_array_equal(examples.targets, [[1, NAN], [NAN, 0]])
    assert examples.skipped == {"no_label": 1}


def long_rows(*rows: tuple[str, str, Any]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label, "applies": applies} for text, label, applies in rows]


def test_a_table_in_long_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that says no is a negative of its label, and says nothing of the others. So does a row that says yes."""
    rows = long_rows(
        ("x", "a", "True"), ("y", "a", "False"), ("x", "b", "0"), ("z", "b", 1), ("z", "b", False), ("w", "a", "")
    )
    write_jsonl(tmp_path / "rows.jsonl", [{**row, "applies": str(row["applies"])} for row in rows])
    examples = read(settings(LONG), tmp_path)
    assert [*examples.texts] == ["x", "y"]
    np.testing.assert_array_equal(examples.targets, [[1, 0], [0, NAN]])
    assert examples.ids == ["rows.jsonl:1", "rows.jsonl:2"]
    assert examples.skipped == {"no_label": 1, "joined_with_its_text": 2, "contrary_labels": 1}
    assert len(examples) + sum(examples.skipped.values()) == len(rows)
    assert "rows contradict each other on 1 labels" in capsys.readouterr().out


def test_a_table_in_long_form_of_one_label(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", long_rows(("x", "3", True), ("y", "3", False), ("z", "13", True)))
    labels = {"task": "binary", "column": "label", "groups": {"sdg3": [3]}, "value": "applies"}
    examples = read(settings(labels), tmp_path)
    assert examples.targets.tolist() == [[0, 1], [1, 0]]
    assert examples.skipped == {"no_label": 1}


def test_a_column_that_denies_labels_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "x", "sdg": 3, "label": "True"}, {"text": "y", "sdg": 3, "label": "False"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    labels: dict[str, Any] = {"task": "binary", "column": "sdg", "groups": {"sdg3": ["3"]}}
    read(settings(labels), tmp_path)
    assert "set labels.value = 'label'" in capsys.readouterr().out
    read(settings(labels | {"value": "label"}), tmp_path)
    assert not capsys.readouterr().out


def test_unknown_labels_have_no_part_in_the_loss() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    objective.loss(logits, targets, Task.MULTI_LABEL).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert (logits.grad != 0).sum() == 3
    alone = torch.nn.functional.binary_cross_entropy_with_logits
    expected = sum(alone(logits[i, j], targets[i, j]).item() for i, j in ((0, 0), (1, 0), (1, 1))) / 3
    assert objective.loss(logits, targets, Task.MULTI_LABEL).item() == pytest.approx(expected)


def test_weights_count_known_labels() -> None:
    targets = torch.tensor([[1.0, NAN], [0.0, 1.0], [0.0, NAN], [NAN, 0.0]])
    assert objective.label_weights(targets, Task.MULTI_LABEL).tolist() == [2, 1]


def sample(seed: int = 0, documents: int = 400) -> tuple[Floats, Floats]:
    """Return scores and targets (documents, 2) of which a third is unknown."""
    chance = np.random.default_rng(seed)
    truth = (chance.random((documents, 2)) < (0.5, 0.2)).astype(np.float32)
    scores = np.clip(truth * 0.4 + chance.random((documents, 2)) * 0.6, 0, 1)
    truth[chance.random(truth.shape) < 1 / 3] = np.nan
    return scores, truth


def alone(scores: Floats, targets: Floats, place: int) -> tuple[Floats, Floats]:
    """Return a label's known targets with their scores, as another label that is all known."""
    known = ~np.isnan(targets[:, place])
    return scores[known][:, [place, place]], targets[known][:, [place, place]]


def test_a_label_is_measured_on_the_documents_that_know_it() -> None:
    scores, targets = sample()
    found = metrics.measure(scores, targets, SCHEMA, Decision(thresholds=(0.5, 0.4)))
    ranked, bounds = metrics.ranking(scores, targets, SCHEMA), metrics.intervals(scores > 0.5, targets, SCHEMA)
    for place, (name, threshold) in enumerate(zip(SCHEMA.names, (0.5, 0.4), strict=True)):
        part = alone(scores, targets, place)
        assert (
            found["labels"][name]
            == metrics.measure(*part, SCHEMA, Decision(thresholds=(threshold, threshold)))["labels"][name]
        )
        assert ranked["labels"][name] == metrics.ranking(*part, SCHEMA)["labels"][name]
        low, high = bounds["labels"][name]["f1"]
        assert low < metrics.measure(*part, SCHEMA, Decision(thresholds=(0.5, 0.5)))["labels"][name]["f1"] < high
    right = (np.isnan(targets) | ((scores >= (0.5, 0.4)) == (targets > 0))).all(axis=1)
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["samples_recall"] <= 1


def test_the_decision_is_fitted_to_known_labels() -> None:
    scores, targets = sample()
    thresholds = calibrate.choose_thresholds(scores, targets, SCHEMA)
    for place in range(2):
        assert thresholds[place] == calibrate.choose_thresholds(*alone(scores, targets, place), SCHEMA)[place]
    logits = np.log(scores / (1 - scores + 1e-9) + 1e-9).astype(np.float32)
    wrong = np.where(np.isnan(targets), 0, targets).astype(np.float32)
    fitted = calibrate.fit(logits, targets, SCHEMA)
    assert fitted.bias != pytest.approx(calibrate.fit(logits, wrong, SCHEMA).bias)
    for place in range(2):
        by_itself = calibrate.fit(*alone(logits, targets, place), SCHEMA)
        assert np.array(fitted.temperature)[place] == np.array(by_itself.temperature)[place]
        assert fitted.bias[place] == by_itself.bias[place]
    parts = [alone(scores, targets, place) for place in range(2)]
    pooled, truth = (np.concatenate([part[kind][:, :1] for part in parts]) for kind in range(2))
    assert calibrate.calibration_error(scores, targets, Task.MULTI_LABEL) == pytest.approx(
        calibrate.calibration_error(pooled, truth, Task.MULTI_LABEL)
    )


LEARN = ("[labels]", 'task = "multi_label"', 'names = ["red", "green", "blue"]', 'column = "colour"', 'value = "has"')


@pytest.fixture
def trained(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> tuple[Path, Path]:
    """Train on the toy problem in long form: each text is judged for two colours of three. Return data and model."""
    rows = [
        {"text": row["text"], "colour": colour, "has": colour in row["colours"]}
        for number, row in enumerate(toy_rows())
        for place, colour in enumerate(COLOURS)
        if place != number % 3
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    config = write_config(
        data='train = "rows.jsonl"\nsplit = {validation = 0.2, test = 0.2}',
        labels="\n".join(LEARN[1:]),
        text="max_tokens = 32",
        model=f'base = "{base}"\npooling = "mean"',
        training=TRAINING,
    )
    where = [str(config), "--data_dir", str(tmp_path), "--output"]
    assert prepare.main([*where, str(tmp_path / "prepared")]) == 0
    assert train.main([*where, str(tmp_path / "model"), "--prepared", str(tmp_path / "prepared")]) == 0
    return tmp_path / "prepared", tmp_path / "model"


def test_training_on_a_table_in_long_form(trained: tuple[Path, Path]) -> None:
    prepared, model = trained
    card = json.loads((prepared / "card.json").read_bytes())
    of_splits = [card["splits"][split] for split in ("train", "validation", "test")]
    documents = sum(of_split["documents"] for of_split in of_splits)
    assert sum(of_split["labels"][name]["unknown"] for of_split in of_splits for name in COLOURS) == documents
    assert "red" in (prepared / "card.md").read_text().split("unknown for some documents")[1]
    rows = pq.read_table(prepared / "test.parquet").to_pylist()
    assert all(len(row["unknown"]) == 1 and not set(row["unknown"]) & set(row["labels"]) for row in rows)

    found = trained_model.read_manifest(model).metrics["test"]
    assert found["macro_f1"] > 0.9
    documents = sum("red" not in row["unknown"] for row in rows)
    with (model / "evaluation" / "holdout_red_scores.csv").open() as file:
        truths = [row["truth"] for row in csv.DictReader(file)]
    assert len(truths) == len(rows)
    assert sum(truth != "" for truth in truths) == documents
    assert found["labels"]["red"]["support"] == truths.count("1")
    assert (model / "report.html").stat().st_size > 10_000


def test_a_binary_model_for_each_label_learns_from_the_documents_that_know_it(trained: tuple[Path, Path]) -> None:
    """As five binary models on one table, of which no row has all labels."""
    prepared, model = trained
    config = trained_model.read_manifest(model).training["config"]
    config["training"]["one_vs_rest"] = True
    parsed = config_file.parse_config(config, source="model.json")
    whole = data_splits.read(prepared, parsed)
    for job in jobs.plan(parsed, whole, model):
        label = job.output.name
        expected = sum(part.known[:, whole.schema.names.index(label)].sum() for _, part in whole.splits.items())
        assert sum(len(part) for _, part in job.prepared.splits.items()) == expected
        assert all(part.known.all() for _, part in job.prepared.splits.items())

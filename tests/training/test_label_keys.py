"""Large and foreign label sets are read by configuration alone."""

import random
from pathlib import Path
from typing import Any

import pytest

from models.decision import Decision
from models.errors import UserError
from models.trained_model import Manifest
from tests.training.test_data import read, settings, targets, write_jsonl
from training import data, data_splits, evaluate

SET = {"task": "multi_label", "names": ["a", "b"]}


@pytest.mark.parametrize("pattern", ["*", ["x*", "y"]])
def test_labels_outside_the_names_are_ignored_on_request(tmp_path: Path, pattern: Any) -> None:
    cells = [["a", "x1"], ["y"], ["b", "a", "y"]]
    assert targets(tmp_path, cells, SET | {"ignore": pattern}) == [[1, 0], [0, 0], [1, 1]]
    with pytest.raises(UserError, match="found 'x1'"):
        targets(tmp_path, cells, SET)
    with pytest.raises(UserError, match="found 'y'"):
        targets(tmp_path, cells, SET | {"ignore": "x*"})


def test_a_row_whose_only_class_is_ignored_is_left_out(tmp_path: Path) -> None:
    rows = [{"text": str(n), "label": label} for n, label in enumerate(("red", "purple", "green"))]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    config = settings({"task": "multi_class", "names": ["red", "green"], "ignore": ["purple"]})
    examples = read(config, tmp_path)
    assert [*examples.texts] == ["0", "2"]
    assert examples.skipped == {"no_label": 1}


def test_numbers_are_positions_only_if_no_name_is_a_number(tmp_path: Path) -> None:
    """Else the number 1 of a label set such as EURLEX's would silently be the second name."""
    assert targets(tmp_path, [[0], [1]], SET) == [[1, 0], [0, 1]]
    numbers = {"task": "multi_label", "names": ["100163", "1309"]}
    assert targets(tmp_path, [["1309"], [100163]], numbers) == [[0, 1], [1, 0]]
    with pytest.raises(UserError, match="found '1'"):
        targets(tmp_path, [["1"]], numbers)
    assert targets(tmp_path, [["1", "1309"]], numbers | {"ignore": "*"}) == [[0, 1]]


@pytest.mark.parametrize("code", [0, "0", [0], ["0"]])
@pytest.mark.parametrize("cell", [0, "0", 0.0])
def test_a_code_may_be_a_number(tmp_path: Path, code: Any, cell: Any) -> None:
    """groups.hate = [0] means the rows whose cell is 0."""
    labels = {"task": "binary", "groups": {"hate": code}}
    assert targets(tmp_path, [cell, 1], labels) == [[0, 1], [1, 0]]


def test_true_and_false_are_codes(tmp_path: Path) -> None:
    assert targets(tmp_path, [True, False], {"task": "binary", "groups": {"x": [False]}}) == [[1, 0], [0, 1]]


@pytest.mark.parametrize("cell", ["['a', 'b']", '["a","b"]', "a ; b", "b;a", ["a", "b"], "[a];b"])
def test_several_labels_in_one_cell(tmp_path: Path, cell: Any) -> None:
    labels = {"task": "multi_label", "names": ["a", "b", "[a]"], "delimiter": ";"}
    assert targets(tmp_path, [cell], labels) == [[0, 1, 1]] if "[a]" in cell else [[1, 1, 0]]


def many(tmp_path: Path, labels: int = 300) -> None:
    """Write documents of a large label set, in which the first labels are the most frequent."""
    chance = random.Random(0)
    weights = [1 / (1 + place) for place in range(labels)]
    rows = [
        {
            "text": f"text {number}",
            "label": [str(1000 + n) for n in chance.choices(range(labels), weights, k=4)],
        }
        for number in range(2_000)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)


def test_rare_labels_of_a_large_set_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many(tmp_path)
    config = settings({"task": "multi_label", "min_documents": 12}, data={"validation": [], "test": []})
    schema = data.schema_in(config, tmp_path)
    assert 50 < len(schema.names) < 150
    assert f"labels: {len(schema.names)} of 297 have at least 12 training documents" in capsys.readouterr().out
    examples = data.read(config, "train", tmp_path, schema)
    assert examples is not None
    assert examples.positive.sum(axis=0).min() >= 12
    prepared = data_splits.prepare(config, tmp_path)
    assert prepared.schema == schema
    assert set(prepared.card["labels"]) == set(schema.names)


def test_the_least_count_also_thins_given_names(tmp_path: Path) -> None:
    many(tmp_path)
    labels = {"task": "multi_label", "names": ["1000", "1299", "1001"], "min_documents": 100}
    assert data.schema_in(settings(labels), tmp_path).names == ("1000", "1001")


def test_a_least_count_that_no_label_reaches(tmp_path: Path) -> None:
    many(tmp_path)
    with pytest.raises(UserError, match="labels: "):
        data.schema_in(settings({"task": "multi_label", "min_documents": 10_000}), tmp_path)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"task": "binary", "names": ["a", "b"], "min_documents": 3}, "min_documents is for names"),
        ({"task": "multi_class", "names": ["a", "b"], "value": "x"}, "value is for one column"),
        ({"task": "multi_label", "columns": ["a", "b"], "value": "x"}, "value is for one column"),
        ({"task": "multi_label"}, "give the labels once"),
        ({"task": "multi_label", "names": ["a"], "value": ""}, "at least 1 character"),
        ({"task": "multi_label", "names_file": "f", "min_documents": 2}, "min_documents needs labels.names"),
    ],
)
def test_keys_that_contradict_each_other(labels: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        settings(labels)


def test_any_separator_whatever_the_suffix(tmp_path: Path) -> None:
    """The SDG texts of OSDG come as .csv with tabs. A quotation mark there quotes, as in any .csv."""
    (tmp_path / "osdg.csv").write_text('text\tlabel\n"one,\ttwo"\tred\nthree\tgreen\n')
    assert [*read(settings(files="osdg.csv", data={"separator": "\t"}), tmp_path).texts] == ["one, two", "three"]
    (tmp_path / "semicolons.csv").write_text("text;label\none, two;red\n")
    assert [*read(settings(files="semicolons.csv", data={"separator": ";"}), tmp_path).texts] == ["one, two"]


def test_rows_keep_their_own_ids(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": "red", "key": 17}])
    assert read(settings(data={"id_column": "key"}), tmp_path).ids == ["17"]
    with pytest.raises(UserError, match=r"expected columns \['nope'\]"):
        read(settings(data={"id_column": "nope"}), tmp_path)


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    """Else the duplicate of one document would take another out of training."""
    rows = [{"text": f"text {n}", "label": "red" if n % 2 else "green", "key": n // 2} for n in range(40)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    config = settings(data={"id_column": "key", "validation": [], "test": []})
    with pytest.raises(UserError, match="data.id_column 'key': expected ids that are all different, found '0' twice"):
        data_splits.prepare(config, tmp_path)


def test_only_rows_that_give_a_label_count_for_its_frequency(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "a" if n < 5 else "b", "applies": n % 5 < 3} for n in range(10)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    labels = {"task": "multi_label", "value": "applies"}
    assert data.schema_in(settings(labels | {"min_documents": 3}), tmp_path).names == ("a", "b")
    with pytest.raises(UserError, match="labels: "):
        data.schema_in(settings(labels | {"min_documents": 4}), tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {"text": "x", "label": "a", "applies": "perhaps"}])
    with pytest.raises(UserError, match=r"rows.jsonl, row 11, column 'applies': expected 0, 1, true or false"):
        data.schema_in(settings(labels | {"min_documents": 3}), tmp_path)


def test_an_ignored_label_is_no_frequent_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"t{n}", "label": ["n/a", "a"]} for n in range(9)])
    labels = {"task": "multi_label", "min_documents": 3, "ignore": ["n/*"]}
    assert data.schema_in(settings(labels), tmp_path).names == ("a",)


def test_a_rare_number_is_no_position_among_the_frequent_labels(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}{label}", "label": [label]} for n in range(3) for label in ("a", "b", "c")]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {"text": "rare", "label": ["2"]}])
    config = settings({"task": "multi_label", "min_documents": 3})
    assert read(config, tmp_path).positive.sum(axis=0).tolist() == [3, 3, 3]


def test_positions_count_among_the_names_of_the_configuration(tmp_path: Path) -> None:
    """Leaving out the rare label b must not turn the number of c into d, in training, evaluation or one_vs_rest."""
    rows = [{"text": f"t{n}{label}", "label": label} for n in range(3) for label in (0, 2, 3)]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {"text": "rare", "label": 1}])
    labels = {"task": "multi_label", "names": ["a", "b", "c", "d"], "min_documents": 2}
    config = settings(labels)
    schema = data.schema_in(config, tmp_path)
    assert schema.names == ("a", "c", "d")
    examples = read(config, tmp_path)
    assert [examples.texts[place] for place in examples.positive[:, 1].nonzero()[0].tolist()] == ["t02", "t12", "t22"]
    assert config.labels.one_vs_rest(schema, "c").groups == {"c": ("c", "2")}
    manifest = Manifest(
        labels=schema,
        text=config.text,
        decision=Decision(thresholds=(0.5,) * 3),
        pooling="mean",
        base_model="tiny",
        training={"config": config.model_dump(mode="json")},
    )
    again = evaluate.config_of(manifest, ["rows.jsonl"], [])
    found = data.read(again, "train", tmp_path, schema)
    assert found is not None
    assert found.targets.tolist() == examples.targets.tolist()


def test_an_empty_id_is_refused(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "rows.jsonl", [{"text": "a", "label": "red", "key": 1}, {"text": "b", "label": "red", "key": ""}]
    )
    with pytest.raises(UserError, match="row 2, column 'key': expected an id, found none"):
        read(settings(data={"id_column": "key"}), tmp_path)


def test_the_negative_label_in_long_form(tmp_path: Path) -> None:
    rows = [("a", "ham", True), ("b", "ham", False), ("c", "spam", True), ("d", "spam", False)]
    write_jsonl(tmp_path / "rows.jsonl", [dict(zip(("text", "label", "applies"), row, strict=True)) for row in rows])
    labels = {"task": "binary", "names": ["ham", "spam"], "value": "applies"}
    assert read(settings(labels), tmp_path).targets.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]

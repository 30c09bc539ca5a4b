"""Tests the conditions that rows of labelled data must fulfil."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import UserError
from tests.training.test_data import read, settings, write_jsonl
from training.where import Condition

ROW = {"votes": "3", "agreement": "0.85", "lang": "en", "year": 2021, "ok": "True", "yes": "9", "no": "10", "a b": 1}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("votes >= 3", True),
        ("votes>3", False),
        ("votes < 10", True),  # as numbers; as strings, "3" comes after "10"
        ("agreement >= 0.7", True),
        ("agreement == 0.850", True),
        ('lang == "en"', True),
        ("lang != 'en'", False),
        ("year in [2020, 2021]", True),
        ("year not in [2020, 2021]", False),
        ('lang in ["fr", "en"]', True),
        ('lang not  in ["fr", "de"]', True),
        ("ok == true", True),
        ("ok != true", False),
        ("yes > no", False),  # as numbers
        ("no > votes", True),
        ("lang != year", True),
        ("`a b` == 1", True),
        ('votes == "3"', True),
    ],
)
def test_a_condition(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds(ROW) == holds


@pytest.mark.parametrize("sign", ["==", "!=", "<", ">="])
@pytest.mark.parametrize("cell", [None, "", "  "])
def test_an_empty_cell_fulfils_no_condition(sign: str, cell: str | None) -> None:
    assert not Condition.parse(f"votes {sign} 3").holds({"votes": cell})
    assert not Condition.parse(f"votes {sign} other").holds({"votes": "1", "other": cell})
    assert not Condition.parse("votes not in [3]").holds({"votes": cell})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("votes", "expected COLUMN OPERATOR VALUE"),
        ("votes = 3", "expected COLUMN OPERATOR VALUE"),
        ("votes >= ", "expected a number, a string in quotes, true, false, a list or a column after >"),
        ("votes >= 3 and year > 1", "expected a number, a string in quotes"),
        ("lang in en", 'expected a list after in, such as ["en", "fr"], found en'),
        ("lang in 'en'", "expected a list, such as [1, 2], after in"),
        ("lang == ['en']", "expected one value after =="),
        ("day > 2026-01-01", "expected numbers, strings, true or false"),
        ("__import__('os').remove == 1", "expected COLUMN OPERATOR VALUE"),
        ("votes >= 3\nlang = 4", "expected COLUMN OPERATOR VALUE"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_configuration(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="where") as error:
        settings(data={"where": [text]})
    assert sentence in str(error.value)


def test_rows_are_kept_and_the_others_are_counted_by_their_first_unmet_condition(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"t{votes}{lang}", "label": "red", "votes": votes, "lang": lang}
        for votes in (1, 2, 3, 4)
        for lang in ("en", "fr")
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    examples = read(settings(data={"where": ["votes >= 3", 'lang == "en"']}), tmp_path)
    assert [*examples.texts] == ["t3en", "t4en"]
    assert examples.skipped == {"not votes >= 3": 4, 'not lang == "en"': 2}


def test_a_row_that_is_left_out_needs_no_valid_label(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "purple", "votes": 0}, {"text": "b", "label": "red", "votes": 9}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert [*read(settings(data={"where": "votes > 1"}), tmp_path).texts] == ["b"]


def test_a_cell_that_cannot_be_compared_is_named_with_its_row(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": "red", "votes": "many"}])
    with pytest.raises(UserError, match=r"rows.jsonl, row 1, column 'votes': expected a number, found 'many'"):
        read(settings(data={"where": "votes > 1"}), tmp_path)


def test_a_condition_on_a_column_that_is_not_there(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": "red"}])
    with pytest.raises(UserError, match=r"expected columns \['votes'\], found \['label', 'text'\]"):
        read(settings(data={"where": "votes > 1"}), tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_cells_of_text_files_are_compared_as_numbers(tmp_path: Path, suffix: str) -> None:
    between = "\t" if suffix == ".tsv" else ","
    lines = [["text", "label", "agreement"], ["a", "red", "0.95"], ["b", "green", "1e-1"]]
    (tmp_path / f"rows{suffix}").write_text("".join(between.join(line) + "\n" for line in lines))
    examples = read(settings(files=f"rows{suffix}", data={"where": "agreement >= 0.7"}), tmp_path)
    assert [*examples.texts] == ["a"]
    assert json.dumps(examples.skipped) == '{"not agreement >= 0.7": 1}'

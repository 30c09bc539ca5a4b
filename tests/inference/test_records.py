"""Test that a line becomes a Document, or a Failure with a reason."""

import json
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference.corpus import records
from inference.corpus.records import (
    MAX_LINE_BYTES,
    DocumentRecipe,
    Line,
    Reason,
    bigquery_schema,
    parse_record,
    predictions_schema,
    read_documents,
)
from models.text import TextRecipe

RECIPE = DocumentRecipe((TextRecipe(fields=("title", "text")),), keep_fields=("year",))


def read_one(data: bytes, recipe: DocumentRecipe = RECIPE) -> Any:
    read = read_documents([Line(7, data)], "f.jsonl", recipe)
    assert read.lines == len(read.documents) + len(read.failures) + read.blank == 1
    return [*read.documents, *read.failures][0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"id": "1", "text": "caf\xe9"}', "not_utf8"),
        (b"{broken", "not_json"),
        (b'{"id": "1", "text": NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"\0\0\0", "not_json"),
        (b'["a list"]', "not_an_object"),
        (b"17", "not_an_object"),
        (b'{"text": "no id"}', "no_id"),
        (b'{"id": "", "text": "empty id"}', "no_id"),
        (b'{"id": null, "text": "null id"}', "no_id"),
        (b'{"id": ["x"], "text": "list id"}', "id_not_string"),
        (b'{"id": 1.5, "text": "float id"}', "id_not_string"),
        (b'{"id": true, "text": "bool id"}', "id_not_string"),
        (b'{"id": "1"}', "no_text"),
        (b'{"id": "1", "text": null}', "no_text"),
        (b'{"id": "1", "text": 5}', "text_not_string"),
        (b'{"id": "1", "text": ["x"]}', "text_not_string"),
        (b'{"id": "1", "text": " \\t\\n "}', "empty_text"),
        (b'{"id": "1", "text": ""}', "empty_text"),
    ],
)
def test_bad_line(data: bytes, reason: str) -> None:
    failure = read_one(data)
    assert (failure.reason, failure.line) == (reason, 7)
    assert failure.detail
    assert failure.raw.encode() == data[:1024] or reason == "not_utf8"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b'[{"id": 1},', "the line begins or ends a JSON array; write one object a line"),
        (b'  {"id": 1, "text": "x"},\r', "a comma follows the object, as in a JSON array; write one object a line"),
        (b"{", "the line is a part of an object that goes over several lines; write one object a line"),
        ('{"id": 1}'.encode("utf-16"), "UTF-16, not UTF-8"),
        ('{"id": "é"}'.encode("utf-16-le"), "UTF-16LE, not UTF-8"),
        (
            '{"id": 1}'.encode("utf-16-be"),
            "the line holds NUL bytes; if the file is UTF-16 or UTF-32, convert it to UTF-8",
        ),
        (b'{"id": "\xff"', "byte 8 of the line is not UTF-8"),
        (b'{"id": 1}}', "Extra data: line 1 column 10 (char 9)"),
    ],
)
def test_the_detail_names_what_a_line_is_a_part_of(data: bytes, detail: str) -> None:
    assert read_one(data).detail == detail


def test_what_a_failure_keeps_of_a_long_line_is_capped() -> None:
    assert len(read_one(b'{"id": "1", "broken": "' + b"x" * 50_000).raw) == 1024
    assert read_one(b'{"id": "\xff"').raw == '{"id": "\\xff"'


def test_a_line_that_could_not_be_read_keeps_its_own_reason() -> None:
    problem: tuple[Reason, str] = ("line_too_long", f"at most {MAX_LINE_BYTES}")
    (failure,) = read_documents([Line(1, b"xxx", problem)], "f", RECIPE).failures
    assert (failure.reason, failure.detail) == problem


@pytest.mark.parametrize("data", [b"", b"   ", b"\t", b"\r"])
def test_blank_lines_are_counted(data: bytes) -> None:
    read = read_documents([Line(1, data)], "f", RECIPE)
    assert (read.lines, read.blank, read.documents, read.failures) == (1, 1, [], [])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"id": "1", "title": "A", "text": "b"}\r', "A b"),
        (b'{"id": "1", "title": null, "text": "b"}', "b"),
        (b'{"id": "1", "title": "A"}', "A"),
        ('{"id": "1", "text": "smile \U0001f600"}'.encode(), "smile \U0001f600"),
        (b'{"id": "1", "text": "pair \\ud83d\\ude00"}', "pair \U0001f600"),
        (b'{"id": "1", "text": "half \\ud83d!"}', "half \ufffd!"),
        (b'{"id": "1", "text": "nul \\u0000 x"}', "nul \0 x"),
        (b'{"id": "1", "text": "raw nul \0 x"}', "raw nul \0 x"),
        (b'{"id": "1", "text": "raw\ttab"}', "raw tab"),
    ],
)
def test_odd_but_usable_line(data: bytes, text: str) -> None:
    document = read_one(data)
    assert RECIPE.recipes[0].clean(document.texts[0]) == text
    json.dumps(document.texts).encode()
    document.texts[0].encode()


@pytest.mark.parametrize(
    ("value", "expected"), [(b"17", "17"), (b"123456789012345678901234567890", "123456789012345678901234567890")]
)
def test_integer_ids_become_text_without_loss(value: bytes, expected: str) -> None:
    assert read_one(b'{"id": %s, "text": "x"}' % value).id == expected


LIMITS = [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]
NUMBERS = st.sampled_from(LIMITS) | st.integers(-(2**66), 2**66) | st.floats()
VALUES = st.recursive(NUMBERS | NUMBERS.map(str), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(record=st.dictionaries(NUMBERS.map(str), VALUES))
def test_only_integers_beyond_64_bits_become_strings(record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    assume(not any(word in data for word in (b"NaN", b"Infinity")))
    assert parse_record(data) == records._parse_leniently(data)


@pytest.mark.parametrize(
    ("value", "slow"),
    [
        (b"1812345678901234567", False),  # as the ids of tweets
        (b"-9223372036854775808", False),
        (b"18446744073709551615", False),
        (b"18446744073709551616", True),
        (b'[{"a": -9223372036854775809}]', True),
        (b'"18446744073709551616"', False),
        (b"0.18446744073709551616", False),
        (b"[" * 900 + b"1812345678901234567" + b"]" * 900, False),
    ],
)
def test_only_lines_with_integers_beyond_64_bits_are_parsed_twice(
    value: bytes, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient = Mock(return_value={})
    monkeypatch.setattr(records, "_parse_leniently", lenient)
    parse_record(b'{"id": %s}' % value)
    assert lenient.called == slow


def test_without_an_id_field_the_id_is_file_and_line() -> None:
    assert read_one(b'{"text": "x"}', DocumentRecipe((TextRecipe(),), id_field="")).id == "f.jsonl:7"


def test_kept_fields_keep_their_values_and_absent_ones_are_null() -> None:
    assert read_one(b'{"id": 1, "text": "x", "year": [2021, {"a": null}]}').kept_fields == {"year": [2021, {"a": None}]}
    assert read_one(b'{"id": 1, "text": "x"}').kept_fields == {"year": None}


def test_surrogates_are_replaced_at_every_depth() -> None:
    record = parse_record(b'{"a\\ud800": ["\\udfff", {"b": "\\ud83d\\ude00"}]}')
    assert record == {"a\ufffd": ["\ufffd", {"b": "\U0001f600"}]}


def test_bigquery_schema_follows_the_arrow_schema() -> None:
    fields = bigquery_schema(predictions_schema(["year"], ["ai"]), ["year"], "jsonl")
    assert [(f["name"], f["type"], f["mode"]) for f in fields] == [
        ("id", "STRING", "REQUIRED"),
        ("year", "JSON", "NULLABLE"),
        ("ai", "RECORD", "NULLABLE"),
    ]
    labels, scores = fields[2]["fields"]
    assert (labels["type"], labels["mode"]) == ("STRING", "REPEATED")
    assert (scores["mode"], [f["type"] for f in scores["fields"]]) == ("REPEATED", ["STRING", "FLOAT"])

"""Names are safe for files, columns and terminals, and different texts keep different names."""

import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from models import names
from models.console import PlainConsole
from models.errors import UserError, exit_code

TEXTS = st.text(st.characters(), max_size=300) | st.text("aAbB_-. +#政治é", max_size=8)
SETS = st.lists(TEXTS, min_size=1, max_size=6, unique=True)
LIKE_A_HASH = names.file_name("C+")  # a text may look like the name of another
HOSTILE = "\x1b[2J\x9b1m\r\x07\u202egnp\u2066\x7f\ud800"


@given(SETS.map(lambda texts: [*texts, LIKE_A_HASH, "C+"]))
def test_different_texts_have_different_file_names_even_without_case(texts: list[str]) -> None:
    made = {text: names.file_name(text).lower() for text in texts}
    assert len(set(made.values())) == len(made)


@given(TEXTS, st.integers(20, 120))
def test_file_names_are_portable(text: str, longest: int) -> None:
    name = names.file_name(text, longest)
    assert re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?", name)
    assert len(name.encode()) <= longest


@pytest.mark.parametrize("text", ["part-0001.jsonl", "a", "_", "val_cs.cr", "2024-01"])
def test_a_portable_text_is_its_own_file_name(text: str) -> None:
    assert names.file_name(text) == text


@given(SETS.map(lambda texts: [*dict.fromkeys([*texts, "C+", "C#", names.distinct(["C+", "C#"])[0]])]))
@pytest.mark.parametrize("also", ["", ".-"])
def test_texts_of_one_set_have_different_names_even_without_case(also: str, texts: list[str]) -> None:
    made = names.distinct(texts, also)
    assert len({name.lower() for name in made}) == len(texts)
    assert all(re.fullmatch(rf"[\w{re.escape(also)}]+", name, re.ASCII) and len(name) <= 100 for name in made)


def test_names_of_a_set_stay_readable() -> None:
    assert names.distinct(["cs.CR", "Economy", "red & blue"], ".-") == ["cs.CR", "Economy", "red___blue"]
    assert names.distinct(["cs.CR", "Economy"]) == ["cs_CR", "Economy"]
    assert all(re.fullmatch(r"C__[0-9a-f]{12}", name) for name in names.distinct(["C+", "C#"]))
    assert [name[:3] for name in names.distinct(["Id", "id"])] == ["Id_", "id_"]


@given(TEXTS)
def test_nothing_steers_a_terminal(text: str) -> None:
    shown = names.for_terminal(text + HOSTILE)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert names.for_terminal(shown) == shown
    shown.encode()


def test_escapes_can_be_read() -> None:
    assert names.for_terminal(HOSTILE) == r"\x1b[2J\x9b1m\x0d\x07\u202egnp\u2066\x7f\ud800"
    assert names.for_terminal("政治 عربي 🙂\n\tC:\\x1b") == "政治 عربي 🙂\n\tC:\\x1b"


def test_a_console_shows_escapes_in_lines_titles_and_cells() -> None:
    written = io.StringIO()
    console = PlainConsole(file=written, force_terminal=True, color_system="truecolor", width=200)
    table = Table(title=f"title {HOSTILE}")
    table.add_column(f"column {HOSTILE}")
    table.add_row(f"[b]cell[/b] :smile: {HOSTILE}")
    console.print(f"[i]line[/i] {HOSTILE}")
    console.print(table)
    shown = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue())  # rich's own colours
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", shown)
    assert shown.count(names.for_terminal(HOSTILE)) == 4
    assert "[b]cell[/b] :smile:" in shown
    assert "[i]line[/i]" in shown
    (lines,) = [{len(line) for line in shown.splitlines() if line[:1] in "┏┡└"}]
    assert len(lines) == 1  # the frame of the table fits


def test_a_users_mistake_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError(f"found the label {HOSTILE}\nand another")

    assert exit_code(fail) == 2
    assert capsys.readouterr().err == f"error: found the label {names.for_terminal(HOSTILE)}\nerror: and another\n"


@pytest.mark.parametrize(
    ("column", "refused"),
    [
        ("published", False),
        ("Veröffentlicht am", False),  # a flexible column name
        ("発行-日", False),
        ("2024", False),
        ("हिन्दी", False),
        ("a" * 300, False),
        ("a" * 301, True),
        ("meta.date", True),
        ("a/b", True),
        ("what?", True),
        ("🙂", True),
        ("_TABLE_x", True),
        ("_file_", True),
        ("_PARTITIONTIME", True),
        ("_ROW_TIMESTAMP", True),
        ("__root__x", True),
        ("_COLIDENTIFIER1", True),
        ("_table", False),
    ],
)
def test_columns_that_bigquery_refuses(column: str, refused: bool) -> None:
    assert names.refused_by_bigquery(["id", column]) == ([column] if refused else [])


def test_repeated_columns_are_named_as_they_are_written() -> None:
    columns = ["Id", "Straße", "STRASSE", "a", "a", "id"]
    assert names.repeated(["title", *columns]) == columns
    assert names.repeated(["id", "title"]) == []


def test_every_file_system_takes_the_longest_name(tmp_path: Path) -> None:
    for text in ("政治" * 200, "x" * 10_000, "\ud800" * 300):
        Path(tmp_path, names.file_name(text)).touch()
    assert len(os.listdir(tmp_path)) == 3

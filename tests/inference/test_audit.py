"""Tests of `inference.audit`: real runs are drawn from, sheets are filled in by the truth, and counts are compared."""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

from inference import audit, beam_runner, delta, verify
from inference.audits import labelling_page, sheets
from inference.audits.population import NONE
from inference.audits.sheets import Paper
from tests import pages
from tests.inference.conftest import write_corpus

ALL_SCORES = ("--scores", "all", "--precision", "fp32")
LABELS = ("red", "green")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """Return a folder with a corpus, and a run with every score, whose rows keep the year."""
    folder = tmp_path_factory.mktemp("labelled")
    flags = ["--model", colours, "--input", write_corpus(folder / "corpus.jsonl", 300), "--output", folder / "run"]
    assert beam_runner.main(list(map(str, [*flags, *ALL_SCORES, "--keep_fields", "year:int"]))) == 0
    return folder


@pytest.fixture
def run(labelled: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, which a test may change."""
    return Path(shutil.copytree(labelled / "run", tmp_path / "copy"))


@pytest.fixture
def corpus(labelled: Path) -> Path:
    """Return the corpus of the run."""
    return labelled / "corpus.jsonl"


def draw(run: Path, *flags: object, output: Path | None = None, expect: int = 0) -> Path:
    """Draw an audit of the label red into a folder beside the run, and return it."""
    folder = output or run.parent / f"audit{len(list(run.parent.glob('audit*')))}"
    command = ["draw", run, "--label", "red", "--output", folder, "--size", "60", *flags]
    assert audit.main(list(map(str, command))) == expect
    return folder


def truth(identifier: str) -> dict[str, bool]:
    """Return which labels a document of the corpus has, which the untrained model does not know."""
    number = int(identifier.removeprefix("d"))
    return {"red": number % 3 == 0, "green": number % 4 == 0}


def documents(folder: Path) -> list[dict[str, Any]]:
    """Return the sample of an audit."""
    return list(json.loads((folder / "audit.json").read_text())["documents"])


def fill(folder: Path, name: str = "filled.csv", wrong: tuple[int, ...] = ()) -> Path:
    """Fill in the sheet by the truth, but not in some places, and return the file."""
    ids = {one["row"]: one["id"] for one in documents(folder)}
    rows = list(csv.DictReader(io.StringIO((folder / "sheet.csv").read_text("utf-8-sig"), newline="")))
    for number, row in enumerate(rows):
        for column in [column for column in row if column.endswith("?")]:
            row[column] = str(int(truth(ids[row["row"]])[column[:-1]] != (number in wrong)))
    return write_sheet(folder / name, rows)


def write_sheet(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as a sheet."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_sheet(path: Path) -> list[dict[str, str]]:
    """Return the rows of a sheet."""
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def estimate(folder: Path, *flags: object, expect: int = 0) -> dict[str, Any]:
    """Estimate from an audit, and return what its folder then holds."""
    assert audit.main(["estimate", str(folder), *map(str, flags)]) == expect
    path = folder / "estimates.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def test_a_corpus_is_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run, "--label", "green", "--by", "year")
    assert len(documents(folder)) == 60
    found = estimate(folder, "--labelled", fill(folder))
    for name, count in (("red", 100), ("green", 75)):
        row = found["labels"][name]
        assert row["documents"] == 300
        assert row["count"]["low"] <= count <= row["count"]["high"]
        assert sum(one["documents"] for one in row["groups"]) == 300
        assert sum(one["count"]["value"] for one in row["groups"]) == pytest.approx(row["count"]["value"])
        assert sum(one["naive"] for one in row["groups"]) == row["naive"]
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "red by year" in printed


def test_all_documents_drawn_give_the_true_count(run: Path) -> None:
    folder = draw(run, "--size", 300)
    count = estimate(folder, "--labelled", fill(folder))["labels"]["red"]["count"]
    assert count == {"value": 100, "low": 100, "high": 100}


def test_the_sheet_tells_coders_nothing_of_the_model(run: Path) -> None:
    folder = draw(run)
    assert list(read_sheet(folder / "sheet.csv")[0]) == ["row", "text", "red?"]
    data = (folder / "label.html").read_text().split('id="audit">')[1].split("</script>")[0]
    assert {tuple(one) for one in json.loads(data)["documents"]} == {("row", "text")}
    strata = [one["stratum"] for one in documents(folder)]
    assert strata != sorted(strata)


def test_the_texts_are_those_of_the_documents(run: Path, corpus: Path) -> None:
    folder = draw(run)
    texts = {row["id"]: row["text"] for row in map(json.loads, corpus.read_text().splitlines())}
    rows = {row["row"]: row["text"] for row in read_sheet(folder / "sheet.csv")}
    assert {rows[one["row"]] == texts[one["id"]] for one in documents(folder)} == {True}


def test_the_same_command_draws_the_same(run: Path) -> None:
    first, again, other = draw(run), draw(run), draw(run, "--seed", 1)
    assert (first / "audit.json").read_bytes() == (again / "audit.json").read_bytes()
    assert {one["id"] for one in documents(first)} != {one["id"] for one in documents(other)}


def test_beam_draws_what_one_process_draws(run: Path) -> None:
    here, beam = draw(run, "--label", "green"), draw(run, "--label", "green", "--runner", "DirectRunner")
    assert (here / "audit.json").read_bytes() == (beam / "audit.json").read_bytes()
    assert not (beam / "pass.json").exists()


def test_a_parquet_run_and_one_of_several_models_are_drawn_alike(
    label: Callable[..., Path], colours: Path, offensive: Path, corpus: Path, run: Path
) -> None:
    both = label(
        "--model", colours, "--model", offensive, "--input", corpus, *ALL_SCORES, "--format", "parquet",
        "--keep_fields", "year:int",
    )  # fmt: skip
    assert audit.main(["draw", str(both), "--label", "red", "--output", str(both / "x")]) == 2
    drawn = [documents(draw(run)), documents(draw(both, "--model", "colours", "--by", "year"))]
    assert all(len(one) == 60 for one in drawn)
    folder = draw(both, "--model", "offensive", "--label", "yes", expect=2)
    assert not folder.exists()


def test_a_refreshed_corpus_is_counted_whole(label: Callable[..., Path], colours: Path, tmp_path: Path) -> None:
    may, june = write_corpus(tmp_path / "may.jsonl", 200), write_corpus(tmp_path / "june.jsonl", 240)
    first = label("--model", colours, "--input", may, *ALL_SCORES)
    change = tmp_path / "change"
    assert delta.main(["--input", str(june), "--previous", str(first), "--output", str(change)]) == 0
    second = label("--model", colours, "--input", f"{change}/documents/*.jsonl", *ALL_SCORES)
    folder = draw(second, "--size", 240)
    row = estimate(folder, "--labelled", fill(folder))["labels"]["red"]
    assert (row["documents"], row["count"]["value"]) == (240, 80)


def test_texts_of_kept_rows_are_those_that_were_labelled(
    label: Callable[..., Path], colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may, june = write_corpus(tmp_path / "may.jsonl", 100), write_corpus(tmp_path / "june.jsonl", 110)
    first = label("--model", colours, "--input", may, *ALL_SCORES)
    change = tmp_path / "change"
    assert delta.main(["--input", str(june), "--previous", str(first), "--output", str(change)]) == 0
    second = label("--model", colours, "--input", f"{change}/documents/*.jsonl", *ALL_SCORES)
    june.write_text(june.read_text().replace('"text": "', '"text": "x '))
    draw(second, expect=2)
    assert "expected the bytes that were counted when the run began, found others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--label", "purple"), "--label purple: expected a label of the model: red, green, blue."),
        (("--label", "red"), "expected labels that differ, found one twice"),
        (("--plan", "--for", "training"), "nothing is estimated from it"),
        (("--runner", "DataflowRunner"), "--sdk_container_image is required"),
        (("--by", "month"), "--by month: expected a field that the rows hold (year)"),
        (("--model", "other"), "--model other: expected one of colours"),
        (("--size", "301"), "--size: expected at most the 300 documents of the run, found 301."),
        (("--size", "5"), "--size 5: expected at least 10"),
        (("--sise", "5"), "unknown flag --sise: did you mean --size?"),
        (("--format", "xml"), "--format: expected one of csv, label_studio, argilla, doccano; found 'xml'."),
        (("--fields", "title"), "name other fields with --fields"),
    ],
)
def test_a_draw_that_cannot_be_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    folder = draw(run, *flags, expect=2)
    assert message in capsys.readouterr().err
    assert not (folder / "audit.json").exists()


def test_rows_without_all_scores_are_refused(
    label: Callable[..., Path], colours: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(label("--model", colours, "--input", corpus), expect=2)
    assert "found those of --scores predicted; label the corpus with --scores all." in capsys.readouterr().err


def test_a_used_folder_and_a_changed_run_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run)
    draw(run, output=folder, expect=2)
    assert "expected a new folder, found an audit in it" in capsys.readouterr().err
    other = run.parent / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    draw(run, output=other, expect=2)
    draw(run, output=run / "audits", expect=2)
    assert "expected a folder outside of the run" in capsys.readouterr().err
    rows = next((run / "predictions").iterdir())
    rows.write_bytes(rows.read_bytes().replace(b"d1", b"e1"))
    draw(run, expect=2)
    assert "has changed" in capsys.readouterr().err


def test_the_plan_says_how_wide_the_interval_will_be(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["draw", str(run), "--label", "red", "--size", "60", "--plan", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["half_widths"]["red"]
    assert audit.main(["draw", str(run), "--label", "red", "--size", "240", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["half_widths"]["red"] < expected / 3
    count = estimate(folder := draw(run), "--labelled", fill(folder))["labels"]["red"]["count"]
    assert (count["high"] - count["low"]) / 2 == pytest.approx(expected, rel=0.35)
    assert sorted(path.name for path in run.parent.glob("audit*")) == ["audit0"]


Spoil = Callable[[list[dict[str, str]]], object]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.pop(3), "expected every row of the audit, found no audit-"),
        (lambda rows: rows[4].update({"red?": ""}), "expected 1 or 0 for each label, found an empty cell"),
        (lambda rows: rows[4].update({"red?": "maybe"}), "expected 1 or 0 for red, found 'maybe'"),
        (lambda rows: rows[4].update({"text": "other"}), "expected the text that was drawn, found another"),
        (lambda rows: rows[4].update({"row": "audit-00000000-05"}), "found one of another audit or of none"),
        (lambda rows: rows.append(rows[4]), "expected one row of this name, found two"),
        (lambda rows: [row.pop("red?") for row in rows], "expected a column 'red?', found none"),
    ],
)
def test_a_bad_sheet_is_refused(run: Path, capsys: pytest.CaptureFixture[str], spoil: Spoil, message: str) -> None:
    folder = draw(run)
    rows = read_sheet(fill(folder))
    spoil(rows)
    assert not estimate(folder, "--labelled", write_sheet(folder / "bad.csv", rows), expect=2)
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_files_that_are_no_sheets_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run)
    for name, content, message in (
        ("a.json", b'[{"x": 1}]', "expected an export of Label Studio"),
        ("b.csv", "row,text,red?\nä".encode("cp1252"), "save it as 'CSV UTF-8'"),
        ("c.json", b"[1", "expected an export of Label Studio"),
    ):
        (folder / name).write_bytes(content)
        estimate(folder, "--labelled", folder / name, expect=2)
        assert message in capsys.readouterr().err
    estimate(folder, "--labelled", folder / "none.csv", expect=2)
    assert "found no such file" in capsys.readouterr().err
    estimate(folder.parent, "--labelled", folder / "a.json", expect=2)
    assert "found no audit.json in it" in capsys.readouterr().err
    filled = fill(folder)
    (folder / "audit.json").write_bytes((folder / "audit.json").read_bytes().replace(b"d1", b"e1"))
    estimate(folder, "--labelled", filled, expect=2)
    assert "found a damaged or other one; draw again" in capsys.readouterr().err


def test_a_sheet_of_a_spreadsheet_is_read(run: Path) -> None:
    """Excel of some countries writes semicolons; others drop the text column or write TRUE."""
    folder = draw(run)
    rows = [{"row": row["row"], "red?": "TRUE" if row["red?"] == "1" else " no "} for row in read_sheet(fill(folder))]
    path = write_sheet(folder / "excel.csv", rows)
    path.write_text(path.read_text("utf-8-sig").replace(",", ";"))
    expected = estimate(folder, "--labelled", folder / "filled.csv")
    assert estimate(folder, "--labelled", path) == expected


@pytest.mark.parametrize("label", ["a; b; c; d", "'quoted'", " x", "tab\tbed", "=1"])
def test_any_label_can_head_a_column(label: str) -> None:
    sheet = sheets.write_csv([Paper("r-1", "text")], [label, "other"])
    filled = sheet.replace(b"text,,", b"text,1,0")
    (answer,) = sheets.read("sheet.csv", filled, [label, "other"])
    assert answer.labels == frozenset([label])


def test_no_cell_is_a_formula() -> None:
    content = sheets.write_csv([Paper("r-1", "=cmd|' /C calc'!A0"), Paper("r-2", "+1 good")], ["-x", "y"]).decode()
    cells = [cell for row in csv.reader(io.StringIO(content.lstrip("\ufeff"), newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(sheets.FORMULA)]


def test_two_coders_settle_what_they_disagree_about(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run)
    one, other = fill(folder), fill(folder, "other.csv", wrong=(2, 7))
    assert not estimate(folder, "--labelled", one, "--labelled", other, expect=2)
    printed = capsys.readouterr().err
    assert "the coders disagree about 2 rows, such as audit-" in printed
    odds = read_sheet(folder / "at_odds.csv")
    assert [row["row"] for row in odds] == [documents(folder)[place]["row"] for place in (2, 7)]
    settled = {row["row"]: row for row in read_sheet(one)}
    agreed = write_sheet(folder / "agreed.csv", [settled[row["row"]] for row in odds])
    found = estimate(folder, "--labelled", one, "--labelled", other, "--agreed", agreed)
    assert 0.8 < found["kappa"]["red"] < 1
    assert found["labels"] == estimate(folder, "--labelled", one)["labels"]
    before = (folder / "at_odds.csv").read_bytes() + b"\n"
    (folder / "at_odds.csv").write_bytes(before)
    estimate(folder, "--labelled", one, "--labelled", other, expect=2)
    assert (folder / "at_odds.csv").read_bytes() == before  # it may be filled in
    capsys.readouterr()
    estimate(folder, "--labelled", one, "--labelled", other, "--agreed", one, expect=2)
    assert "expected rows on which the coders disagree, found another" in capsys.readouterr().err


def test_the_labelling_tools_give_what_the_sheet_gives(run: Path) -> None:
    flags = [part for name in audit.FORMATS for part in ("--format", name)]
    folder = draw(run, "--label", "green", *flags)
    expected = estimate(folder, "--labelled", fill(folder))
    answers = {
        one["row"]: [name for name, yes in truth(one["id"]).items() if yes] or [NONE] for one in documents(folder)
    }
    tasks = json.loads((folder / "label_studio.json").read_text())
    for task in tasks:
        value = {"choices": answers[task["data"]["row"]]}
        result = [{"from_name": "labels", "to_name": "text", "type": "choices", "value": value}]
        task |= {"id": 1, "annotations": [{"was_cancelled": True, "result": []}, {"result": result}]}
    records = json.loads((folder / "argilla.json").read_text())
    for record in records:
        record["responses"] = {"labels": [{"value": answers[record["id"]], "user_id": "u"}]}
    lines = [json.loads(line) for line in (folder / "doccano.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"id": number, "label": answers[line["row"]], "Comments": []}
    contents = {
        "studio.json": orjson.dumps(tasks),
        "records.json": orjson.dumps(records),
        "all.jsonl": b"\n".join(map(orjson.dumps, lines)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        assert estimate(folder, "--labelled", folder / name) == expected, name
    assert '<Choice value="red"/>' in (folder / "label_studio.xml").read_text()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "found an empty cell"),
        (["purple"], "found 'purple'"),
        (["red", NONE], "expected labels or 'none of these', found both"),
    ],
)
def test_a_wrong_answer_of_a_tool_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], labels: list[str], message: str
) -> None:
    folder = draw(run, "--format", "doccano")
    lines = [json.loads(line) | {"label": labels} for line in (folder / "doccano.jsonl").read_text().splitlines()]
    (folder / "all.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    estimate(folder, "--labelled", folder / "all.jsonl", expect=2)
    assert message in capsys.readouterr().err


def test_a_binary_model_takes_one_label(
    label: Callable[..., Path], offensive: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = label("--model", offensive, "--input", corpus, *ALL_SCORES)
    folder = run.parent / "binary"
    command = ["draw", run, "--label", "yes", "--label", "no", "--size", "40", "--output", folder]
    assert audit.main(list(map(str, command))) == 0
    rows = [row | {"yes?": "1", "no?": "1"} for row in read_sheet(folder / "sheet.csv")]
    estimate(folder, "--labelled", write_sheet(folder / "both.csv", rows), expect=2)
    assert "expected one label at most, found no, yes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["outcomes.csv", "outcomes.parquet"])
def test_outcomes_add_up_to_the_count(run: Path, name: str, tmp_path: Path) -> None:
    folder = draw(run, "--by", "year")
    path = tmp_path / name
    found = estimate(folder, "--labelled", fill(folder), "--outcomes", path)
    table = pd.read_csv(path) if name.endswith("csv") else pd.read_parquet(path)
    assert list(table.columns) == ["id", "group", "drawn", "red_score", "red_outcome"]
    assert len(table) == found["outcomes"] == 300
    assert table["drawn"].sum() == 60
    assert table["red_outcome"].sum() == pytest.approx(found["labels"]["red"]["count"]["value"])
    estimate(folder, "--labelled", fill(folder), "--outcomes", path, expect=2)


def test_outcomes_of_another_run_are_refused(
    run: Path, colours: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw(run)
    command = ["--model", colours, "--input", corpus, *ALL_SCORES, "--max_tokens", "4", "--output", run, "--overwrite"]
    assert beam_runner.main(list(map(str, command))) == 0
    estimate(folder, "--labelled", fill(folder))
    assert not list(run.glob("audits/*"))  # the report is of another run
    estimate(folder, "--labelled", fill(folder), "--outcomes", tmp_path / "o.csv", expect=2)
    assert "expected the rows that the audit was drawn from, found others" in capsys.readouterr().err


def test_the_report_of_the_run_shows_the_audit(run: Path) -> None:
    folder = draw(run, "--by", "year")
    estimate(folder, "--labelled", fill(folder))
    assert verify.main([str(run)]) == 0
    page = pages.Page((run / "report.html").read_text())
    assert sum(cell.startswith("model: ") for cell in page.cells) == 20
    assert "red by year" in (run / "report.html").read_text()
    estimate(folder, "--labelled", fill(folder))
    assert (run / "report.html").read_text().count('class="audit"') == 1


def test_documents_for_training_are_those_next_to_the_threshold(run: Path, colours: Path) -> None:
    folder = draw(run, "--for", "training", "--size", 20)
    margins = {one["id"]: abs(one["scores"][0] / 1e6 - 0.5) for one in documents(folder)}
    everything = draw(run, "--size", 300)
    others = [abs(one["scores"][0] / 1e6 - 0.5) for one in documents(everything) if one["id"] not in margins]
    assert len(margins) == 20
    assert sum(margins.values()) / 20 < sum(others) / len(others) / 2
    texts = [set(row["text"].split()) for row in read_sheet(folder / "sheet.csv")]
    assert len({tuple(sorted(text)) for text in texts}) > 10
    beam = draw(run, "--for", "training", "--size", 20, "--runner", "DirectRunner")
    assert documents(beam) == documents(folder)


def test_nothing_is_estimated_from_documents_for_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run, "--for", "training", "--size", 20)
    assert not estimate(folder, "--labelled", fill(folder), expect=2)
    assert "found those chosen for training" in capsys.readouterr().err


def test_labelled_documents_become_rows_for_a_training(run: Path, tmp_path: Path) -> None:
    folder = draw(run, "--for", "training", "--size", 20)
    path = tmp_path / "more.jsonl"
    command = ["rows", folder, "--labelled", fill(folder), "--to", path]
    assert audit.main(list(map(str, command))) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 20
    for row in rows:
        assert row["labels"] == (["red"] if truth(row["id"])["red"] else [])
        assert row["asked"] == ["red"]
    assert audit.main(list(map(str, command))) == 2  # the file is there
    assert audit.main(list(map(str, [*command[:-1], tmp_path / "more.csv"]))) == 2


@pytest.mark.parametrize("spoil", [lambda rows: rows.reverse(), lambda rows: rows[0].update(text="other"), None])
def test_texts_that_were_swapped_do_not_reach_a_training(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Any], object] | None
) -> None:
    folder = draw(run)
    command = ["rows", folder, "--labelled", fill(folder), "--to", tmp_path / "more.jsonl"]
    if spoil:
        papers = json.loads((folder / "papers.json").read_text())
        spoil(papers)
        (folder / "papers.json").write_text(json.dumps(papers))
    else:
        (folder / "papers.json").unlink()
    assert audit.main(list(map(str, command))) == 2
    assert "expected the texts of the audit in papers.json" in capsys.readouterr().err
    assert not (tmp_path / "more.jsonl").exists()


def test_the_flag_knows_each_format() -> None:
    assert tuple(sheets.FORMATS) == audit.FORMATS


@pages.needs_browser
def test_no_text_acts_on_the_page(tmp_path: Path) -> None:
    """Texts and labels that try to end the data, or to run as code, are shown as they are."""
    attack = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    path = tmp_path / "label.html"
    path.write_bytes(labelling_page.make("audit-0", [Paper("r-1", attack)], [attack, "'\"&<b>"], exclusive=False))
    with pages.tab(path, tmp_path) as tab:
        tab.wait_for("document.getElementById('choices').childElementCount === 3")
        assert tab.value("document.getElementById('text').textContent") == attack
        assert tab.value("document.title") == "audit-0: documents to label"
        assert tab.value("document.querySelectorAll('img, b').length") == 0
    content, complaints = pages.opened(path)
    assert "audit-0" in content
    assert not complaints


@pages.needs_browser
def test_fifty_documents_are_labelled_by_key(run: Path, tmp_path: Path) -> None:
    """The page remembers its state when it is loaded again, and its file is a sheet of the audit."""
    folder = draw(run, "--label", "green", "--size", 50)
    ids = {one["row"]: one["id"] for one in documents(folder)}

    def keys(row: str) -> list[str]:
        chosen = [str(number) for number, name in enumerate(LABELS, 1) if truth(ids[row])[name]]
        return [*chosen, "Enter"] if chosen else ["0"]

    with pages.tab(folder / "label.html", tmp_path) as tab:
        tab.wait_for("document.getElementById('choices').childElementCount === 3")
        for _ in range(25):
            tab.press(keys(tab.value("document.getElementById('row').textContent")))
        tab.press(["1", "1"])  # taken back
        held = {"type": "keyDown", "key": "0", "text": "0", "autoRepeat": True}
        tab.call("Input.dispatchKeyEvent", **held)
        before = tab.value("document.getElementById('state').textContent")
        assert before == "25 of 50 labelled"
        tab.call("Page.reload")
        tab.wait_for("document.readyState === 'complete' && document.getElementById('choices').childElementCount === 3")
        assert tab.value("document.getElementById('state').textContent") == before
        for _ in range(25):
            tab.press(keys(tab.value("document.getElementById('row').textContent")))
        assert tab.value("document.getElementById('state').textContent") == "50 of 50 labelled"
        tab.picture(tmp_path / "page.png")
        tab.press("s")
        for _ in range(100):
            if saved := [path for path in tmp_path.glob("audit-*.csv") if path.stat().st_size]:
                break
            time.sleep(0.1)
    assert estimate(folder, "--labelled", saved[0]) == estimate(folder, "--labelled", fill(folder))

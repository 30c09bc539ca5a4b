"""The report of a run: its numbers are the summary's, it asks no other host, and no text in it can act."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from inference import beam_runner, report
from inference.cost import actual
from inference.cost.pricing import Bill
from inference.runs import drift, report_page
from inference.runs import receipts as all_receipts
from inference.runs.receipts import Receipt
from models import seals
from tests.inference.conftest import edit_description, edit_summary, identity_of, rows_of, write_corpus
from tests.pages import Page, in_browser, needs_browser
from tests.tiny import tiny_model

EVIL = '<script>alert(1)</script><img src="http://example.com/x.png">'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, colours: Path, offensive: Path) -> Path:
    """Two models, several slices, a blank line and two failures that try to act."""
    folder = tmp_path_factory.mktemp("finished")
    corpus = write_corpus(folder / "corpus.jsonl", 300)
    with corpus.open("a") as file:
        file.write(f"\n{EVIL}\n" + json.dumps({"id": EVIL, "text": 7}) + "\n")
    flags = [
        "--model",
        str(colours),
        "--model",
        str(offensive),
        "--input",
        str(corpus),
        "--output",
        str(folder / "run"),
    ]
    assert beam_runner.main([*flags, "--slice_mb", "0.005", "--scores", "all", "--max_failure_rate", "0.1"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(finished / "run", tmp_path / "run")


def test_the_page_holds_the_numbers_of_the_summary(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((run / "summary.json").read_text())
    content = (run / "report.html").read_text()
    page = Page(content)
    for name in ("lines", "predicted", "failed", "blank"):
        assert re.search(rf'id="{name}"[^>]*>{summary[name]:,}<', content)
    assert "303 lines = 300 predicted + 2 failed + 1 blank" in content
    for labels in summary["labels"].values():
        for name, count in labels.items():
            place = page.cells.index(name)
            assert page.cells[place + 1 : place + 3] == [f"{count:,}", f"{100 * count / 300:.1f} %"]
    assert "has not ended" not in content
    assert "--scores all" in content  # the command
    for _ in range(2):
        assert report.main([str(run)]) == 0
        assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    again = (run / "report.html").read_text()
    assert report_page.write(str(run))
    assert (run / "report.html").read_text() == again  # the same run gives the same bytes


def test_what_is_counted_is_what_was_written(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    rows = rows_of(run)
    for model, scores in summary["scores"].items():
        for name, bars in scores.items():
            values = [score["score"] for row in rows for score in row[model]["scores"] if score["label"] == name]
            assert bars == [sum(min(int(value * 20), 19) == place for value in values) for place in range(20)]
        assert sum(summary["lengths"][model]) == 300
    together: dict[tuple[str, str], int] = {}
    for row in rows:
        given = row["colours"]["labels"]
        for pair in ((a, b) for i, a in enumerate(given) for b in given[i + 1 :]):
            together[pair] = together.get(pair, 0) + 1
    counted = {(a, b): count for a, others in summary["pairs"]["colours"].items() for b, count in others.items()}
    assert counted == together
    assert counted
    assert summary["pairs"]["offensive"] == {}


def test_nothing_in_it_acts(run: Path) -> None:
    content = (run / "report.html").read_text()
    page = Page(content)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "script" not in page.elements
    assert "img" not in page.elements
    assert all(address.startswith("data:") for address in page.addresses)
    assert "url(" not in content


@needs_browser
def test_names_from_outside_do_not_act_either(tmp_path: Path) -> None:
    """Names of labels, files, fields and workers are text in the page."""
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    image, address = '<img src=x onerror="alert(1)">', "javascript:alert(1)"
    model = tiny_model(tmp_path / "model", names=(image, address, '" onmouseover="alert(1)'))
    corpus = write_corpus(folder / "corpus.jsonl", 50)
    with corpus.open("a") as file:
        file.write(json.dumps({"id": image, "text": [address]}) + "\n")
    flags = ["--model", str(model), "--input", str(corpus), "--output", str(folder / "run"), "--max_failure_rate", "1"]
    assert beam_runner.main(flags) == 0
    page = Page(in_browser(folder / "run" / "report.html"))
    assert "img" not in page.elements
    assert "script" not in page.elements
    assert {image, address} <= {*page.cells}
    assert page.addresses == ["data:,"]


def test_a_run_that_has_not_ended_has_one_too(run: Path, finished: Path) -> None:
    (run / "summary.json").unlink()
    receipts = sorted((run / "receipts").iterdir())
    for path in receipts[2:]:
        path.unlink()
    kept = [receipt for path in receipts[:2] if (receipt := all_receipts.read(str(path), identity_of(run)))]
    report_page.write(str(run))
    content = (run / "report.html").read_text()
    assert "This run has not ended." in content
    done = sum(receipt.source_bytes for receipt in kept) / (finished / "corpus.jsonl").stat().st_size
    assert f"{100 * done:.1f} % of the input is done" in content
    assert f'id="predicted">{sum(receipt.predicted for receipt in kept)}<' in content
    for path in receipts[:2]:
        path.unlink()
    report_page.write(str(run))  # nothing yet
    assert "0.0 % of the input is done" in (run / "report.html").read_text()


def test_a_run_whose_documents_all_ended_a_process_has_one(run: Path) -> None:
    """Nothing was counted of them."""
    nothing: dict[str, dict[str, int]] = {
        name: {}
        for name in ("tokens", "padded_tokens", "truncated", "repeated", "labels", "pairs", "scores", "lengths")
    }
    edit_summary(run, **nothing, predicted=0)
    report_page.write(str(run))
    assert "The model read 0 tokens, and 0.0 % of what it computed was padding." in (run / "report.html").read_text()


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 2
    assert "expected the folder of a run, found no run.json in it" in capsys.readouterr().err


def test_a_model_that_is_gone_leaves_its_thresholds_out(run: Path) -> None:
    edit_description(run, lambda content: content["models"][0].update(path="/models/colours"))
    before = (run / "report.html").read_text().count("<small>threshold ")
    report_page.write(str(run))
    assert (run / "report.html").read_text().count("<small>threshold ") == before - len(
        json.loads((run / "summary.json").read_text())["labels"]["colours"]
    )


@pytest.mark.parametrize(
    ("share", "count", "expected", "documents", "is_drift"),
    [
        (0.10, 10_000, 0.10, 1_000, False),
        (0.14, 10_000, 0.10, 1_000, False),  # less than one and a half times
        (0.20, 10_000, 0.10, 1_000, True),
        (0.20, 20, 0.10, 1_000, False),  # by chance
        (0.0, 10_000, 0.05, 1_000, True),
        (0.0, 0, 0.05, 1_000, False),
    ],
)
def test_when_a_share_has_drifted(share: float, count: int, expected: float, documents: int, is_drift: bool) -> None:
    assert drift.has_drifted(share, count, expected, documents) is is_drift


MARKUP = ("[/b] x", ":smile: [red]", "[/] y")  # labels that rich would take for markup


@pytest.fixture(scope="module")
def multi_class(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the console and the page say of a model that saw its first label in every training document."""
    folder = tmp_path_factory.mktemp("multi_class")
    model = tiny_model(folder / "model", task="multi_class", names=MARKUP)
    manifest = json.loads((model / "model.json").read_text())
    manifest["training"] = {"documents": 1000, "label_counts": dict.fromkeys(MARKUP, 1)}
    del manifest["seal"]
    (model / "model.json").write_bytes(seals.seal(manifest))
    corpus = write_corpus(folder / "corpus.jsonl", 100)
    with contextlib.redirect_stdout(io.StringIO()) as console:
        assert beam_runner.main(["--model", str(model), "--input", str(corpus), "--output", str(folder / "run")]) == 0
    return console.getvalue(), (folder / "run" / "report.html").read_text()


def test_a_warning_of_the_report_stands_in_the_console_too(multi_class: tuple[str, str]) -> None:
    console, page = multi_class
    (warning,) = (line for line in console.splitlines() if line.startswith("warning: "))
    assert "more than 1.5 times as frequent or as rare as in the training data" in warning
    assert warning.removeprefix("warning: model model: ") in page


def test_a_label_is_printed_as_it_is(multi_class: tuple[str, str]) -> None:
    """One of them would end the command if the console took it for markup."""
    console, _ = multi_class
    assert any(f"│ {label} " in console for label in MARKUP)
    assert "[/b] x" in console


def test_the_page_of_a_multi_class_model_says_nothing_of_thresholds(multi_class: tuple[str, str]) -> None:
    _, page = multi_class
    assert "<h3>Scores</h3>" in page
    assert "threshold" not in page


def test_every_histogram_has_axes(run: Path) -> None:
    page = (run / "report.html").read_text()
    histograms = page.count('<div class="bars')
    assert histograms > 5
    assert page.count('<div class="axis">') == histograms
    assert page.count('<div class="most">') == histograms  # the height of the tallest bar


def test_a_report_that_cannot_be_drawn_costs_nothing(
    colours: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_page, "TEMPLATE", tmp_path / "nowhere.html")
    run = tmp_path / "run"
    assert beam_runner.main(["--model", str(colours), "--input", str(corpus), "--output", str(run)]) == 0
    said = capsys.readouterr()
    assert "warning: the report was not drawn (TemplateNotFound: 'nowhere.html' not found" in said.err
    assert f"`python -m inference.report {run}` draws it" in said.err
    assert "300 lines = 300 predicted" in said.out
    assert "report:" not in said.out
    monkeypatch.undo()
    assert report.main([str(run)]) == 0


def test_what_a_job_has_cost(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paid = Bill("n2-highcpu-8", 20, "standard", hours=3.0, vcpu=10.0, memory=2.0, disk=0.2, shuffle=0.14, gpu=0.0)
    asked: list[tuple[str, ...]] = []

    def fetch(*place: str) -> tuple[str, str]:
        asked.append(place)
        return "job", "usage"

    monkeypatch.setattr(actual, "fetch", fetch)
    monkeypatch.setattr(actual, "bill", lambda job, usage, prices: paid)
    assert report.main([str(run), "--actual", "job1"]) == 2
    assert "expected --project and --region of the job as well" in capsys.readouterr().err
    assert report.main([str(run), "--actual", "job1", "--project", "mine", "--region", "us-east1"]) == 0
    assert asked == [("mine", "us-east1", "job1")]
    content = (run / "report.html").read_text()
    assert '<b id="cost">$12.34</b><small>20 workers, 3.0 hours' in content
    edit_description(run, lambda content: content.update(estimate={"dollars": 12.0, "low": 9.0, "high": 15.0}))
    report_page.write(str(run), paid.as_dict())
    assert "<small>estimated $9.00 to $15.00" in (run / "report.html").read_text()
    report_page.write(str(run))
    assert "<small>estimated cost</small><b>$12.00</b>" in (run / "report.html").read_text()


def receipt(begun: float, seconds: float, documents: int, worker: str = "w1") -> Receipt:
    return Receipt(
        run="r",
        slice="s",
        number=0,
        lines=documents,
        predicted=documents,
        failed=0,
        blank=0,
        failures={},
        bytes=0,
        failed_bytes=0,
        source_bytes=0,
        runtime="torch",
        weights={},
        seconds=seconds,
        scoring_seconds=seconds,
        finished=begun + seconds,
        worker=worker,
        checksum="",
    )


def test_speed_leaves_out_the_time_between_two_attempts() -> None:
    found = report_page.speed([receipt(0, 10, 100), receipt(5, 10, 100, "w2"), receipt(1000, 5, 100)])
    assert found
    assert found["busy"] == "20 s"
    assert found["paused"] == "16 min 25 s"
    assert found["rate"] == pytest.approx(15)
    assert [(w["name"], w["slices"], w["documents"]) for w in found["workers"]] == [("w1", 2, 200), ("w2", 1, 100)]
    assert sum(found["rates"]) * 1005 / report_page.POINTS == pytest.approx(300)


@needs_browser
def test_a_browser_opens_the_page_without_a_complaint(run: Path) -> None:
    content = in_browser(run / "report.html")
    assert "303 lines = 300 predicted" in content


def test_the_command_says_where_the_report_lies(
    tmp_path: Path, colours: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beam_runner.main(["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out")]) == 0
    assert f"report: {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out

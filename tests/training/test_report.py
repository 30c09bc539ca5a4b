"""The report and the model card hold the numbers of model.json, ask no other host, and let no text act."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from models.decision import Decision, thresholds_of
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Manifest
from tests.pages import Page, in_browser, needs_browser
from training import calibrate, charts, label_tables, measurement, model_card, report, wrong_decisions
from training.examples import Examples
from training.explanation import Explanation
from training.measurement import Measurement

NAMES = {
    "binary": ("other", "cyber"),
    "multi_class": tuple(f"class {i}" for i in range(12)),
    "multi_label": ("red & blue", "<green>", "grey|white", *(f"label {i}" for i in range(25))),
}
HISTORY = [
    {"step": 1, "epoch": 0.1, "loss": 0.7, "learning_rate": 1e-4},
    {"step": 10, "epoch": 1.0, "eval_loss": 0.5, "eval_macro_f1": 0.6, "eval_average_precision": 0.65},
    {"step": 20, "epoch": 2.0, "eval_loss": 0.4, "eval_macro_f1": 0.7, "eval_average_precision": 0.75},
]


def made_up(task: str, documents: int = 400) -> tuple[list[Measurement], Manifest]:
    """Return measurements of scores that are right in part, and a manifest that holds them."""
    chance = np.random.default_rng(0)
    labels = LabelSchema(task=Task(task), names=NAMES[task])
    parts = {}
    for split in ("validation", "test"):
        if task == "multi_label":
            targets = (chance.random((documents, len(labels.names))) < 0.15).astype(np.float32)
        else:
            targets = np.eye(len(labels.names), dtype=np.float32)[chance.integers(len(labels.names), size=documents)]
        logits = 3 * targets - 1.5 + chance.normal(size=targets.shape) * 1.5
        texts = [f"text {i} <script>alert(1)</script> of {split}" for i in range(documents)]
        parts[split] = Examples.of(texts, targets, [f"{split}.jsonl:{i}" for i in range(documents)]), logits
    decision = calibrate.fit(parts["validation"][1], parts["validation"][0].targets, labels)
    found = [measurement.measure_split(split, *part, labels, decision) for split, part in parts.items()]
    training = {
        "documents": 1000,
        "label_counts": dict.fromkeys(labels.names, 7),
        "data_sha256": "a" * 64,
        "seconds": 12.5,
        "examples_per_second": 80.0,
        "peak_memory_mib": 1234,
        "peak_gpu_memory_mib": None,
        "history": HISTORY,
        "config": {"training": {"epochs": 2, "batch_size": 32, "learning_rate": 1e-4, "seed": 0, "metric": "macro_f1"}},
    }
    manifest = Manifest(
        labels=labels,
        text=TextRecipe(),
        decision=decision,
        base_model="org/encoder",
        metrics={one.split: one.metrics for one in found},
        training=training,
        versions={"torch": "2.13.0"},
    )
    return found, manifest


@pytest.mark.parametrize("task", NAMES)
def test_the_page_holds_the_numbers_and_nothing_acts(tmp_path: Path, task: str) -> None:
    found, manifest = made_up(task)
    report.write(tmp_path, Explanation(manifest, found), name="my model")
    content = (tmp_path / "report.html").read_text()
    page = Page(content)
    metrics = manifest.metrics["test"]
    for name, values in metrics["labels"].items():
        assert name in page.cells
        place = page.cells.index(name)
        row = page.cells[place : place + 12]
        for key in ("precision", "recall", "f1", "average_precision", "roc_auc"):
            assert f"{values[key]:.3f}" in row
        assert f"{values['support']:,}" in row
    for name, threshold in thresholds_of(manifest.labels, manifest.decision).items():
        assert page.cells[page.cells.index(name) + 1] == f"{threshold:.3f}"
    assert f"<b>{metrics['macro_f1']:.3f}</b>" in content
    assert "script" not in page.elements
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"url\((?!#)", content)
    assert page.elements.count("svg") == (4 if task == "binary" else 5)
    assert content.count("true: ") <= wrong_decisions.SHOWN
    report.write(tmp_path, Explanation(manifest, found), name="my model")
    assert (tmp_path / "report.html").read_text() == content  # the same numbers give the same bytes


@pytest.mark.parametrize("task", NAMES)
def test_thresholds_are_spoken_of_if_the_model_has_some(tmp_path: Path, task: str) -> None:
    measurements, manifest = made_up(task)
    report.write(tmp_path, Explanation(manifest, measurements), name="my model")
    _, page = card(tmp_path, manifest)
    bare = Manifest(labels=manifest.labels, text=TextRecipe(), decision=manifest.decision)
    (tmp_path / "bare").mkdir()
    model_card.write(tmp_path / "bare", bare)
    pages = {
        "report": (tmp_path / "report.html").read_text(),
        "card": page,
        "card of an unmeasured model": (tmp_path / "bare" / "README.md").read_text(),
    }
    has_some = task != "multi_class"
    assert {name: "threshold" in content.lower() for name, content in pages.items()} == dict.fromkeys(pages, has_some)
    assert ("at 0.5" in pages["report"]) == has_some
    assert ("most probable label" in pages["report"]) == (not has_some)


def test_no_cell_of_the_tables_is_a_formula(tmp_path: Path) -> None:
    (_, found), manifest = made_up("binary", 30)
    found.examples.ids[0] = "@SUM(1)"
    label_tables.write(found, manifest.decision, tmp_path, "=1+1", "-2+3")
    cells = [cell for path in tmp_path.iterdir() for row in csv.reader(path.read_text().splitlines()) for cell in row]
    assert {"'@SUM(1)", "'=1+1", "'-2+3"} <= set(cells)
    assert not any(cell.startswith(("=", "@", "+", "-")) for cell in cells)


def measured(*names: str, documents: int = 60) -> tuple[Measurement, Manifest]:
    """Return a measurement of a multi-label model with these labels, and its manifest."""
    chance = np.random.default_rng(0)
    labels = LabelSchema(task=Task.MULTI_LABEL, names=names)
    targets = (chance.random((documents, len(names))) < 0.4).astype(np.float32)
    texts = [f"text {i}" for i in range(documents)]
    decision = Decision(thresholds=(0.5,) * len(names))
    examples = Examples.of(texts, targets, texts)
    found = measurement.measure_split("test", examples, targets + chance.normal(size=targets.shape), labels, decision)
    return found, Manifest(labels=labels, text=TextRecipe(), decision=decision)


def test_every_label_has_tables_of_its_own(tmp_path: Path) -> None:
    names = ("C+", "C#", "政治", "経済", "Id", "id", "x" * 300, "y" * 300, "../up", "red")
    found, manifest = measured(*names)
    label_tables.write(found, manifest.decision, tmp_path, "rows.jsonl", "run")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len({file.lower() for file in files}) == 2 * len(names)
    assert all(
        len(file) < 150 and re.fullmatch(r"holdout_[\w.-]+_(evaluation|scores)\.csv", file, re.A) for file in files
    )
    assert {"holdout_red_evaluation.csv", "holdout_red_scores.csv"} <= set(files)
    tables = [dict(csv.reader(path.read_text().splitlines())) for path in tmp_path.glob("*_evaluation.csv")]
    assert {table["label"] for table in tables} == set(names)


def test_a_model_of_which_little_is_known_has_a_page_too(tmp_path: Path) -> None:
    found, manifest = made_up("binary", 30)
    bare = Manifest(labels=manifest.labels, text=TextRecipe(), decision=manifest.decision)
    report.write(tmp_path, Explanation(bare, found[1:]))
    assert Page((tmp_path / "report.html").read_text()).elements.count("svg") == 3  # curves need a history


@needs_browser
def test_no_label_acts_in_tables_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = ('<img src=x onerror="alert(1)">', "--><script>alert(1)</script>", "]]><svg onload=alert(1)>")
    monkeypatch.setitem(NAMES, "multi_label", evil)
    measurements, manifest = made_up("multi_label", 60)
    report.write(tmp_path, Explanation(manifest, measurements), name=evil[0])
    page = Page(in_browser(tmp_path / "report.html"))
    assert "img" not in page.elements
    assert "script" not in page.elements
    assert page.elements.count("svg") == 5
    assert {*evil} <= {*page.cells}


def test_pictures_take_the_colours_of_the_page() -> None:
    found, _ = made_up("multi_class")
    for svg in (charts.curves(HISTORY, "macro_f1"), charts.reliability(found[1], Task.MULTI_CLASS)):
        assert "var(--blue)" in svg
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)) <= {"#000000"}
        assert not re.search(r"<svg[^>]*(width|height)=", svg)


def test_every_chart_names_its_axes() -> None:
    (_, measured), manifest = made_up("multi_label")
    names = manifest.labels.names
    drawn = {
        charts.curves(HISTORY, "macro_f1"): {"epoch", "loss", "metric"},
        charts.precision_recall(measured, thresholds_of(manifest.labels, manifest.decision)): {"recall", "precision"},
        charts.reliability(measured, Task.MULTI_LABEL): {"score", "share that came true"},
        charts.heat_map(np.eye(len(names)), np.eye(len(names)), names): {"predicted", "true"},
    }
    for svg, axes in drawn.items():
        assert axes <= {text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)}


STRANGE = ("[/b] x", "[bold]", ":smile:", "$x_{$", "$\\frac$")  # markup of rich, and of matplotlib's formulas


def test_a_label_may_look_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, manifest = measured(*STRANGE)
    label_tables.show(found)
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in STRANGE)
    report.write(tmp_path, Explanation(manifest, [found]), name="strange")
    content = (tmp_path / "report.html").read_text()
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", content)
    assert all(any(name in text for text in drawn) for name in STRANGE)


def test_a_label_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    label_tables.show(measured("red\x1b[2J\x9b1m", "blue\u202e")[0])
    printed = capsys.readouterr().out
    assert "\\x1b[2J\\x9b1m" in printed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)


SCRIPTS = ("政治と経済のニュース", "経済", "سياسة", "राजनीति", "한국어 정치", "🙂", "政" * 40, "x" * 40, "red\x1b[2J")


def test_charts_hold_labels_of_every_script_as_text(recwarn: pytest.WarningsRecorder) -> None:
    found, manifest = measured(*SCRIPTS)
    for svg in (
        charts.heat_map(np.eye(len(SCRIPTS)), np.eye(len(SCRIPTS)), SCRIPTS),
        charts.precision_recall(found, thresholds_of(manifest.labels, manifest.decision)),
    ):
        drawn = [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
        assert {*SCRIPTS[:6], r"red\x1b[2J"} <= set(drawn)
        (wide,), (narrow,) = ([text for text in drawn[::-1] if text.startswith(start)][:1] for start in ("政政", "xx"))
        assert wide.endswith("…")
        assert narrow.endswith("…")
        assert abs(len(narrow) - 2 * len(wide)) <= 2  # a letter of China is twice as wide
    assert not recwarn.list


@needs_browser
def test_a_browser_opens_the_page_without_a_complaint(tmp_path: Path) -> None:
    found, manifest = made_up("multi_label")
    report.write(tmp_path, Explanation(manifest, found), name="my model")
    content = in_browser(tmp_path / "report.html")
    cells = Page(content).cells
    name = manifest.labels.names[1]
    assert f"{manifest.metrics['test']['labels'][name]['f1']:.3f}" in cells[cells.index(name) :][:6]
    assert content.count("<svg") == 5


def card(tmp_path: Path, manifest: Manifest) -> tuple[dict[str, Any], str]:
    (tmp_path / "my_model").mkdir(exist_ok=True)
    model_card.write(tmp_path / "my_model", manifest)
    _, head, page = (tmp_path / "my_model" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), page


@pytest.mark.parametrize("task", NAMES)
def test_the_card_is_filled_in(tmp_path: Path, task: str) -> None:
    _, manifest = made_up(task)
    head, page = card(tmp_path, manifest)
    metrics = manifest.metrics["test"]
    assert head["pipeline_tag"] == "text-classification"
    assert head["base_model"] == "org/encoder"
    (entry,) = head["model-index"]
    results = {metric["name"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    assert results == {"macro F1": round(metrics["macro_f1"], 4), "micro F1": round(metrics["micro_f1"], 4)}
    for name, found in metrics["labels"].items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name.replace('|', chr(92) + '|')} |"))
        assert f"| {found['f1']:.3f} |" in row
        assert f"{found['support']:,} |" in row
    assert "1,000 documents" in page
    assert "torch 2.13.0" in page
    assert "None" not in page


def test_a_card_says_what_to_be_wary_of(tmp_path: Path) -> None:
    _, manifest = made_up("multi_label", 100)
    few = [name for name, found in manifest.metrics["test"]["labels"].items() if found["support"] < 20]
    _, page = card(tmp_path, manifest)
    assert f"These labels have fewer than 20 documents in test, so their metrics mean little: {', '.join(few)}." in page
    bare = Manifest(labels=manifest.labels, text=TextRecipe(), decision=manifest.decision, base_model="package:x/y")
    (tmp_path / "other").mkdir()
    head, page = card(tmp_path / "other", bare)
    assert "The classifier was not evaluated. Its thresholds of 0.5 may not suit your data." in page
    assert "base_model" not in head
    assert "model-index" not in head

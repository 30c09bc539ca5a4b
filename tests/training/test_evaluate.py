"""Any trained model is evaluated on any labelled file, and scores come in the order of the texts."""

import csv
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from models import weights
from models.decision import probabilities
from models.text import TextRecipe
from tests.tiny import tiny_model
from tests.training.conftest import write_rows
from training import charts, evaluate, label_tables, measurement

TEXTS = [f"{'red ' * (n % 3)}{'green' * (n % 2)} rose {n}" for n in range(60)]


def labelled(path: Path, column: str = "label") -> Path:
    rows = [{"text": t, column: [c for c in ("red", "green") if c in t], "n": n} for n, t in enumerate(TEXTS)]
    return write_rows(path, rows)


def test_any_model_on_any_labelled_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = tiny_model(tmp_path / "m")
    file = labelled(tmp_path / "rows.jsonl")
    flags = ["--model", str(model_dir), "--data", str(file), "--output", str(tmp_path / "out")]
    assert evaluate.main(flags) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_bytes())

    model = weights.load(model_dir)
    logits = measurement.score(model.network, model.tokenizer, TEXTS, TextRecipe(max_tokens=32))
    given = probabilities(logits, model.manifest.labels.task, model.manifest.decision) >= 0.5
    truth = np.array([["red" in t, "green" in t, False] for t in TEXTS])
    assert found["documents"] == 60
    assert found["labels"]["red"]["support"] == truth[:, 0].sum()
    assert found["labels"]["red"]["predicted"] == given[:, 0].sum()
    assert found["labels"]["red"]["recall"] == pytest.approx((given & truth)[:, 0].sum() / truth[:, 0].sum())
    assert found["labels"]["blue"]["roc_auc"] is None  # no document has it
    assert found["accuracy"] == pytest.approx((given == truth).all(axis=1).mean())
    assert f"macro-F1 {found['macro_f1']:.3f}" in capsys.readouterr().out
    tables = {f"holdout_{name}_{kind}.csv" for name in ("red", "green", "blue") for kind in ("evaluation", "scores")}
    assert tables <= {path.name for path in (tmp_path / "out").iterdir()}


def test_f1_is_compared_between_the_values_of_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = str(tiny_model(tmp_path / "m")), tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": ["red"] if "red" in text else [], "sort of": n % 2} for n, text in enumerate(TEXTS)]
    write_rows(file, rows)
    flags = ["--model", model, "--data", str(file), "--output", str(tmp_path / "out")]
    assert evaluate.main([*flags, "--by", "sort of"]) == 0
    assert "micro-F1 by sort of" in capsys.readouterr().out
    with (tmp_path / "out" / "by_sort_of.csv").open(encoding="utf-8", newline="") as table:
        found = [row for row in csv.DictReader(table) if row["label"] == "(all labels)"]
    assert [(row["value"], row["documents"]) for row in found] == [("0", "30"), ("1", "30")]
    assert float(found[0]["f1"]) == float(found[1]["f1_elsewhere"])
    assert evaluate.main([*flags, "--by", "year"]) == 2
    assert "expected columns ['year'], found ['label', 'sort of', 'text']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "function"), [(charts, "reliability"), (label_tables, "write"), (label_tables, "show")]
)
def test_the_metrics_are_written_even_if_a_picture_or_a_table_fails(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(module, function, raises)
    file = labelled(tmp_path / "rows.jsonl")
    model = tiny_model(tmp_path / "m")
    capsys.readouterr()
    assert evaluate.main(["--model", str(model), "--data", str(file), "--output", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_bytes())["documents"] == 60
    (warning,) = capsys.readouterr().err.splitlines()
    assert re.match(r"warning: .* could not be (written|printed) \(RuntimeError: not today\); .*\.$", warning)


def test_a_file_may_name_its_labels_in_another_way(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "m"))
    file = str(labelled(tmp_path / "rows.jsonl", "colours"))
    assert evaluate.main(["--model", model, "--data", file, "--set", "labels.column=colours"]) == 0
    codes = write_rows(tmp_path / "codes.jsonl", [{"text": "red", "label": "c.1; c.2"}])
    groups = ["--set", 'labels.groups={red = "c.1", green = "c.*", blue = "x"}', "--set", "labels.names=[]"]
    assert evaluate.main(["--model", model, "--data", str(codes), "--set", "labels.delimiter=;", *groups]) == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data", "nowhere.jsonl"], "data.train: expected files at nowhere.jsonl, found none"),
        (["--data", "rows.jsonl", "--set", "labels.column=colour"], "expected columns ['colour'], found"),
        (
            ["--data", "rows.jsonl", "--set", "labels.colum=colour"],
            "unknown key 'labels.colum'; did you mean 'column'?",
        ),
        (["--data", "empty.jsonl"], "expected labelled rows, found none"),
        (["--data", "other.jsonl"], "expected one of the labels red, green, blue or its number, found 'violet'"),
        (["--data", "rows.jsonl", "--model", "nowhere"], "expected a directory written by"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "m")
    labelled(tmp_path / "rows.jsonl")
    write_rows(tmp_path / "empty.jsonl", [{"text": "", "label": []}])
    write_rows(tmp_path / "other.jsonl", [{"text": "a", "label": ["violet"]}])
    assert evaluate.main(["--model", "m", "--output", "out", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_scores_are_in_the_order_of_the_texts_and_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    model = weights.load(tiny_model(tmp_path / "m"))
    texts = ["red " * (1 + 7 * number % 40) + "rose" for number in range(100)]
    found = measurement.score(model.network, model.tokenizer, texts, TextRecipe(max_tokens=24))
    assert found.shape == (100, 3)
    assert found.dtype == np.float32
    for number in (0, 17, 99):
        alone = model.tokenizer(texts[number], truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            expected = model.network(alone["input_ids"], alone["attention_mask"])[0].numpy()
        assert found[number] == pytest.approx(expected, abs=1e-5)

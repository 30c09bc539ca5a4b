"""A decision is fitted to other documents, and the weights and their conversions stay what they are."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import run
from inference.scoring import conversion_folder
from models import trained_model, weights
from tests.tiny import tiny_model
from tests.training.conftest import toy_rows, write_rows
from training import decide, evaluate


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", task="multi_label")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rows = [{"text": row["text"], "label": row["colours"]} for row in toy_rows()]
    return write_rows(tmp_path / "mine.jsonl", rows[:200]), write_rows(tmp_path / "test.jsonl", rows[200:])


def state(model: Path) -> dict[str, str]:
    """Return the hash of each file that is loaded."""
    manifest = trained_model.read_manifest(model)
    return {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in manifest.files}


def test_a_decision_is_fitted_and_the_weights_stay(
    model: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, hashes = trained_model.read_manifest(model), state(model)
    flags = ["--model", str(model), "--data", str(files[0]), "--test", str(files[1]), "--objective", "recall >= 0.95"]
    assert decide.main(flags) == 0
    after = trained_model.verify(model)
    assert state(model) == hashes
    assert after.files == before.files
    assert conversion_folder.usable(after) == conversion_folder.usable(before)
    assert weights.load(model).manifest == after
    assert after.decision != before.decision
    fitted, held_out = after.metrics["validation"], after.metrics["test"]
    assert all(of_label["recall"] >= 0.95 for of_label in fitted["labels"].values())
    assert fitted["documents"] == 200
    assert held_out["documents"] == len(files[1].read_text().splitlines())
    assert after.training["refitted"]["former"] == before.decision.model_dump(mode="json")
    assert "with the former decision" in capsys.readouterr().out
    assert {path.name[:3] for path in (model / "evaluation").iterdir()} == {"val", "hol", "rep"}
    assert (model / "report.html").is_file()
    output = tmp_path / "evaluation"
    assert evaluate.main(["--model", str(model), "--data", str(files[1]), "--output", str(output)]) == 0
    assert json.loads((output / "metrics.json").read_bytes())["macro_f1"] == pytest.approx(held_out["macro_f1"])


def test_the_former_metrics_do_not_outlive_their_decision(model: Path, files: tuple[Path, Path]) -> None:
    both = ["--model", str(model), "--data", str(files[0]), "--test", str(files[1])]
    assert decide.main(both) == 0
    assert decide.main(both[:4]) == 0
    assert set(trained_model.read_manifest(model).metrics) == {"validation"}
    assert {path.name[:3] for path in (model / "evaluation").iterdir()} == {"val", "rep"}


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--objective", "accuracy"], "decision.objective: expected macro_f1, best_f1, fixed, precision >= 0.9"),
        (["--set", "decision.abstain_below=0.4"], "decision.abstain_below is for a multi_class task"),
        (["--test", "nothing.jsonl"], "expected files at nothing.jsonl, found none"),
    ],
)
def test_a_mistake_changes_nothing(
    flags: list[str], problem: str, model: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = (model / "model.json").read_bytes()
    assert decide.main(["--model", str(model), "--data", str(files[0]), *flags]) == 2
    assert problem in capsys.readouterr().err
    assert (model / "model.json").read_bytes() == content


def test_a_decision_is_not_fitted_to_the_training_documents(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their scores are too good."""
    rows = [{"text": f"a {colour} thing, {n}", "label": colour} for n in range(60) for colour in ("red", "green")]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "held.jsonl", [{"text": f"one {row['text']}", "label": row["label"]} for row in rows[:40]])
    assert start("multi_class", tmp_path / "m") == 0
    config = json.loads((tmp_path / "m" / "model.json").read_bytes())["training"]["config"]
    flags = [f"--set=model.base={config['model']['base']}", "--set=model.pooling=mean", "--set=text.max_tokens=32"]
    from training import train

    command = ["--data", str(tmp_path / "train.jsonl"), "--text", "text", "--label", "label"]
    command += [f"--set=data.validation={tmp_path / 'held.jsonl'}", "--set=data.split.test=0"]
    assert train.main([*command, *flags, "--output", str(tmp_path / "m2")]) == 0
    assert decide.main(["--model", str(tmp_path / "m2"), "--data", str(tmp_path / "train.jsonl")]) == 2
    assert "expected documents that the model has not seen" in capsys.readouterr().err


def test_a_multi_class_model_learns_to_abstain(tmp_path: Path) -> None:
    """Its rows then have no label, and the confusion leaves such documents out."""
    model = tiny_model(tmp_path / "m", task="multi_class")
    rows = [{**row, "label": row["colours"][0]} for row in toy_rows() if row["colours"]]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    flags = ["--model", str(model), "--data", str(data)]
    assert decide.main(flags) == 0
    tables = [path.read_text().splitlines()[1:] for path in (model / "evaluation").glob("val_*_scores.csv")]
    highest = sorted({max(float(row.split(",")[2]) for row in document) for document in zip(*tables, strict=True)})
    middle = highest[len(highest) // 3 : -len(highest) // 3]
    low, high = max(itertools.pairwise(middle), key=lambda pair: pair[1] - pair[0])  # no document is at the edge
    assert decide.main([*flags, "--set", f"decision.abstain_below={(low + high) / 2}"]) == 0
    manifest = trained_model.verify(model)
    metrics = manifest.metrics["validation"]
    given = sum(of_label["predicted"] for of_label in metrics["labels"].values())
    assert 0 < given < metrics["documents"] == len(rows)
    assert sum(map(sum, metrics["confusion"])) == given
    assert metrics["abstained"] == len(rows) - given
    output = tmp_path / "out.jsonl"
    assert run.main(["--model", str(model), "--input", str(data), "--output", str(output), "--precision", "fp32"]) == 0
    written = [json.loads(line)["m"]["labels"] for line in output.read_text().splitlines()]
    assert len(written) == len(rows)
    assert sum(not labels for labels in written) == len(rows) - given

"""Tests which documents of a new corpus are relabelled, and that the labels are those of a run over all of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import delta
from tests.inference.conftest import int8_variant, rows_of, texts
from tests.tiny import tiny_model

TEXTS = texts(60)


def write(path: Path, documents: dict[str, str], *more: str) -> Path:
    rows = (json.dumps({"id": name, "text": text, "year": len(text)}) for name, text in documents.items())
    path.write_text("\n".join([*rows, *more]) + "\n")
    return path


def rows_below(*folders: Path) -> dict[str, Any]:
    rows = (json.loads(line) for folder in folders for f in folder.iterdir() for line in f.read_text().splitlines())
    return {row["id"]: row for row in rows}


def delta_counts(previous: Path, model: Path, corpus: Path, output: Path) -> dict[str, int]:
    command = [
        "--model",
        model,
        "--input",
        corpus,
        "--previous",
        previous,
        "--output",
        output,
        "--runner",
        "FnApiRunner",
    ]
    assert delta.main([str(word) for word in command]) == 0
    counts: dict[str, int] = json.loads((output / "delta.json").read_bytes())["counts"]
    return counts


def test_a_refresh_of_a_refresh_gives_what_labelling_all_would(
    label: Callable[..., Path], colours: Path, tmp_path: Path
) -> None:
    flags = ("--model", colours, "--keep_fields", "year", "--runtime", "torch", "--precision", "fp32")
    may = {f"d{i}": TEXTS[i] for i in range(40)}
    june = {**{k: v for k, v in may.items() if k != "d7"}, "d3": "rose rose rose", "d99": "a green sky"}
    july = {**june, "d99": "a blue sky", "d100": "the red rose"}

    run = label(*flags, "--input", write(tmp_path / "may.jsonl", may))
    corpus = write(tmp_path / "june.jsonl", june, "not json")
    counts = delta_counts(run, colours, corpus, tmp_path / "to_june")
    assert counts == {"new": 1, "changed": 1, "unreadable": 1, "kept": 38, "gone": 1}
    run = label(*flags, "--input", tmp_path / "to_june" / "documents" / "*.jsonl", "--max_failure_rate", "1")
    assert [row["reason"] for row in rows_of(run, "failures")] == ["not_json"]
    whole = label(*flags, "--input", corpus, "--max_failure_rate", "1")
    assert rows_below(run / "predictions", tmp_path / "to_june" / "kept") == rows_below(whole / "predictions")

    corpus = write(tmp_path / "july.jsonl", july)
    counts = delta_counts(run, colours, corpus, tmp_path / "to_july")
    assert counts == {"new": 1, "changed": 1, "kept": 39, "gone": 1}  # the line that was not a document is gone
    run = label(*flags, "--input", tmp_path / "to_july" / "documents" / "*.jsonl")
    whole = label(*flags, "--input", corpus)
    assert rows_below(run / "predictions", tmp_path / "to_july" / "kept") == rows_below(whole / "predictions")


def test_another_model_or_an_id_that_was_not_unique_is_relabelled(
    label: Callable[..., Path], colours: Path, tmp_path: Path
) -> None:
    corpus = write(tmp_path / "a.jsonl", {f"d{i}": TEXTS[i] for i in range(5)}, '{"id": "d0", "text": "the sky"}')
    run = label("--model", colours, "--input", corpus)
    assert delta_counts(run, colours, corpus, tmp_path / "same") == {"changed": 2, "kept": 4}
    other = tiny_model(tmp_path / "colours", seed=9)
    assert delta_counts(run, other, corpus, tmp_path / "other") == {"new": 6}


def test_kept_fields_are_those_of_the_new_corpus(label: Callable[..., Path], colours: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", {"d1": "the sky"})
    run = label("--model", colours, "--input", corpus, "--keep_fields", "year")
    new = tmp_path / "b.jsonl"
    new.write_text('{"id": "d1", "text": "the sky", "year": 2027}\n')
    assert delta_counts(run, colours, new, tmp_path / "delta") == {"kept": 1}
    assert rows_below(tmp_path / "delta" / "kept")["d1"]["year"] == 2027


def test_mistakes_are_named(
    label: Callable[..., Path], colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "a.jsonl", {"d1": "the sky"})
    common = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out")]
    assert delta.main([*common, "--previous", str(tmp_path / "none")]) == 2
    assert "expected the folder of a run, found no run.json" in capsys.readouterr().err
    run = label("--model", colours, "--input", corpus)
    write(corpus, {"d1": "the sky is blue"})
    assert delta.main([*common, "--previous", str(run)]) == 2
    assert f"its input {corpus} has changed" in capsys.readouterr().err
    assert delta.main([*common, "--previous", str(run), "--outptu", "x"]) == 2
    assert "unknown flag --outptu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_int8_variant_relabels_everything(tmp_path: Path, label: Callable[..., Path]) -> None:
    model = tiny_model(tmp_path / "m")
    int8_variant(model)
    corpus = write(tmp_path / "old.jsonl", {str(i): TEXTS[i] for i in range(20)})
    previous = label("--model", model, "--input", corpus, "--runtime=openvino", "--precision=int8")
    assert delta_counts(previous, model, corpus, tmp_path / "same")["kept"] == 20
    variant = int8_variant(model, scale=1.001)
    assert delta_counts(previous, model, corpus, tmp_path / "other")["new"] == 20
    shutil.rmtree(variant)
    assert delta_counts(previous, model, corpus, tmp_path / "none")["new"] == 20

"""Tests the comparison of two runs: every changed label is counted, and every pair of scores is compared."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import beam_runner, compare
from inference.runs import differences
from tests.inference.conftest import rows_of, write_corpus
from tests.tiny import tiny_model


def label_into(output: Path, model: Path, corpus: Path, *flags: str) -> Path:
    command = ["--model", str(model), "--input", str(corpus), "--output", str(output)]
    assert beam_runner.main([*command, "--scores", "all", "--slice_mb", "0.005", *flags]) == 0
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> tuple[Path, Path]:
    """Label a corpus with two models of the same name. The second corpus lacks ten documents and has five others."""
    folder = tmp_path_factory.mktemp("runs")
    new = tiny_model(folder / "new" / "colours", seed=5)
    corpus = write_corpus(folder / "corpus.jsonl", 300)
    others = [json.dumps({"id": f"new{i}", "text": "red sky"}) for i in range(5)]
    other = folder / "other.jsonl"
    other.write_text("\n".join([*corpus.read_text().splitlines()[10:], *others]) + "\n")
    before = label_into(folder / "before", colours, corpus)
    label_into(folder / "as_jsonl", new, other)
    return before, label_into(folder / "after", new, other, "--format", "parquet")


def test_every_change_is_counted(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = runs
    output = tmp_path / "compare.json"
    assert compare.main([str(before), str(after), "--output", str(output)]) == 0
    comparison = json.loads(output.read_text())
    old = {row["id"]: row["colours"] for row in rows_of(before)}
    new = {row["id"]: row["colours"] for row in rows_of(before.parent / "as_jsonl")}
    both = old.keys() & new.keys()
    assert [comparison[key] for key in ("both", "only_before", "only_after")] == [290, 10, 5]
    assert len(both) == 290
    changed = [i for i in both if set(old[i]["labels"]) != set(new[i]["labels"])]
    model = comparison["models"]["colours"]
    assert model["changed"] == len(changed) > 0
    for kind, one, other in (("lost", old, new), ("gained", new, old)):
        counts: dict[str, int] = {}
        for i in both:
            for name in set(one[i]["labels"]) - set(other[i]["labels"]):
                counts[name] = counts.get(name, 0) + 1
        assert model.get(kind, {}) == counts
    changes = [(abs(scores(new[i])[name] - score), i, name) for i in both for name, score in scores(old[i]).items()]
    largest = sorted(changes, reverse=True)[: differences.LARGEST]
    assert [(c["id"], c["label"]) for c in comparison["largest"]] == [(i, name) for _, i, name in largest]
    printed = capsys.readouterr().out
    assert "290 documents in both runs, 10 in the first only, 5 in the second only" in printed
    assert f"{len(changed)} documents have different labels" in printed


def scores(labelling: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    return {str(score["label"]): score["score"] for score in labelling["scores"]}


def test_a_run_and_itself(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(runs[0]), str(runs[0])]) == 0
    printed = capsys.readouterr().out
    assert "0 documents have different labels (0.00%)" in printed
    assert "largest" not in printed


def test_models_with_different_names(
    runs: tuple[Path, Path],
    offensive: Path,
    corpus: Path,
    label: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = label("--model", offensive, "--input", corpus)
    assert compare.main([str(runs[0]), str(other)]) == 2
    assert (
        "expected runs with models of the same name, found colours and offensive; pair them with"
        in capsys.readouterr().err
    )
    assert compare.main([str(runs[0]), str(other), "--models", "colours=offensive"]) == 0
    assert "model colours and offensive: 300 documents have different labels" in capsys.readouterr().out
    assert compare.main([str(runs[0]), str(other), "--models", "colours=offensive", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["both"] == 300
    assert compare.main([str(runs[0]), str(other), "--models", "colors=offensive"]) == 2
    assert f"expected a model of {runs[0]}, found colors; it has colours" in capsys.readouterr().err


def test_an_id_that_is_not_unique_is_not_compared(
    tmp_path: Path, colours: Path, label: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 20)
    corpus.write_text(corpus.read_text() + corpus.read_text().splitlines()[0] + "\n")
    out = label("--model", colours, "--input", corpus)
    assert compare.main([str(out), str(out)]) == 0
    assert "19 documents in both runs" in (printed := capsys.readouterr().out)
    assert "1 ids are not unique and are not compared" in printed


def test_a_folder_without_a_finished_run(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(runs[0]), str(tmp_path / "nowhere")]) == 2
    assert "expected the folder of a run, found no run.json" in capsys.readouterr().err
    unfinished = shutil.copytree(runs[1], tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    assert compare.main([str(runs[0]), str(unfinished)]) == 2

"""Tests which documents of a new corpus are relabelled, and that the labels are those of a run over all of it."""

import gzip
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from inference import beam_runner, collect, delta
from inference.corpus import slices
from inference.corpus.records import DocumentRecipe
from inference.runs import changes
from inference.runs.changes import Planned
from models.text import TextRecipe
from tests.inference.conftest import (
    BUCKET,
    Remote,
    int8_variant,
    jsonl,
    root_of,
    rows_of,
    slices_of,
    texts,
    upload_folder,
)
from tests.tiny import tiny_model

TEXTS = texts(60)
EXACT = ("--runtime", "torch", "--precision", "fp32")
Label = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def write(path: Path, documents: dict[str, str], *more: str) -> Path:
    rows = (json.dumps({"id": name, "text": text, "year": len(text)}) for name, text in documents.items())
    path.write_text("\n".join([*rows, *more]) + "\n")
    return path


def documents(count: int, **changed: str) -> dict[str, str]:
    return {f"d{i}": TEXTS[i] for i in range(count)} | changed


def rows_below(*folders: Path) -> dict[str, Any]:
    rows = (json.loads(line) for folder in folders for f in folder.iterdir() for line in f.read_text().splitlines())
    return {row["id"]: row for row in rows}


def delta_of(corpus: object, previous: object, output: object, *flags: object, expect: int = 0) -> dict[str, Any]:
    """Run the command, and return the content of `delta.json`."""
    command = ("--input", corpus, "--previous", previous, "--output", output, "--runner", "FnApiRunner", *flags)
    assert delta.main([str(word) for word in command]) == expect
    return {} if expect else dict(orjson.loads(Path(str(output), "delta.json").read_bytes()))


def labelled(folder: Path, captured: Captured, *flags: str, expect: int = 0) -> Path:
    """Run the command that `delta` has just printed, and return the folder of its run."""
    printed = captured.readouterr().out
    command = shlex.split(printed.partition("to label: ")[2])
    assert command[:3] == ["python", "-m", "inference.beam_runner"], printed
    assert beam_runner.main([*command[3:], *flags]) == expect
    return folder / "run"


def collected(source: object, output: Path) -> dict[str, Any]:
    assert collect.main([str(source), "--output", str(output)]) == 0
    return dict(orjson.loads((output / "collection.json").read_bytes()))


def test_a_refresh_of_a_refresh_gives_what_labelling_all_would(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    flags = ("--model", colours, "--keep_fields", "year", *EXACT)
    may = documents(40)
    june = {**{k: v for k, v in may.items() if k != "d7"}, "d3": "rose rose rose", "d99": "a green sky"}
    july = {**june, "d99": "a blue sky", "d100": "the red rose"}

    run = label(*flags, "--input", write(tmp_path / "may.jsonl", may))
    corpus = write(tmp_path / "june.jsonl", june, "not json")
    made = delta_of(corpus, run, tmp_path / "to_june")
    assert made["counts"] == {"new": 1, "changed": 1, "unreadable": 1, "kept": 38, "gone": 1}
    run = labelled(tmp_path / "to_june", capsys, "--max_failure_rate", "1")
    assert [row["reason"] for row in rows_of(run, "failures")] == ["not_json"]
    whole = label(*flags, "--input", corpus, "--max_failure_rate", "1")
    collection = collected(run, tmp_path / "labels_june")
    assert collection["counts"] == {"documents": 41, "kept": 38, "predicted": 2, "failed": 1}
    assert rows_below(tmp_path / "labels_june" / "predictions") == rows_below(whole / "predictions")
    assert [row["reason"] for row in rows_of(tmp_path / "labels_june", "failures")] == ["not_json"]
    assert (tmp_path / "labels_june" / "schema.json").read_bytes() == (whole / "schema.json").read_bytes()

    corpus = write(tmp_path / "july.jsonl", july)
    capsys.readouterr()
    made = delta_of(corpus, run, tmp_path / "to_july")
    assert made["counts"] == {"new": 1, "changed": 1, "kept": 39, "gone": 1}  # the line that was no document is gone
    run = labelled(tmp_path / "to_july", capsys)
    whole = label(*flags, "--input", corpus)
    assert collected(run, tmp_path / "labels_july")["counts"]["documents"] == 41
    assert rows_below(tmp_path / "labels_july" / "predictions") == rows_below(whole / "predictions")


def test_a_month_without_changes_leads_to_the_next(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(9)))
    june = write(tmp_path / "june.jsonl", documents(8))
    capsys.readouterr()
    assert delta_of(june, run, tmp_path / "to_june")["counts"] == {"kept": 8, "gone": 1}
    assert "nothing to label" in capsys.readouterr().out
    counts = {"documents": 8, "kept": 8, "predicted": 0, "failed": 0}
    assert collected(tmp_path / "to_june", tmp_path / "labels")["counts"] == counts
    assert len(rows_below(tmp_path / "labels" / "predictions")) == 8
    (tmp_path / "may.jsonl").unlink()  # nothing needs it any more
    july = write(tmp_path / "july.jsonl", documents(8, d1="the sky"))
    assert delta_of(july, tmp_path / "to_june", tmp_path / "to_july")["counts"] == {"kept": 7, "changed": 1}
    delta_of(july, tmp_path / "to_july", tmp_path / "more", expect=2)
    assert "expected a run, found a delta with 1 documents to label" in capsys.readouterr().err


def test_another_model_or_an_id_that_was_not_unique_is_relabelled(label: Label, colours: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", documents(5), '{"id": "d0", "text": "the sky"}')
    run = label("--model", colours, "--input", corpus)
    made = delta_of(corpus, run, tmp_path / "same", "--model", colours)
    assert made["counts"] == {"changed": 2, "kept": 4}
    other = tiny_model(tmp_path / "colours", seed=9)
    assert delta_of(corpus, run, tmp_path / "other", "--model", other)["counts"] == {"new": 6}


def test_a_model_that_changed_or_moved_is_named(label: Label, tmp_path: Path, capsys: Captured) -> None:
    model, corpus = tiny_model(tmp_path / "m"), write(tmp_path / "a.jsonl", documents(2))
    run = label("--model", model, "--input", corpus)
    shutil.rmtree(model)
    delta_of(corpus, run, tmp_path / "out", expect=2)
    assert f"was labelled with {model}; name its place now with --model." in capsys.readouterr().err
    tiny_model(model, seed=5)
    delta_of(corpus, run, tmp_path / "out", expect=2)
    assert f"expected its model {model} with SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_kept_fields_are_those_of_the_new_corpus(label: Label, colours: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", documents(3))
    run = label("--model", colours, "--input", corpus, "--keep_fields", "year")
    before = rows_below(run / "predictions")
    corpus.with_name("b.jsonl").write_text(corpus.read_text().replace(f'"year": {len(TEXTS[1])}', '"year": 2027', 1))
    assert delta_of(tmp_path / "b.jsonl", run, tmp_path / "delta")["counts"] == {"kept": 3}
    before["d1"]["year"] = 2027
    assert rows_below(tmp_path / "delta" / "kept") == before


def test_the_command_has_the_options_of_the_earlier_run(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"key": "1", "title": "the sky", "year": 1, "text": "red"}\n')
    flags = ["--id_field", "key", "--text_fields", "title,text", "--keep_fields", "year", "--scores", "top:2"]
    flags += ["--max_tokens", "9", "--redact_failures", *EXACT]
    run = label("--model", colours, "--input", corpus, *flags)
    corpus.with_name("b.jsonl").write_text('{"key": "2", "title": "the sky", "year": 1, "text": "red"}\n')
    capsys.readouterr()
    folder = tmp_path / "a delta's"
    delta_of(tmp_path / "b.jsonl", run, folder, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"new": 1, "gone": 1}
    assert beam_runner.main(answer["command"][3:]) == 0
    options = [json.loads((each / "run.json").read_bytes())["options"] for each in (run, folder / "run")]
    assert options[0] == options[1]


def test_a_run_on_a_delta_takes_all_its_documents_and_its_options_and_nothing_else(
    label: Label, colours: Path, offensive: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PART_BYTES", 1)
    monkeypatch.setattr(slices, "MIN_SLICE_BYTES", 300)
    monkeypatch.setattr(slices, "SMALLEST_SLICE_BYTES", 300)
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(30)), "--runner", "FnApiRunner")
    june = write(tmp_path / "june.jsonl", documents(30, d1="rose", d29="sky"))
    made = delta_of(june, run, tmp_path / "to_june")
    names = [part["path"] for part in made["documents"]]
    assert len(names) == 2
    all_of_it = tmp_path / "to_june" / "documents" / "*.jsonl"
    first = write(tmp_path / "a_first.jsonl", documents(3))
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--model", colours, "--input", all_of_it, "--input", first), f"alone, found {first}"),
        (("--model", colours, "--input", tmp_path / "to_june" / names[1]), f"found no {tmp_path}/to_june/{names[0]}"),
        (("--model", colours, "--input", tmp_path / "to_june" / "*" / "*"), "alone, found"),
        (("--model", colours, "--input", all_of_it, "--scores", "all"), "scores 'predicted', found 'all'"),
        (("--model", offensive, "--input", all_of_it), "the models colours "),
    ]
    for flags, problem in cases:
        capsys.readouterr()
        refused = label(*flags, expect=2)
        assert problem in capsys.readouterr().err
        assert not refused.exists()
    run = label("--model", colours, "--input", all_of_it)
    recorded = json.loads((run / "run.json").read_bytes())["delta"]
    assert recorded["path"] == str(tmp_path / "to_june")
    assert len(recorded["sha256"]) == 64

    (tmp_path / "to_june" / "delta.json").rename(tmp_path / "to_june" / "unfinished.json")
    label("--model", colours, "--input", all_of_it, expect=2)
    assert "holds an unfinished delta; repeat the command of the delta" in capsys.readouterr().err
    delta_of(june, run, tmp_path / "to_july", expect=2)
    assert "expected the delta of this run" in capsys.readouterr().err


def test_an_old_corpus_that_changed_at_equal_size_is_refused(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    may, june = write(tmp_path / "may.jsonl", documents(20)), write(tmp_path / "june.jsonl", documents(21))
    run = label("--model", colours, "--input", may)
    content = may.read_bytes()
    may.write_bytes(content.replace(b"red", b"sky"))
    delta_of(june, run, tmp_path / "out", expect=2)
    error = capsys.readouterr().err
    assert f"error: --previous {run}: its input {may} has changed, so texts cannot be compared; put it back" in error
    assert "Traceback" not in error
    assert list(tmp_path.glob("out/**/*.*")) == []
    may.write_bytes(content)
    capsys.readouterr()
    delta_of(june, run, tmp_path / "out")
    run = labelled(tmp_path / "out", capsys)
    june.write_bytes(june.read_bytes().replace(b"red", b"sky"))
    july = write(tmp_path / "july.jsonl", documents(22))
    delta_of(july, run, tmp_path / "next", expect=2)
    assert f"its input {june} has changed" in capsys.readouterr().err


def test_a_file_of_rows_that_changed_is_refused(label: Label, colours: Path, tmp_path: Path, capsys: Captured) -> None:
    corpus = write(tmp_path / "may.jsonl", documents(20))
    run = label("--model", colours, "--input", corpus)
    delta_of(write(tmp_path / "june.jsonl", documents(21)), run, tmp_path / "out")
    run = labelled(tmp_path / "out", capsys)
    (kept,) = (tmp_path / "out" / "kept").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"d3", b"d4"))
    assert collect.main([str(run), "--output", str(tmp_path / "labels")]) == 2
    problem = f"{kept} has changed since it was written: expected SHA-256"
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "labels" / "collection.json").exists()
    delta_of(corpus, run, tmp_path / "next", expect=2)
    assert problem in capsys.readouterr().err


def test_documents_that_changed_before_they_were_labelled_are_noticed(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(5)))
    june = write(tmp_path / "june.jsonl", documents(5, new="the red rose"))
    capsys.readouterr()
    delta_of(june, run, tmp_path / "out")
    (part,) = (tmp_path / "out" / "documents").iterdir()
    part.write_bytes(part.read_bytes().replace(b"red", b"sky"))
    run = labelled(tmp_path / "out", capsys)
    assert collect.main([str(run), "--output", str(tmp_path / "labels")]) == 2
    assert f"{part} has changed since it was written" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()
    delta_of(june, run, tmp_path / "next", expect=2)
    assert f"{part} has changed since it was written" in capsys.readouterr().err


def test_names_with_wildcards_are_literal_or_refused(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    may = write(tmp_path / "c[2].jsonl", documents(5))
    write(tmp_path / "c2.jsonl", documents(9))
    run = label("--model", colours, "--input", may, output=tmp_path / "ma[y]")
    label("--model", colours, "--input", tmp_path / "c2.jsonl", "--scores", "all", output=tmp_path / "may")
    assert len(rows_below(run / "predictions")) == 5
    made = delta_of(write(tmp_path / "june.jsonl", documents(6)), run, tmp_path / "out")
    assert made["counts"] == {"kept": 5, "new": 1}
    assert made["options"]["scores"] == "predicted"
    delta_of(may, run, tmp_path / "ou[t]", expect=2)
    assert "expected a name without *, ? and [" in capsys.readouterr().err


def test_an_unfinished_delta_is_done_again_without_its_stale_parts(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(5)))
    out = tmp_path / "out"
    june = write(tmp_path / "june.jsonl", documents(6))
    with monkeypatch.context() as stopped:
        stopped.setattr(changes, "build", Mock(side_effect=KeyboardInterrupt))
        delta_of(june, run, out, expect=1)
    stale = ["documents/part-00007.jsonl", f"kept/kept-{'0' * 16}.jsonl", f"delta.json.{'a' * 32}.part"]
    for name in stale:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("{}\n")
    (out / "notes.txt").write_text("mine")
    delta_of(june, run, out, expect=2)
    assert "found 'notes.txt' in it, which belongs to no unfinished delta" in capsys.readouterr().err
    assert all((out / name).exists() for name in [*stale, "notes.txt"])
    (out / "notes.txt").unlink()
    made = delta_of(june, run, out)
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"delta.json", *(part["path"] for part in made["documents"] + made["kept"])}
    delta_of(june, run, out, expect=2)
    assert "found a finished delta in it" in capsys.readouterr().err
    (out / "delta.json").unlink()
    delta_of(june, run, out, expect=2)
    assert "which belongs to no unfinished delta" in capsys.readouterr().err


def test_a_damaged_file_adds_up(label: Label, colours: Path, tmp_path: Path, capsys: Captured) -> None:
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(5)))
    content = gzip.compress(write(tmp_path / "plain.jsonl", documents(6)).read_bytes())
    (tmp_path / "june.jsonl.gz").write_bytes(content[:-8])  # every line is whole, and the end of the file is missing
    capsys.readouterr()
    made = delta_of(tmp_path / "june.jsonl.gz", run, tmp_path / "out")
    assert made["counts"] == {"kept": 5, "new": 1, "unreadable": 1}
    run = labelled(tmp_path / "out", capsys, expect=3)
    counts = {"documents": 7, "kept": 5, "predicted": 1, "failed": 1}
    assert collected(run, tmp_path / "labels")["counts"] == counts


def test_a_collection_goes_on_after_a_stop_and_refuses_other_files(
    label: Label, colours: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = label("--model", colours, "--input", write(tmp_path / "may.jsonl", documents(5)), "--limit", 3)
    counts = {"documents": 3, "kept": 0, "predicted": 3, "failed": 0}
    out = tmp_path / "labels"
    assert collected(run, out)["counts"] == counts
    (predictions,) = (out / "predictions").iterdir()
    (out / "collection.json").unlink()
    half = predictions.rename(f"{predictions}.{'a' * 32}.part")
    assert collected(run, out)["counts"] == counts
    assert predictions.exists()
    assert not half.exists()
    other = label("--model", colours, "--input", tmp_path / "may.jsonl", "--limit", 2)
    before = (out / "collection.json").read_bytes()
    assert collect.main([str(other), "--output", str(out)]) == 2
    assert (
        f"--output {out}: expected a new folder, found another collection in it; name another."
        in capsys.readouterr().err
    )
    assert (out / "collection.json").read_bytes() == before
    assert collected(run, out)["counts"] == counts
    (out / "predictions" / "notes.jsonl").write_text("mine")
    assert collect.main([str(run), "--output", str(out)]) == 2
    assert "expected a new folder, found 'predictions/notes.jsonl' in it" in capsys.readouterr().err
    made = delta_of(write(tmp_path / "june.jsonl", documents(5)), run, tmp_path / "to_june")
    assert made["counts"] == {"kept": 3, "new": 2}
    run = labelled(tmp_path / "to_june", capsys, "--limit", "1")
    assert collect.main([str(run), "--output", str(tmp_path / "more")]) == 2
    assert "expected a prediction or a failure for each of the 2 documents" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_a_delta_and_a_collection_in_a_remote_storage(remote: Remote, label: Label, colours: Path) -> None:
    model = upload_folder(remote, colours, "models/colours")
    may, bucket = remote.upload(BUCKET, "may[1]?.jsonl", jsonl(8)), root_of(remote)
    assert beam_runner.main(["--model", model, "--input", may, "--output", f"{bucket}/may"]) == 0
    remote.upload(BUCKET, "june/a.jsonl", jsonl(9))
    remote.upload(BUCKET, "out/unfinished.json", b"{}")
    remote.upload(BUCKET, "out/documents/part-00009.jsonl", b"stale\n")
    command = ["--input", f"{bucket}/june/*", "--previous", f"{bucket}/may", "--output", f"{bucket}/out"]
    assert delta.main([*command, "--runner", "FnApiRunner"]) == 0
    made = orjson.loads(remote.contents(BUCKET, "out/")["delta.json"])
    assert made["counts"] == {"kept": 8, "new": 1}
    assert remote.contents(BUCKET, "out/documents/").keys() == {"part-00000.jsonl"}
    documents = f"{bucket}/out/documents/*.jsonl"
    assert beam_runner.main(["--model", model, "--input", documents, "--output", f"{bucket}/june_run"]) == 0
    assert collect.main([f"{bucket}/june_run", "--output", f"{bucket}/labels"]) == 0
    written = remote.contents(BUCKET, "labels/")
    rows = [line for name, content in written.items() if name.startswith("predictions/") for line in content.split()]
    assert len(rows) == 9
    assert orjson.loads(written["collection.json"])["counts"]["documents"] == 9


def test_no_text_is_shuffled(tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", {"an id that is long": "a text that is long" * 100}, "not json" * 100)
    pieces = slices_of(corpus)
    recipe = DocumentRecipe((TextRecipe(fields=("text",), max_tokens=9),), "id", ("year",))
    elements = list(changes.read_new(Planned(0, pieces[0]), recipe))
    assert len(elements) == 2
    for key, element in elements:
        assert sum(len(value) if isinstance(value, bytes) else 8 for value in (key, *element)) <= 3 * 16 + 3 * 8
    assert os.path.getsize(corpus) > 2_000


def test_mistakes_are_named(label: Label, colours: Path, tmp_path: Path, capsys: Captured) -> None:
    corpus, out = write(tmp_path / "a.jsonl", {"d1": "the sky"}), tmp_path / "out"
    delta_of(corpus, tmp_path / "none", out, expect=2)
    assert "expected the folder of a run, found no run.json" in capsys.readouterr().err
    run = label("--model", colours, "--input", corpus)
    write(corpus, {"d1": "the sky is blue"})
    delta_of(corpus, run, out, expect=2)
    assert f"its input {corpus} has changed" in capsys.readouterr().err
    corpus.unlink()
    delta_of(write(tmp_path / "b.jsonl", {"d1": "the sky"}), run, out, expect=2)
    assert f"expected its input {corpus}, found no such file; put it back" in capsys.readouterr().err
    delta_of(corpus, run, out, "--outptu", "x", expect=2)
    assert "unknown flag --outptu" in capsys.readouterr().err
    run = label("--model", colours, "--input", tmp_path / "b.jsonl", "--id_field", "")
    delta_of(tmp_path / "b.jsonl", run, out, expect=2)
    assert "found one with an empty --id_field" in capsys.readouterr().err
    assert not out.exists()


def test_another_int8_variant_relabels_everything(tmp_path: Path, label: Label) -> None:
    model = tiny_model(tmp_path / "m")
    int8_variant(model)
    corpus = write(tmp_path / "old.jsonl", {str(i): TEXTS[i] for i in range(20)})
    previous = label("--model", model, "--input", corpus, "--runtime=openvino", "--precision=int8")
    assert delta_of(corpus, previous, tmp_path / "same")["counts"]["kept"] == 20
    variant = int8_variant(model, scale=1.001)
    delta_of(corpus, previous, tmp_path / "other", expect=2)
    assert delta_of(corpus, previous, tmp_path / "other", "--model", model)["counts"]["new"] == 20
    shutil.rmtree(variant)
    delta_of(corpus, previous, tmp_path / "none", expect=2)

"""Tests wrong use: one message lists every problem, the exit code is 2, and nothing is written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference import beam_runner, run
from inference.corpus import slices
from inference.runs.options import RESUME
from models.arguments import Parser
from tests.inference.conftest import without_run
from tests.tiny import tiny_model

CASES = [
    (["--forma", "parquet"], "unknown flag --forma: did you mean --format?"),
    (["--max_num_workerz", "5"], "unknown flag --max_num_workerz: did you mean --max_num_workers?"),
    (["stray"], "unexpected argument 'stray'"),
    (["--scores", "top:0"], "expected predicted, all or top:K with K from 1, found 'top:0'"),
    (["--limit", "0"], "expected a number greater than 0, found '0'"),
    (["--limit", "ten"], "expected a number greater than 0, found 'ten'"),
    (["--slice_mb", "nan"], "expected a number greater than 0, found 'nan'"),
    (["--max_failure_rate", "7"], "expected a share from 0 to 1, found '7'"),
    (["--keep_fields", "a,,b"], "expected distinct names separated by commas, found 'a,,b'"),
    (["--keep_fields", "id"], "that differ in more than case, found id, id; rename"),
    (["--keep_fields", "Id"], "that differ in more than case, found id, Id; rename"),
    (["--keep_fields", "year,YEAR"], "found year, YEAR; rename"),
    (["--keep_fields", "year,year:int"], "found year, year; rename"),
    (["--keep_fields", "year:integer"], "expected one of the types int, float, bool, found integer."),
    (["--keep_fields", "Colours"], "found Colours, colours; rename"),
    (["--device", "cuda"], "--device cuda: expected a CUDA GPU, found none"),
    (["--device", "tpu"], "--device: expected one of auto, cpu, cuda; found 'tpu'"),
    (["--max_tokens", "5000"], "reads at most 128 tokens, but 5000 were asked for"),
    (["--input", "/nowhere/*.jsonl"], "--input /nowhere/*.jsonl: expected at least one file, found none"),
    (["--model", "/nowhere/model"], "Model '/nowhere/model': expected a directory"),
    (["--streaming"], "--streaming: expected a batch job, found a streaming one"),
]


@pytest.mark.parametrize(("flags", "message"), CASES, ids=lambda value: str(value)[:30])
def test_wrong_flag(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    output = tmp_path / "out"
    required = ["--model", str(colours), "--input", str(corpus), "--output", str(output)]
    assert beam_runner.main([*required, *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert not output.exists()


def test_columns_that_bigquery_refuses_are_a_note_and_no_mistake(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out"), "--limit", "3"]
    assert beam_runner.main([*flags, "--keep_fields", "year"]) == 0
    assert "note: " not in capsys.readouterr().err
    flags += ["--overwrite", "--keep_fields", "meta.date,year,_FILE_x"]
    assert beam_runner.main(flags) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note == "note: BigQuery takes no columns named meta.date, _FILE_x; the rows can be read by everything else."
    assert beam_runner.main([*flags, "--quiet"]) == 0
    assert "note: " not in capsys.readouterr().err


def test_data_cannot_steer_the_terminal(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "red\x1b[2J\u202e.jsonl"
    corpus.write_text(json.dumps({"id": "\x1b[31m", "text": "red"}) + "\n{broken\x1b]0;title\x07}\n")
    model = tiny_model(tmp_path / "model", names=("red\x1b[2J\x9b1m", "blue\u202e"), task="multi_class")
    flags = ["--model", str(model), "--input", str(corpus), "--output", str(tmp_path / "out\x1b[1m")]
    assert beam_runner.main([*flags, "--verbose"]) == 3
    assert beam_runner.main([*flags, "--max_tokens", "9"]) == 2
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", printed)
    assert "\\x1b[2J" in printed


def test_all_problems_come_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "/nowhere/a", "--model", "/nowhere/b", "--input", "/nowhere/*.jsonl", "--device", "cuda"]
    assert beam_runner.main([*flags, "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    for part in ("/nowhere/a", "/nowhere/b", "/nowhere/*.jsonl", "--device cuda"):
        assert part in errors
    assert not (tmp_path / "out").exists()


def test_all_mistakes_in_flags_come_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    """They are reported before anything else is checked."""
    assert beam_runner.main(["--modle", "x", "--scorez", "all", "--limit", "0", "--runer", "DirectRunner"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown flag --modle: did you mean --model?",
        "error: unknown flag --scorez: did you mean --scores?",
        "error: unknown flag --runer: did you mean --runner?",
        "error: --limit: expected a number greater than 0, found '0'.",
        "error: --input, --output are required; see --help.",
    ]


def test_missing_flags_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert beam_runner.main([]) == 2
    assert "--model, --input, --output are required" in capsys.readouterr().err


def test_a_wrong_value_of_a_flag_of_beam_is_one_sentence(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "o"), "--num_workers", "many"]
    assert beam_runner.main(flags) == 2
    assert capsys.readouterr().err == (
        "error: --num_workers: invalid int value: 'many'; this is a flag of Apache Beam.\n"
    )


def test_a_damaged_model_is_named(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny import tiny_model

    model = tiny_model(tmp_path / "broken")
    with (model / "model.pth").open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    assert beam_runner.main(["--model", str(model), "--input", str(corpus), "--output", str(tmp_path / "o")]) == 2
    assert f"{model}/model.pth is not the file that was saved" in capsys.readouterr().err


def test_output_inside_the_input_is_refused(corpus: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(corpus.parent)]
    assert beam_runner.main(flags) == 2
    assert f"expected a folder without input, found the input {corpus} in it" in capsys.readouterr().err


def test_a_file_as_output_is_refused(corpus: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(colours / "model.json")]
    assert beam_runner.main(flags) == 2
    assert "expected a folder, found a file" in capsys.readouterr().err


def test_an_output_that_cannot_be_made_is_one_sentence(
    corpus: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", "/proc/nothing/out"]
    assert beam_runner.main(flags) == 2
    assert "--output /proc/nothing/out cannot be written" in capsys.readouterr().err


def test_more_failures_than_allowed_exit_3_and_keep_the_output(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with corpus.open("a") as file:
        file.write("broken\n" * 10)
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "o")]
    assert beam_runner.main(flags) == 3
    assert "3.23% of the documents failed" in capsys.readouterr().err
    assert (tmp_path / "o" / "summary.json").exists()
    assert beam_runner.main([*flags, "--max_failure_rate", "0.05"]) == 0


@pytest.mark.parametrize("parser", [beam_runner.make_parser(), run.make_parser()], ids=["beam_runner", "run"])
def test_every_flag_has_help(parser: Parser) -> None:
    text = parser.format_help()
    assert text.startswith("usage: python -m inference.")
    assert all(action.help for action in parser._actions)


def test_slices_are_small_for_small_corpora_and_for_slow_models() -> None:
    from inference.corpus.files import InputFile

    def size(count: int, suffix: str = "", most_bytes: int = slices.MAX_SLICE_BYTES) -> int:
        return slices.slice_bytes([InputFile(f"a.jsonl{suffix}", count)], most_bytes)

    assert size(1_000) == 256 * 1024
    assert size(64 * 1024 * 1024) == 1024 * 1024
    assert size(16 * 1024 * 1024, ".gz") == 1024 * 1024
    assert size(10**12) == 32 * 1024 * 1024
    assert size(10**12, most_bytes=100_000) == 100_000
    assert size(10**12, most_bytes=10) == 16 * 1024


def test_json_is_all_of_standard_output(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out"), "--json"]
    assert beam_runner.main([*flags, "--plan"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["path"] == str(corpus)
    assert beam_runner.main(flags) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert result["summary"] == {name: value for name, value in stored.items() if name != "seal"}
    assert (result["documents"], result["report"]) == (300, str(tmp_path / "out" / "report.html"))
    assert "300 lines = 300 predicted" in captured.err


def test_quiet_prints_nothing_and_verbose_names_each_slice(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus), "--slice_mb", "0.01"]
    assert beam_runner.main([*flags, "--output", str(tmp_path / "a"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert beam_runner.main([*flags, "--output", str(tmp_path / "b"), "--verbose"]) == 0
    printed = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("slice ")]
    assert printed == [
        f"slice {without_run(path.name).removesuffix('.json')}"
        for path in sorted((tmp_path / "b" / "receipts").iterdir())
    ]
    assert len(printed) > 1


def test_warnings_reach_the_terminal_after_beam_has_parsed_its_flags() -> None:
    program = (
        "import logging; from inference.corpus import storage; storage.configure(['--runner', 'DirectRunner']); "
        "logging.basicConfig(); logging.getLogger('x').warning('seen')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "WARNING:x:seen" in done.stderr


def test_ctrl_c_prints_how_to_resume(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("inference.runs.pipeline.build", interrupt)
    assert beam_runner.main(flags) == 1
    assert capsys.readouterr().err == f"\nstopped. {RESUME}\n"
    monkeypatch.undo()
    assert beam_runner.main(flags) == 0


def test_an_unexpected_error_is_printed_whole(
    corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("a mistake of the program")

    monkeypatch.setattr("inference.runs.receipts.Receipt.totals", fail)
    assert beam_runner.main(["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"failed: a mistake of the program \[while running .*\]\nZeroDivisionError\. Finished", error)
    assert "inference.beam_runner --model" in error


@pytest.mark.parametrize("joined", [True, False])
def test_a_secret_in_a_flag_is_written_and_printed_nowhere(
    corpus: Path,
    colours: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    joined: bool,
) -> None:
    secret = "hunter2"
    named = ("--s3_secret_access_key", "--s3_session_token", "--azure_connection_string")
    secrets = [part for flag in named for part in ([f"{flag}={secret}"] if joined else [flag, secret])]
    flags = ["--model", str(colours), "--input", str(corpus), "--output", str(tmp_path / "run"), *secrets]
    flags += ["--experiments", f"my_token={secret}"]
    with monkeypatch.context() as patched:
        patched.setattr("inference.runs.receipts.Receipt.totals", lambda self: 1 / 0)
        assert beam_runner.main(flags) == 1
    failed = capfd.readouterr().err
    assert "--s3_session_token" in failed
    assert "# type the values for *** again" in failed
    assert beam_runner.main([*flags, "--json"]) == 0  # the same run resumes
    printed = capfd.readouterr()
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"run.json", "report.html", "summary.json"} < files.keys()
    assert not [name for name, content in files.items() if secret.encode() in content]
    assert secret not in failed + printed.out + printed.err
    assert b"--s3_session_token" in files["report.html"]

"""Tests the scripts around a run on Dataflow. Stubs of Google's commands record their arguments."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import beam_runner
from models import names

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
QUERY = DEPLOY / "bigquery" / "corpus.sql"

Done = tuple[subprocess.CompletedProcess[str], list[list[str]]]  # the script's result, and the commands that it ran
RunScript = Callable[..., Done]

BQ = """\
import json, os, sys
with open(os.environ["LOG"], "a") as log: log.write(json.dumps(sys.argv) + "\\n")
text = sys.argv[-1]
if "COUNT(*)" in text: print("n\\n" + os.environ.get("ROWS", "3"))
elif "LEFT JOIN `" in text: print("n\\n" + os.environ.get("MISSING", "1"))
elif "LEFT JOIN (" in text: print("n\\n" + os.environ.get("UNKNOWN", "0"))
"""
GCLOUD = """\
import json, os, pathlib, sys
with open(os.environ["LOG"], "a") as log: log.write(json.dumps(sys.argv) + "\\n")
if sys.argv[2] == "ls":
    files = json.loads(os.environ["FILES"])
    print(*[f"gs://b/run/predictions/{name}" for name in files], sep="\\n")
    sys.exit(not files)
if sys.argv[2] == "cp":
    if "nowhere" in sys.argv[4]: sys.exit(1)
    for name, content in json.loads(os.environ["RUN"]).items():
        pathlib.Path(sys.argv[-1], name).write_text(json.dumps(content))
"""
RUN: dict[str, Any] = {
    "run.json": {"run": "5c8e1f2a" * 4, "options": {"format": "jsonl"}},
    "summary.json": {"run": "5c8e1f2a" * 4, "slices": 2, "predicted": 3, "failed": 1},
    "schema.json": [{"name": "id", "type": "STRING"}],
}
FILES = ["part-1.5c8e1f2a-0123456789abcdef.jsonl", "part-2.5c8e1f2a-fedcba9876543210.jsonl"]


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    for name, content in (("bq", BQ), ("gcloud", GCLOUD)):
        (tmp_path / name).write_text(f"#!{sys.executable} -IS\n{content}")
        (tmp_path / name).chmod(0o755)

    def run(script: str, *arguments: object, **environment: str) -> Done:
        log = tmp_path / "log"
        log.write_text("")
        variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "RUN": json.dumps(RUN)}
        variables |= {"FILES": json.dumps(FILES), **environment}
        command = [str(DEPLOY / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        return done, [json.loads(line) for line in log.read_text().splitlines()]

    return run


def test_the_corpus_is_exported_by_the_query(run_script: RunScript) -> None:
    done, ((_, *arguments),) = run_script("bigquery/extract_corpus.sh", QUERY, "gs://b/corpus/")
    assert (done.returncode, done.stdout) == (0, "gs://b/corpus/part-*.jsonl\n"), done.stderr
    assert "uri = 'gs://b/corpus/part-*.jsonl', format = 'JSON'" in arguments[-1]
    assert arguments[-1].endswith(QUERY.read_text().strip())


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("bigquery/extract_corpus.sh", ["only"], "expected QUERY.sql gs://BUCKET/FOLDER, found 1 arguments"),
        ("bigquery/extract_corpus.sh", ["no.sql", "gs://b/c"], "no.sql: expected a file with a query"),
        ("bigquery/extract_corpus.sh", [QUERY, "corpus"], "corpus: expected a folder such as gs://BUCKET/corpus"),
        ("bigquery/load_predictions.sh", ["gs://b/run", "table", QUERY], "table: expected PROJECT.DATASET.TABLE"),
        ("bigquery/load_predictions.sh", ["gs://b/nowhere", "p.d.t", QUERY], "is the run finished?"),
        ("flex_template/build.sh", ["host/labelbeam:latest", "gs://b/t.json"], "expected a tag that stays"),
        ("flex_template/build.sh", ["host:80/labelbeam", "gs://b/t.json"], "expected a tag that stays"),
        ("flex_template/build.sh", ["host/labelbeam:1", "t.json"], "expected a gs:// path"),
    ],
)
def test_mistakes_are_named(run_script: RunScript, script: str, arguments: list[str], sentence: str) -> None:
    done, commands = run_script(script, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not any("bq" in command[0] for command in commands)


def test_predictions_are_loaded_with_the_schema_and_ids_compared(run_script: RunScript) -> None:
    done, commands = run_script("bigquery/load_predictions.sh", "gs://b/run/", "p.d.t", QUERY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("p.d.t: 3 rows of 3 predicted; 1 ids without a row, 1 documents failed; 0 rows")
    load = next(command for command in commands if command[1] == "load")
    assert load[2:6] == [
        "--replace",
        "--source_format=NEWLINE_DELIMITED_JSON",
        "p:d.t",
        "gs://b/run/predictions/*.jsonl",
    ]
    assert load[6].endswith("schema.json")


STRANGE = {
    "of an overwritten run": [*FILES, "part-1.0badcafe-0123456789abcdef.jsonl"],
    "of another attempt": [*FILES, "part-1.5c8e1f2a-00000000deadbeef.jsonl"],
    "of another run in place of its own": [FILES[0], "part-2.0badcafe-fedcba9876543210.jsonl"],
    "of nobody": [*FILES, "thesis.jsonl"],
    "missing": FILES[:1],
    "none at all": [],
}


@pytest.mark.parametrize("kind", STRANGE)
def test_only_the_files_of_the_run_are_loaded(run_script: RunScript, kind: str) -> None:
    files = json.dumps(STRANGE[kind])
    done, commands = run_script("bigquery/load_predictions.sh", "gs://b/run", "p.d.t", QUERY, FILES=files)
    assert done.returncode == 2
    own = sum(".5c8e1f2a-" in name for name in STRANGE[kind])
    assert done.stderr == (
        "error: gs://b/run/predictions: expected 2 files of this run and no others, found "
        f"{own} of {len(STRANGE[kind])}; `labelbeam verify gs://b/run` names those at fault\n"
    )
    assert not any(command[1] in ("load", "query") for command in commands)


def test_a_summary_of_another_run_is_refused(run_script: RunScript) -> None:
    content = RUN | {"summary.json": {**RUN["summary.json"], "run": "0badcafe" * 4}}
    done, commands = run_script("bigquery/load_predictions.sh", "gs://b/run", "p.d.t", QUERY, RUN=json.dumps(content))
    assert done.returncode == 2
    assert done.stderr == "error: gs://b/run has a summary.json of another run: finish this one first\n"
    assert not any(command[1] in ("load", "query") for command in commands)


@pytest.mark.parametrize("column", ["Veröffentlicht am", "発行-日", "2024", "हिन्दी", "a" * 300, "_table"])
def test_columns_that_bigquery_takes_are_loaded(run_script: RunScript, column: str) -> None:
    assert names.refused_by_bigquery([column]) == []
    content = RUN | {"schema.json": [*RUN["schema.json"], {"name": column, "type": "JSON"}]}
    done, commands = run_script("bigquery/load_predictions.sh", "gs://b/run", "p.d.t", QUERY, RUN=json.dumps(content))
    assert done.returncode == 0, done.stderr
    assert any(command[1] == "load" for command in commands)


@pytest.mark.parametrize("column", ["meta.date", "a/b", "🙂", "_FILE_x", "_Partition", "a" * 301, ""])
def test_columns_that_bigquery_refuses_are_named_before_anything_is_loaded(run_script: RunScript, column: str) -> None:
    assert names.refused_by_bigquery([column]) == [column]
    content = RUN | {"schema.json": [*RUN["schema.json"], {"name": column, "type": "JSON"}]}
    done, commands = run_script("bigquery/load_predictions.sh", "gs://b/run", "p.d.t", QUERY, RUN=json.dumps(content))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: gs://b/run has columns that BigQuery refuses, {column!r}: label again with other --keep_fields\n"
    )
    assert not any(command[1] in ("load", "query") for command in commands)


@pytest.mark.parametrize("wrong", [{"ROWS": "2"}, {"MISSING": "2"}, {"UNKNOWN": "1"}])
def test_ids_that_differ_fail(run_script: RunScript, wrong: dict[str, str]) -> None:
    done, _ = run_script("bigquery/load_predictions.sh", "gs://b/run", "p.d.t", QUERY, **wrong)
    assert done.returncode == 1
    assert "failed: ids in and ids out differ" in done.stderr


def test_a_template_is_built_from_an_image(run_script: RunScript) -> None:
    done, ((_, *arguments),) = run_script("flex_template/build.sh", "host/p/labelbeam:1", "gs://b/t.json")
    assert done.returncode == 0, done.stderr
    assert arguments[:3] == ["dataflow", "flex-template", "build"]
    assert arguments[arguments.index("--image") + 1] == "host/p/labelbeam:1"


def test_every_flag_is_a_parameter_of_the_template() -> None:
    parameters = json.loads((DEPLOY / "flex_template" / "metadata.json").read_text())["parameters"]
    flags = {
        flag.removeprefix("--"): action for flag, action in beam_runner.make_parser()._option_string_actions.items()
    }
    # A template passes a value with every parameter, so flags without a value cannot be parameters.
    without_value = {"-h", "help", "overwrite", "plan", "no_wait", "redact_failures", "allow_damaged_files"}
    without_value |= {"quiet", "verbose", "json"}
    files_here = {"profile", "prices"}  # files on the machine where the command is typed
    # The launcher does not wait for the job, so it cannot submit a failed one again.
    excluded = {*without_value, *files_here, "resubmit"}
    assert {p["name"] for p in parameters} == flags.keys() - excluded | {"sdk_container_image"}
    for parameter in parameters:
        if parameter["name"] in flags:
            assert parameter.get("isOptional", False) is not flags[parameter["name"]].required


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_airflow_loads_the_dag(tmp_path: Path) -> None:
    """Use an environment of its own, because the requirements of Airflow and Beam differ."""
    python = tmp_path / "airflow" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "airflow"], check=True)
    packages = ["apache-airflow>=3,<4", "apache-airflow-providers-standard"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from labelbeam_monthly import dag; import json; "
        "from types import SimpleNamespace as N; command = dag.get_task('label').bash_command; "
        "values = N(**{f'labelbeam_{n}': n for n in sys.argv[2:]} | {'labelbeam_models': '/models/a /models/b'}); "
        "print(dag.get_template_env().from_string(command).render(var=N(value=values), ds_nodash='20261101')); "
        "print(json.dumps({t.task_id: sorted(t.downstream_task_ids) for t in dag.topological_sort()}))"
    )
    variables = ["clone", "bucket", "project", "region", "image", "max_cost"]
    command = [str(python), "-W", "ignore", "-c", script, str(DEPLOY / "airflow"), *variables]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "--model /models/a --model /models/b --max_cost max_cost" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "extract": ["label"],
        "label": ["load_and_check"],
        "load_and_check": [],
    }


@pytest.mark.parametrize(
    ("script", "output", "first"),
    [
        ("test-directrunner", "runs/x", "-m inference.beam_runner --runner DirectRunner --limit 100"),
        (
            "test-dataflow",
            "gs://b/x",
            "-m inference.beam_runner --runner DataflowRunner --limit 100 --num_workers 1 --max_num_workers 1",
        ),
    ],
)
def test_a_trial_labels_a_hundred_lines_and_verifies_them(tmp_path: Path, script: str, output: str, first: str) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*"\n')
    python.chmod(0o755)
    environment = {**os.environ, "LABELBEAM_PYTHON": str(python)}
    flags = ["--model", "m", "--input", "*.jsonl", "--output", output]
    done = subprocess.run([DEPLOY / script, *flags], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [f"{first} {' '.join(flags)}", f"-m inference.verify {output}"]
    done = subprocess.run([DEPLOY / script, *flags[:4]], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected --output" in done.stderr

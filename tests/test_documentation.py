"""What the documentation says is so: commands parse, figures are those measured, the site builds, tutorials work."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pandas
import pytest
from apache_beam.io.filesystems import FileSystems
from packaging.requirements import Requirement

import labelbeam
from docs import code_tables, generate
from inference import beam_runner
from inference.corpus import storage
from inference.corpus.records import Failure, Reason
from inference.flags import BeamParser, known_to_beam
from inference.runs import own_files, run_folder, summary
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring.options import ScoringOptions
from models.errors import UserError
from tests.pages import in_browser, needs_browser
from tests.tiny import tiny_model
from training import data
from training.config import TrainConfig
from training.config_file import parse_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md")), *ROOT.glob("deploy/**/README*")]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r'^ *```(\w*)(?: title="([^"]+)")?\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
SUBMIT = r"submit\.sh(?: --[\w-]+(?:[ =]\S+)?)*"
MODULE = re.compile(rf"(?:-m|job\.sbatch|job\.sh|{SUBMIT}) +((?:training|inference)\.\w+)(.*)")
FRONT_DOOR = re.compile(r"(?<![\w./-])labelbeam +([a-z]\w*)(.*)")
OTHER_HOST = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")

needs_mkdocs = pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed")


@dataclass(frozen=True)
class Block:
    """A fenced block: code, or a console with commands after `$` and what they print."""

    language: str
    title: str
    content: str

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command of a console, in one line, with the lines it prints."""
        found: list[tuple[str, list[str]]] = []
        for line in self.content.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def code(page: Path) -> Iterator[str]:
    """Every line of code on a page: of blocks, without what a console prints, and inside of sentences."""
    for block in blocks(page):
        lines = [c for c, _ in block.commands()] if block.language == "console" else None
        yield from block.content.replace("\\\n", " ").splitlines() if lines is None else lines
    yield from re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))


def command_in(line: str) -> tuple[str, list[str]] | None:
    """The module and the arguments of the command in a line of code; `labelbeam X` itself if there is no command X."""
    if found := MODULE.search(line):
        return found[1], arguments(found[2])
    if found := FRONT_DOOR.search(line):
        module, _ = labelbeam.COMMANDS.get(found[1], (f"labelbeam {found[1]}", ""))
        return module, arguments(found[2])
    return None


def arguments(rest: str) -> list[str]:
    """The words of a command, up to a pipe, a redirection or the next command; brackets mark what is optional."""
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("();<>|&"):
            break
        found.append(word.removeprefix("[").removesuffix("]"))
    return found


def wrong_with(line: str) -> list[str]:
    """What the parser of the command in a line of code says; nothing if there is no command."""
    found = command_in(line)
    if found is None:
        return []
    module, argv = found
    if module.startswith("labelbeam "):
        return [f"unknown command {module}"]
    parser = code_tables.parser_of(module)
    if not argv or "..." in argv:  # the command is only mentioned
        flags = {option for action in parser._actions for option in action.option_strings}
        flags |= known_to_beam().keys() if isinstance(parser, BeamParser) else set()
        return [f"unknown flag {word}" for word in argv if word.startswith("--") and word.split("=")[0] not in flags]
    try:
        if isinstance(parser, BeamParser):
            storage.configure(parser.parse_with_beam(argv)[1])
        else:
            parser.parse_args(argv)
    except UserError as error:
        return [str(error)]
    except SystemExit as ended:
        return ["wrong use"] if ended.code else []
    return []


@pytest.fixture(autouse=True)
def beams_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing sets them for the whole process."""
    monkeypatch.setattr(FileSystems, "set_options", lambda _: None)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_is_one_that_its_parser_takes(page: Path) -> None:
    assert not {line: problems for line in code(page) if (problems := wrong_with(line))}


WRONG = [
    "labelbeam label --model M --input I --output O --outptu x",
    "python -m inference.beam_runner --model M --input I --output O --scores best",
    "deploy/slurm/job.sbatch training.train my.toml",
    "deploy/slurm/submit.sh --image x.sqsh --gpus 1 training.train my.toml --outptu x",
    "labelbeam labl --model M --input I --output O",
    "python -m training.demo_corpus --out x",
    "labelbeam run --modle ...",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    assert wrong_with(line)


@pytest.mark.parametrize("line", ["labelbeam label", "docker push x/labelbeam/labelbeam:1", "cd labelbeam && make"])
def test_what_is_no_command_line_is_not_parsed(line: str) -> None:
    assert not wrong_with(line)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_prose_is_wrapped_at_100_columns(page: Path) -> None:
    prose = re.sub(r"\]\([^)]*\)|<!-- .*? -->", "", BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert not [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")]


def test_every_folder_of_the_map_exists() -> None:
    (listed,) = (b for b in blocks(ROOT / "README.md") if b.content.startswith("models/ "))
    names = [line.split()[0] for line in listed.content.splitlines()]
    assert len(names) > 5
    assert not [name for name in names if not (ROOT / name).exists()]


def test_generated_text_is_up_to_date() -> None:
    changed = [str(path.relative_to(ROOT)) for path, _ in generate.stale()]
    assert not changed, "run make reference"


FIGURES = [
    ("in all 130", "133", "in all 133"),
    ("| (1,024.5", "2.5", "| (2.5"),
    ("about 99.1 %", "99.97%", "about 99.97%"),
    ("| 0.5 (0.4 to 0.6)", "0.525 (0.499 to 0.546)", "| 0.525 (0.499 to 0.546)"),
    ("is 0.525 (0.499\nto 0.546)", "0.525 (0.499 to 0.546)", "is 0.525 (0.499\nto 0.546)"),
    ("| ?", "1,000", "| 1,000"),
    ("it takes ", "7", "it takes 7"),
]


@pytest.mark.parametrize(("text", "value", "expected"), FIGURES)
def test_a_figure_replaces_what_has_its_shape(text: str, value: str, expected: str) -> None:
    assert generate.with_figure(text, value) == expected


WRONG_MARKS = [
    ("1<!-- = papers.our -->", "unknown name papers.our: did you mean papers.ours"),
    ("<!-- generated: flag -->\n<!-- end of flag -->\n", "unknown name flag: did you mean flags"),
    ("<!-- generated: flags -->\n", "expected <!-- end of NAME -->"),
    ("<!-- generated: flags -->\n<!-- end of schema -->\n", "expected <!-- end of NAME -->"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_MARKS)
def test_a_wrong_mark_is_named(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^page.md: {message}"):
        generate.filled(content, "page.md")


def test_every_command_is_in_the_reference() -> None:
    modules = [*ROOT.glob("training/*.py"), *ROOT.glob("inference/*.py")]
    commands = {f"{m.parent.name}.{m.stem}" for m in modules if "__main__" in m.read_text(encoding="utf-8")}
    assert commands == set(code_tables.COMMANDS.values())


def rows(part: str) -> dict[str, str]:
    """First cell: last cell, of every row of the tables in a part of the reference."""
    lines = [line for line in generate.part(part, "reference").splitlines() if line.startswith("| `")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return {row[0].strip("`"): row[-1].strip(" |") for row in cells}


@pytest.mark.parametrize("part", ["flags", "configuration", "receipt", "model"])
def test_the_reference_says_something_of_every_flag_and_key(part: str) -> None:
    found = rows(part)
    assert found
    assert not [name for name, meaning in found.items() if not meaning]


def test_the_reference_names_every_flag_and_key() -> None:
    flags = generate.part("flags", "reference")
    options = {o for a in code_tables.parser_of("inference.beam_runner")._actions for o in a.option_strings}
    assert not [option for option in options - {"-h", "--help"} if f"| `{option}" not in flags]
    config = generate.part("configuration", "reference")
    assert not [key for key in keys(TrainConfig) if f"| `{key}` |" not in config]


def test_every_requirement_is_explained() -> None:
    lists = ("REQUIREMENTS", "OPENVINO", "ONNXRUNTIME", "TOOLS")
    requirements = [
        Requirement(str(text.value)).name
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in lists
        for text in ast.walk(node.value)
        if isinstance(text, ast.Constant)
    ]
    assert len(requirements) > 30
    explained = re.findall(
        r"`([\w.-]+)(?:\[\w+\])?`", (DOCS / "reference" / "dependencies.md").read_text(encoding="utf-8")
    )
    assert not set(requirements) - set(explained)


def keys(model: type, prefix: str = "") -> Iterator[str]:
    for name in model.model_fields:  # type: ignore[attr-defined]
        inner = dict(code_tables.sections(model)).get(name)
        yield from keys(inner, f"{prefix}{name}.") if inner else [prefix + name]


def test_the_files_are_described_as_they_are_written() -> None:
    text = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    run = run_folder.describe(RunOptions("out", 1, ScoringOptions(("m",))), [], ["0"], "command")
    zeros: dict[str, Any] = dict.fromkeys((field.name for field in fields(Receipt)), 0)
    receipt = Receipt(**{**zeros, "weights": {}})
    totals = summary.summarise(receipt.totals(), 1, 0)
    failure = Failure(1, None, "not_json", "d", "raw").row()
    assert not [name for name in (*run, *run["options"], *totals, *failure) if f"`{name}`" not in text]
    assert not [name for name in (*own_files.FILES, *own_files.FOLDERS) if name not in text]


def test_every_reason_of_failures_is_explained() -> None:
    text = (DOCS / "howto" / "failures.md").read_text(encoding="utf-8")
    reasons = [reason for group in get_args(Reason) for reason in get_args(group)]
    assert {"not_json", "no_text", "damaged_file", "line_too_long", "model_failed", "process_ended"} <= {*reasons}
    assert not [reason for reason in reasons if f"| `{reason}` |" not in text]


def test_every_shape_of_labelled_data_is_read(tmp_path: Path) -> None:
    page = blocks(DOCS / "howto" / "own_labels.md")
    for block in page:
        if block.title:
            (tmp_path / block.title).write_text(block.content, encoding="utf-8")
    read = 0
    for block in page:
        if block.language == "toml":
            content = tomllib.loads(block.content) | {"model": {"base": "any"}}
            config = parse_config(content, source="own_labels.md")
            if not config.data.dataset:
                examples = data.read(config, "train", tmp_path, data.schema_in(config, tmp_path))
                assert examples is not None
                assert len(examples) == 2
                assert examples.skipped.keys() <= {"joined_with_its_text"}
                read += 1
    assert read == 9


def test_the_python_of_the_notebooks_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "howto" / "python.md"
    names = ("AI", "CV", "NLP")
    tiny_model(tmp_path / "models/trained/subjects", names=names)
    (tmp_path / "corpus").mkdir()
    texts = ["red sky", "green grass", "blue rose", "the sky is blue", ""]
    papers = [{"id": f"2503.1{i}", "text": text, "date": f"{2020 + i % 2}-05-01"} for i, text in enumerate(texts)]
    (tmp_path / "corpus/papers.jsonl").write_text("".join(json.dumps(paper) + "\n" for paper in papers))
    monkeypatch.chdir(tmp_path)
    (command,) = (found for line in code(page) if (found := command_in(line)) and "runs/papers" in found[1])
    assert command[0] == "inference.beam_runner"
    assert beam_runner.main([*command[1], "--max_failure_rate", "1", "--quiet"]) == 0
    seen: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(block.content, seen)
    assert seen["predictions"].columns.tolist() == ["id", "subjects_labels", "subjects_scores"]
    assert seen["failures"]["reason"].tolist() == ["empty_text"]
    assert seen["papers"]["id"].tolist() == [paper["id"] for paper in papers[:-1]]
    expected: Counter[tuple[int, str]] = Counter()
    for labels, paper in zip(seen["predictions"]["subjects_labels"], papers, strict=False):
        expected.update((int(paper["date"][:4]), label) for label in labels)
    assert expected
    assert seen["per_year"].to_dict() == expected
    assert isinstance(seen["unsure"], pandas.DataFrame)
    assert len(seen["unsure"]) == 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@needs_mkdocs
def test_the_site_asks_no_other_host(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) >= 20
    assert not [found for page in pages for found in OTHER_HOST.findall(page)]
    assert not [path for path in site.rglob("*.css") if re.search(r"url\([\"']?(?:https?:)?//", path.read_text())]


@needs_mkdocs
@needs_browser
@pytest.mark.parametrize("page", ["index.html", "how_it_works.html", "reference/flags.html"])
def test_a_browser_has_nothing_to_complain_of(site: Path, page: str) -> None:
    assert "labelbeam" in in_browser(site / page)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of a page, with this interpreter as `python`, in a folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "150"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


PROMISED = (" lines = ", "is accounted for", "in both runs", "1600 documents", "not_json", "'graphs': 200")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_works(tmp_path: Path) -> None:
    kept = 0
    for block in blocks(DOCS / "tutorial.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.content, encoding="utf-8")
        for command, printed in block.commands() if block.language == "console" else ():
            done = run(command, tmp_path)
            allowed = (0, 137, -9) if command.startswith("timeout") else (0,)  # a quick machine is not killed in time
            assert done.returncode in allowed, done.stdout + done.stderr
            for line in printed:
                if any(word in line for word in PROMISED):
                    assert line.partition(": ...")[0] in done.stdout, command
                    kept += 1
    assert kept >= len(PROMISED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_of_readme_and_reference_work_after_the_demo(tmp_path: Path) -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "--old-file=.venv/installed", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    steps = [line for line in recipe.replace("\\\n", " ").splitlines() if command_in(line)]
    modules = [command_in(step)[0] for step in steps]  # type: ignore[index]
    assert modules == ["training.demo_corpus", "training.train", "inference.beam_runner"]
    for step in steps[:2]:
        done = run(step.replace(".venv/bin/", "").replace("training/configs", f"{ROOT}/training/configs"), tmp_path)
        assert done.returncode == 0, done.stderr
    names = {"RUN_A": "runs/demo", "RUN_B": "runs/demo", "RUN": "runs/demo", "DIR": "models/trained/demo"}
    names |= {"'corpus/*.jsonl.gz'": "data/demo/corpus.jsonl", "models/trained/my_labels": "models/trained/demo"}
    names |= {"some.jsonl": "data/demo/test.jsonl"}
    pages = [ROOT / "README.md", *(DOCS / name for name in ("reference/files.md", "performance.md", "howto/python.md"))]
    said = dict.fromkeys(line for page in pages for line in code(page) if "..." not in line)
    ran = set()
    for line in sorted(said, key=lambda line: "labelbeam label" not in line):
        module, argv = command_in(line) or ("", [])
        if module.startswith("inference.") and argv and "subjects" not in line:
            for name, value in names.items():
                line = re.sub(rf"(?<![\w/-]){re.escape(name)}(?!\w)", value, line)
            done = run(line, tmp_path)
            assert done.returncode == 0, line + done.stderr
            ran.add(module.removeprefix("inference."))
    assert ran == {"beam_runner", "doctor", "report", "verify", "compare", "estimate_cost", "run"}


def test_what_has_run_where_was_seen_by_tests_that_exist() -> None:
    for record in json.loads((ROOT / "docs" / "engines.json").read_text()):
        path, _, test = record["command"].removeprefix("pytest ").partition("::")
        source = (ROOT / path).read_text()
        assert f"def {test.partition('[')[0]}(" in source, record
        assert f'"{record["shown"]}"' in source, record
        assert not record["commit"].endswith("-changed"), f"{record['command']}: record it on a clean tree"

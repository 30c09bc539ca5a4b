"""What the documentation says is so: commands parse, links lead somewhere, the site builds, the tutorial works."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import pytest
from apache_beam.io.filesystems import FileSystems

from docs import reference_tables
from inference.corpus import storage
from inference.corpus.records import Failure, Reason
from inference.flags import BeamParser
from inference.runs import run_folder, summary
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring.options import ScoringOptions
from models.errors import UserError
from tests.pages import in_browser, needs_browser
from training import data
from training.config import TrainConfig, parse_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *ROOT.glob("deploy/**/README*")]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r'^ *```(\w*)(?: title="([^"]+)")?\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:-m|job\.sbatch|job\.sh) +((?:training|inference)\.\w+)(.*)")
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


def arguments(rest: str) -> list[str]:
    """The words of a command, up to a pipe, a redirection or the next command."""
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("();<>|&"):
            break
        found.append(word)
    return found


def wrong_with(module: str, argv: list[str]) -> list[str]:
    """What the command's own parser says."""
    parser = reference_tables.parser_of(module)
    if not argv or "..." in argv:  # the command is only mentioned
        flags = {option for action in parser._actions for option in action.option_strings}
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
    found = [(line, match) for line in code(page) if (match := COMMAND.search(line))]
    wrong = {line: wrong_with(match[1], arguments(match[2])) for line, match in found}
    assert not {line: problems for line, problems in wrong.items() if problems}


def test_a_wrong_command_would_be_noticed() -> None:
    assert wrong_with("inference.beam_runner", ["--model", "M", "--input", "I", "--output", "O", "--outptu", "x"])
    assert wrong_with("inference.beam_runner", ["--model", "M", "--input", "I", "--output", "O", "--scores", "best"])
    assert wrong_with("training.train", ["my.toml"])
    assert wrong_with("training.demo_corpus", ["--out", "x"])
    assert wrong_with("inference.run", ["--modle", "..."])


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_every_folder_of_the_map_exists() -> None:
    (listed,) = (b for b in blocks(ROOT / "README.md") if b.content.startswith("models/ "))
    names = [line.split()[0] for line in listed.content.splitlines()]
    assert len(names) > 5
    assert not [name for name in names if not (ROOT / name).exists()]


def test_every_command_is_in_the_reference() -> None:
    modules = [*ROOT.glob("training/*.py"), *ROOT.glob("inference/*.py")]
    commands = {f"{m.parent.name}.{m.stem}" for m in modules if "__main__" in m.read_text(encoding="utf-8")}
    assert commands == set(reference_tables.COMMANDS)


def rows(lines: Iterable[str]) -> dict[str, str]:
    """First cell: last cell, of every row of the tables that the reference makes."""
    cells = [line.strip("| ").split(" | ") for text in lines for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[-1].strip(" |") for row in cells}


def test_the_reference_says_something_of_every_flag_and_key() -> None:
    for part in ("flags", "configuration", "receipt", "model"):
        found = rows(reference_tables.PARTS[part]())
        silent = [name for name, meaning in found.items() if not meaning and name != "lines"]
        assert found
        assert not silent, part


def keys(model: type, prefix: str = "") -> Iterator[str]:
    for name in model.model_fields:  # type: ignore[attr-defined]
        inner = dict(reference_tables.sections(model)).get(name)
        yield from keys(inner, f"{prefix}{name}.") if inner else [prefix + name]


def test_the_files_are_described_as_they_are_written() -> None:
    text = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    run = run_folder.describe(RunOptions("out", 1, ScoringOptions(("m",))), [], ["0"], "command")
    receipt = Receipt(**dict.fromkeys((field.name for field in fields(Receipt)), 0))  # type: ignore[arg-type]
    totals = summary.summarise(receipt.totals(), 1, 0)
    failure = Failure(1, None, "r", "d", "raw").row("file")
    assert not [name for name in (*run, *run["options"], *totals, *failure) if f"`{name}`" not in text]
    assert not [name for name in run_folder.CONTENTS if name not in text]


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
                examples = data.read(config, "train", tmp_path, config.labels.schema_in(tmp_path))
                assert examples is not None
                assert len(examples) == 2
                assert not examples.skipped
                read += 1
    assert read == 6


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
def test_the_reference_names_every_flag_and_key(site: Path) -> None:
    flags = (site / "reference" / "flags.html").read_text(encoding="utf-8")
    options = {o for a in reference_tables.parser_of("inference.beam_runner")._actions for o in a.option_strings}
    assert not [option for option in options - {"-h", "--help"} if f"<code>{option}" not in flags]
    config = (site / "reference" / "config.html").read_text(encoding="utf-8")
    assert not [key for key in keys(TrainConfig) if f"<code>{key}</code>" not in config]


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
def test_the_readmes_commands_work_after_the_demo(tmp_path: Path) -> None:
    recipe = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    steps = [line for line in recipe.replace("\\\n", " ").splitlines() if COMMAND.search(line)]
    assert [COMMAND.search(step)[1] for step in steps] == [  # type: ignore[index]
        "training.demo_corpus",
        "training.train",
        "inference.beam_runner",
    ]
    for step in steps[:2]:
        done = run(step.replace(".venv/bin/", "").replace("training/configs", f"{ROOT}/training/configs"), tmp_path)
        assert done.returncode == 0, done.stderr
    said = dict.fromkeys(line for line in code(ROOT / "README.md") if COMMAND.search(line))
    names = {"RUN_A": "runs/demo", "RUN_B": "runs/demo", "RUN": "runs/demo", "DIR": "models/trained/demo"}
    names |= {"GLOB": "data/demo/corpus.jsonl", "models/trained/my_labels": "models/trained/demo"}
    names |= {"some.jsonl": "data/demo/test.jsonl"}
    ran = set()
    for line in sorted(said, key=lambda line: "beam_runner" not in line):
        module = COMMAND.search(line)[1]  # type: ignore[index]
        on_the_demo = "my_labels.toml" not in line and "corpus/*" not in line and "..." not in line
        if module.startswith("inference.") and on_the_demo and arguments(COMMAND.search(line)[2]):  # type: ignore[index]
            for name, value in names.items():
                line = re.sub(rf"(?<![\w/-]){name}\b", value, line)
            done = run(line.replace(".venv/bin/", ""), tmp_path)
            assert done.returncode == 0, line + done.stderr
            ran.add(module.removeprefix("inference."))
    assert ran == {"beam_runner", "report", "verify", "compare", "doctor", "estimate_cost", "run"}

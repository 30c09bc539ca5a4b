"""Fills the reference from the code while MkDocs builds the site: flags, configuration keys, fields of files.

A page holds a comment such as `<!-- from the code: flags -->` where tables go. Links that lead out of docs/ become
plain text on the site, which has no copy of the rest of the project.
"""

import argparse
import ast
import inspect
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from inference.corpus.records import bigquery_schema, predictions_schema
from inference.runs.receipts import Receipt
from models.trained_model import Manifest
from training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    *(f"training.{name}" for name in ("prepare", "train", "sweep", "evaluate", "to_state_dict", "demo_corpus")),
    *(f"inference.{name}" for name in ("beam_runner", "run", "report", "verify", "compare", "delta")),
    *(f"inference.{name}" for name in ("estimate_cost", "optimize", "container", "doctor", "probe")),
)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # relative, and no picture
TYPES = {
    r" \| None": "",
    r"dict\[.*\]": "table",
    r"Strings|tuple\[str, \.\.\.\]": "strings",
    r"^(str|Path|Task)\b": "string",
    r"^int": "integer",
    r"^bool": "boolean",
    r" \| ": " or ",
}
Cells = Iterable[str]


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser that a command uses."""
    module = import_module(command)
    parser: argparse.ArgumentParser = module.make_parser()
    return parser


def flags() -> Iterator[str]:
    """Every command: what it says of itself, and a table for each group of its flags."""
    for command in COMMANDS:
        parser = parser_of(command)
        said = [inspect.cleandoc(text or "") for text in (parser.description, parser.epilog)]
        as_code = [re.sub(r"(?m)^ *(?=python -m)", "    ", text.replace("example:", "Example:\n")) for text in said]
        yield from (f"\n## {command}\n", as_code[0], "", *_groups(parser), as_code[1])


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if len(actions) == 1 and isinstance(actions[0], argparse._SubParsersAction):
            for name, subparser in actions[0].choices.items():
                yield from (f"\n### {name}\n\n{subparser.description}\n", *_groups(subparser))
        elif actions:
            title = {"positional arguments": "argument", "options": "flag"}.get(str(group.title), str(group.title))
            yield from table((title, "meaning"), map(_flag, actions))


def _flag(action: argparse.Action) -> Cells:
    value = "" if action.nargs == 0 else str(action.metavar or "|".join(action.choices or [action.dest.upper()]))
    required = "required; " if action.required and action.option_strings else ""
    return f"`{' '.join([*action.option_strings, value]).strip()}`", required + cell(action.help or "")


def config_keys() -> Iterator[str]:
    """A table for each section of the training configuration."""
    for name, model in sections(TrainConfig):
        yield f"\n## {name}\n\n{inspect.cleandoc(model.__doc__ or '')}\n"
        yield from table(("key", "type", "default", "meaning"), _keys(model, f"{name}."))


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The keys of a model that hold a model themselves."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel):
                yield name, kind


def _keys(model: type[BaseModel], prefix: str) -> Iterator[Cells]:
    inner = dict(sections(model))
    for name, (kind, meaning) in fields(model).items():
        if name in inner:
            yield f"`{prefix}{name}`", "table", "", cell(inspect.cleandoc(inner[name].__doc__ or ""))
            yield from _keys(inner[name], f"{prefix}{name}.")
            continue
        field = model.model_fields[name]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else "" if default in (None, (), {}) else f"`{json.dumps(default)}`"
        if get_origin(field.annotation) is Literal:
            kind = ", ".join(f"`{json.dumps(value)}`" for value in get_args(field.annotation))
        for pattern, word in TYPES.items():
            kind = re.sub(pattern, word, kind)
        yield f"`{prefix}{name}`", kind, shown, cell(meaning)


def fields(kind: type) -> dict[str, tuple[str, str]]:
    """Return type and meaning of each field of a class, those that it inherits first."""
    ours = [
        base for base in reversed(kind.__mro__) if base.__module__.split(".")[0] in ("models", "training", "inference")
    ]
    return {name: said for base in ours for name, said in _own_fields(base).items()}


def _own_fields(kind: type) -> dict[str, tuple[str, str]]:
    """Return what the comment at the end of each field's line says, or the comments right above it."""
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    beside = {t.start[0]: t.string[2:] for t in tokens if t.line.lstrip() != t.line[t.start[1] :]}
    alone = {t.start[0]: t.string[2:] for t in tokens if t.start[0] not in beside}
    meanings = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign):
            above = [alone[n] for n in range(1, node.lineno) if all(m in alone for m in range(n, node.lineno))]
            meaning = beside.get(node.end_lineno or 0) or " ".join(above)
            meanings[ast.unparse(node.target)] = (ast.unparse(node.annotation), meaning)
    return meanings


def fields_table(kind: type) -> Iterator[str]:
    """A table with a row for each field of a class."""
    return table(("key", "meaning"), ((f"`{name}`", cell(meaning)) for name, (_, meaning) in fields(kind).items()))


def schema() -> Iterator[str]:
    """`schema.json` of a run with one model and one kept field."""
    columns = bigquery_schema(predictions_schema(["date"], ["subjects"]), ["date"], "jsonl")
    yield "```json\n[" + ",\n ".join(map(json.dumps, columns)) + "]\n```"


def table(head: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    """The lines of a Markdown table."""
    titles = list(head)
    yield f"\n| {' | '.join(titles)} |\n|{'-|' * len(titles)}"
    yield from (f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows)
    yield ""


def cell(said: str) -> str:
    """Help as a cell: one line, with flags and patterns as code."""
    return re.sub(r"(?<![\w`])(--[a-z_]+=?|[\w.]+\*)", r"`\1`", " ".join(said.split()))


def measured() -> Iterator[str]:
    """benchmarks/README.md, without its title."""
    yield (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").partition("\n")[2]


PARTS = {
    "flags": flags,
    "configuration": config_keys,
    "receipt": lambda: fields_table(Receipt),
    "model": lambda: fields_table(Manifest),
    "schema": schema,
    "measured": measured,
}


def filled(markdown: str) -> str:
    """A page with what the code says in the places of its comments."""
    return re.sub(r"<!-- from the code: (\w+) -->", lambda found: "\n".join(PARTS[found[1]]()), markdown)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """What MkDocs calls for every page."""
    docs, folder = Path(config["docs_dir"]), Path(page.file.abs_src_path).parent
    return LINK.sub(
        lambda found: found[0] if (folder / found[2]).resolve().is_relative_to(docs) else found[1], filled(markdown)
    )

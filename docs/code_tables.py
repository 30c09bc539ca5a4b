"""Describes the code in Markdown: the flags of the commands, the keys of a configuration, the fields of files.

A flag's help and the comment beside a key or a field are the only source of what the pages say about them.
"""

import argparse
import ast
import inspect
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

import labelbeam
from inference.audits.audit_folder import Audit
from inference.corpus.records import bigquery_schema, predictions_schema
from inference.runs.lineage import Delta
from inference.runs.receipts import Receipt, SliceTotals
from models.trained_model import Manifest
from training.checks import CHECKS
from training.config import TrainConfig

OTHERS = ("training.demo_corpus", "inference.probe")  # commands that the front door does not list
COMMANDS = {f"labelbeam {name}": module for name, (module, _) in labelbeam.COMMANDS.items()}
COMMANDS |= {f"python -m {module}": module for module in OTHERS}

TYPES = {
    r" \| None": "",
    r"dict\[.*\]": "table",
    r"Strings|tuple\[str, \.\.\.\]": "strings",
    r"^(str|Path|Task)\b": "string",
    r"^int": "integer",
    r"^bool": "boolean",
    r" \| ": " or ",
}
# Lines that begin with a command, and those that continue one after a backslash.
EXAMPLE = re.compile(r"^ *(?:python -m|labelbeam) .*(?:(?<=\\)\n.*|\n *(?:python -m|labelbeam) .*)*", re.MULTILINE)
Cells = Iterable[str]


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command's module."""
    parser: argparse.ArgumentParser = import_module(module).make_parser()
    return parser


def flags() -> Iterator[str]:
    """Yield, for every command, what it says about itself and a table for each group of its flags."""
    for command, module in COMMANDS.items():
        parser = parser_of(module)
        yield f"## {command}\n"
        yield markdown_of(parser.description)
        yield from _groups(parser)
        if parser.epilog:
            yield f"{markdown_of(parser.epilog)}\n"


def markdown_of(description: str | None) -> str:
    """Return a command's description, wrapped, with its examples as blocks of code."""
    text = inspect.cleandoc(description or "")
    for command, module in COMMANDS.items():
        text = text.replace(f"python -m {module} ", f"{command} ").replace(f"python -m {module}`", f"{command}`")
    blocks = EXAMPLE.sub(lambda found: f"\n\n```\n{textwrap.dedent(found[0])}\n```\n\n", text)
    parts = re.split(r"(^```.*?^```$)", blocks, flags=re.MULTILINE | re.DOTALL)
    return "\n\n".join(part if part.startswith("```") else _wrapped(part) for part in parts if part.strip())


def _wrapped(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", cell(text, keep_lines=True).strip())
    return "\n\n".join(textwrap.fill(paragraph, 100, break_on_hyphens=False) for paragraph in paragraphs)


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if len(actions) == 1 and isinstance(actions[0], argparse._SubParsersAction):
            for name, subparser in actions[0].choices.items():
                yield f"\n### {name}\n\n{markdown_of(subparser.description)}"
                yield from _groups(subparser)
        elif actions:
            title = {"positional arguments": "argument", "options": "flag"}.get(str(group.title), str(group.title))
            yield from table((title, "meaning"), map(_flag, actions))


def _flag(action: argparse.Action) -> Cells:
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
    value = "" if action.nargs == 0 else str(action.metavar or choices)
    required = "required: " if action.required and action.option_strings else ""
    return f"`{' '.join([*action.option_strings, value]).strip()}`", required + cell(action.help or "")


def config_keys() -> Iterator[str]:
    """Yield a table for each section of the training configuration."""
    for name, model in sections(TrainConfig):
        yield f"## {name}\n\n{markdown_of(model.__doc__)}"
        yield from table(("key", "type", "default", "meaning"), _keys(model, f"{name}."))


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the keys of a model that hold a model themselves, with that model."""
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


def checks() -> Iterator[str]:
    """Yield a section for each check of a model: what it looks for, and what to do."""
    for severity, of_severity in CHECKS.items():
        yield f"## {severity.capitalize()}s\n"
        for check in of_severity:
            first, _, rest = inspect.cleandoc(check.__doc__ or "").partition("\n\n")
            yield f"### {check.__name__}\n\n{_wrapped(first)}\n\n{_wrapped(' '.join(rest.split()))}\n"


def receipt() -> Iterator[str]:
    """Yield the fields of a receipt: the slice's own first, then its numbers, then those of each model."""
    for kind in _ours(Receipt):
        yield inspect.cleandoc(kind.__doc__ or "")
        yield from table(("key", "meaning"), _meanings(own_fields(kind)))
    yield "The last key, `seal`, is the SHA-256 of everything before it."


def delta() -> Iterator[str]:
    """Yield the keys of `delta.json`."""
    yield from table(("key", "meaning"), _meanings(own_fields(Delta)))


def audit() -> Iterator[str]:
    """Yield the keys of `audit.json`."""
    yield from table(("key", "meaning"), _meanings(own_fields(Audit)))


def summary() -> Iterator[str]:
    """Yield the names of a summary's sums."""
    names = [name for kind in _ours(SliceTotals) for name in own_fields(kind)]
    yield textwrap.fill(", ".join(f"`{name}`" for name in names), 100)


def manifest() -> Iterator[str]:
    """Yield the keys of `model.json`."""
    return table(("key", "meaning"), _meanings(fields(Manifest)))


def schema() -> Iterator[str]:
    """Yield `schema.json` of a run with one model and one kept field."""
    columns = bigquery_schema(predictions_schema(["date"], ["subjects"]), ["date"], "jsonl")
    yield "```json\n[" + ",\n ".join(map(json.dumps, columns)) + "]\n```"


def fields(kind: type) -> dict[str, tuple[str, str]]:
    """Return type and meaning of each field of a class, those that it inherits first."""
    return {name: said for base in reversed(_ours(kind)) for name, said in own_fields(base).items()}


def _ours(kind: type) -> list[type]:
    """Return the class and those of its parents that belong to the project."""
    return [base for base in kind.__mro__ if base.__module__.split(".")[0] in labelbeam.PACKAGES]


def own_fields(kind: type) -> dict[str, tuple[str, str]]:
    """Return type and meaning of the fields that a class declares itself.

    The meaning is the comment at the end of the field's line, or the comments right above it.
    """
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


def _meanings(found: Mapping[str, tuple[str, str]]) -> Iterator[Cells]:
    return ((f"`{name}`", cell(meaning)) for name, (_, meaning) in found.items())


def table(head: Sequence[str], rows: Iterable[Cells], right: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a Markdown table; the columns with the titles in `right` are aligned to the right."""
    yield f"\n| {' | '.join(head)} |"
    yield f"|{'|'.join('-:' if title in right else '-' for title in head)}|"
    yield from (f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows)
    yield ""


def cell(said: str, *, keep_lines: bool = False) -> str:
    """Return help as Markdown, on one line unless its lines are kept, with flags and patterns as code."""
    text = said if keep_lines else " ".join(said.split())
    return re.sub(r"(?<![\w`])(--[a-z_]+=?|[\w.]+\*)", r"`\1`", text)


PARTS: dict[str, Any] = {
    "flags": flags,
    "configuration": config_keys,
    "checks": checks,
    "receipt": receipt,
    "delta": delta,
    "audit_json": audit,
    "summary": summary,
    "schema": schema,
    "model": manifest,
}


def mib(value: float) -> str:
    """Return a number of MiB as text."""
    return f"{value:,.0f} MiB"

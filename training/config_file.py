"""Reads a training configuration from a file or from flags, and explains every mistake in it in one sentence."""

import argparse
import difflib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from models.arguments import Parser
from models.errors import UserError
from models.labels import Task
from training.config import TrainConfig, TrainingConfig, message

BASE = "microsoft/deberta-v3-small"  # base model of a training without a configuration
USED = "training.toml"  # file in a model's directory with the configuration that it was trained by
_KEY_FLAG = re.compile(r"--(\w+(?:\.\w+)*)=(.*)", re.DOTALL)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a configuration, its data, and changes to it: CONFIG.toml, --data_dir, --set."""
    parser.add_argument(
        "config",
        type=Path,
        nargs="?",
        metavar="CONFIG.toml",
        help="configuration, as in training/configs/; a .json file has the names of transformers' run_glue.py",
    )
    add_data_flags(parser)
    group = parser.add_argument_group("without a configuration")
    group.add_argument("--data", nargs="+", metavar="FILE", help="labelled files, of which validation and test are cut")
    group.add_argument("--text", nargs="+", metavar="COLUMN", help="columns that make up the text")
    group.add_argument("--label", metavar="COLUMN", help="column of the labels")
    group.add_argument(
        "--task", choices=[task.value for task in Task], help="kind of the labels (default: by the data)"
    )
    group.add_argument("--base", metavar="NAME", help=f"base model: hub name or folder (default: {BASE})")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the data of a configuration, and changes to it: --data_dir, --set."""
    parser.add_argument(
        "--data_dir", type=Path, default=Path(), metavar="DIR", help="folder of the data files (default: .)"
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values for keys of the configuration, such as training.epochs=1; --training.epochs=1 says the same",
    )


def parse_flags(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags of a command. `--section.key=value`, and `--key=value` for a key of [training], go to `set`.

    Raises:
        UserError: has a line for each mistake in the flags.
    """
    words: list[str] = []
    overrides: list[str] = []
    known = {name.lstrip("-") for action in parser._actions for name in action.option_strings}
    for word in sys.argv[1:] if argv is None else argv:
        found = _KEY_FLAG.fullmatch(word)
        key = found[1] if found and found[1] not in known else ""
        if found and key.partition(".")[0] in TrainConfig.model_fields and "." in key:
            overrides.append(f"{key}={found[2]}")
        elif found and key in TrainingConfig.model_fields:
            overrides.append(f"training.{key}={found[2]}")
        else:
            words.append(word)
    flags = parser.parse(words)
    if flags.config is None and flags.set and "=" not in flags.set[-1]:
        flags.config = Path(flags.set.pop())  # --set a=b CONFIG.toml
    flags.set += overrides
    return flags


def load(flags: argparse.Namespace) -> TrainConfig:
    """Return the configuration that the flags of `add_flags` name, or that they make up together with the data.

    Raises:
        UserError: as for `load_config`, or it describes a student, or there is neither a configuration nor --data,
            --text and --label.
    """
    if flags.config is not None:
        beside = [f"--{name}" for name in ("data", "text", "label", "task", "base") if getattr(flags, name)]
        if beside:
            raise UserError(f"{', '.join(beside)}: expected no configuration beside, found {flags.config}; use --set.")
        if flags.config.suffix != ".json":
            config = load_config(flags.config, flags.set)
            if config.student:
                raise UserError(f"{flags.config}: [student] is for `python -m training.distill`; remove the section.")
            return config
    missing = [f"--{name}" for name in ("data", "text", "label") if not getattr(flags, name)]
    if flags.config is None and missing:
        what = "CONFIG.toml, or --data, --text and --label" if len(missing) == 3 else f"{', '.join(missing)} too"
        raise UserError(f"expected {what}, found none; see --help.")

    from training import derived_config, terminal

    terminal.quiet_libraries()
    if flags.config is None:
        source = "--data"
        content = derived_config.of_flags(flags.data, flags.text, flags.label, flags.task, flags.base or BASE)
    else:
        source = str(flags.config)
        content = derived_config.of_glue(_json(flags.config), source)
    for override in flags.set:
        _apply(content, override)
    return parse_config(derived_config.completed(content, flags.data_dir, source), source=source)


def to_toml(config: TrainConfig) -> str:
    """Return the text of a configuration file: the keys that differ from their defaults."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_defaults=True, exclude_none=True))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise UserError(f"{path}: expected a JSON configuration, found no file.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of keys and values, found {type(content).__name__}.")
    return content


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration in a TOML file, with `section.key=value` replaced for each override.

    Raises:
        UserError: the file is missing or not TOML, or an override has no `=`; else a line for each wrong key or value.
    """
    return parse_config(read_toml(path), overrides, source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, which need not be a whole configuration.

    Raises:
        UserError: the file is missing or not TOML.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a TOML configuration, found no file; training/configs/ has examples.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def parse_config(content: dict[str, Any], overrides: Sequence[str] = (), *, source: str) -> TrainConfig:
    """Return the configuration of content that is already read. Messages name it as `source`.

    Raises:
        UserError: as for `load_config`.
    """
    for override in overrides:
        _apply(content, override)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{source}: {sentence}" for sentence in _explain(error))) from None


def with_values(config: TrainConfig, values: Mapping[str, Any], *, source: str) -> TrainConfig:
    """Return the configuration, without [search], with other values for keys such as training.learning_rate.

    Raises:
        UserError: a key does not exist, or does not take its value.
    """
    content = config.model_dump(mode="json", exclude={"search"}, exclude_defaults=True)
    for key, value in values.items():
        _put(content, key, value)
    return parse_config(content, source=source)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set expects section.key=value, such as training.epochs=1; found {override!r}.")
    _put(content, key.strip(), _toml_value(text))


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UserError(f"key {key!r}: {section!r} is a value, not a section; check the key.")
    content[last] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word, as in --set model.base=bert-base-uncased


def _explain(error: ValidationError) -> Iterator[str]:
    """Return a sentence for each mistake. A key that is missing because it is misspelt is one mistake."""
    problems = [(_keys(problem["loc"]), dict(problem)) for problem in error.errors()]
    meant = {keys: _closest(keys) for keys, problem in problems if problem["type"] == "extra_forbidden"}
    misspelt = {(*keys[:-1], name) for keys, name in meant.items()}
    for keys, problem in problems:
        location = ".".join(keys)
        if keys in meant:
            advice = f"did you mean {meant[keys]!r}?" if meant[keys] else f"valid keys are {_listed(keys)}."
            yield f"unknown key {location!r}; {advice}"
        elif problem["type"] == "missing":
            if keys not in misspelt:
                yield f"{location!r} is missing; add it."
        else:
            shown = problem["type"] != "value_error" and not isinstance(problem["input"], dict | BaseModel)
            found = f", found {problem['input']!r}" if shown else ""
            yield f"{location}: ".removeprefix(": ") + f"{message(problem)}{found}."


def _keys(location: Sequence[int | str]) -> tuple[str, ...]:
    """Return the keys that lead to a mistake, without the kind of search space that pydantic tells among them."""
    keys = tuple(map(str, location))
    return keys[:3] + keys[4:] if keys[:2] == ("search", "space") else keys


def _closest(keys: Sequence[str]) -> str | None:
    """Return the valid key that an unknown one was probably meant to be."""
    return closest(keys[-1], _keys_beside(keys))


def closest(key: str, known: Sequence[str]) -> str | None:
    """Return the known key that another one was probably meant to be."""
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.5)), None)


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(_keys_beside(keys))


def _keys_beside(keys: Sequence[str]) -> list[str]:
    """Return the valid keys of the section that holds this key."""
    section: type[BaseModel] = TrainConfig
    for key in keys[:-1]:
        if key in section.model_fields:
            section = _section_in(section.model_fields[key].annotation) or section
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation names, alone or inside a union, a dictionary or `Annotated`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((section for part in get_args(annotation) if (section := _section_in(part))), None)

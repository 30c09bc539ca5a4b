"""Reads a training configuration from a TOML file, and explains every mistake in it in one sentence."""

import argparse
import difflib
import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from models.errors import UserError
from training.config import TrainConfig, message


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a configuration, its data, and changes to it: CONFIG.toml, --data_dir, --set."""
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="configuration, as in training/configs/")
    parser.add_argument(
        "--data_dir", type=Path, default=Path(), metavar="DIR", help="folder of the data files (default: .)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="value for a key of the configuration, such as training.epochs=1; may be repeated",
    )


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration in a TOML file, with `section.key=value` replaced for each override.

    Raises:
        UserError: the file is missing or not TOML, or an override has no `=`; else a line for each wrong key or value.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a TOML configuration, found no file; training/configs/ has examples.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    return parse_config(content, overrides, source=str(path))


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
    return next(iter(difflib.get_close_matches(keys[-1], _keys_beside(keys), n=1, cutoff=0.5)), None)


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

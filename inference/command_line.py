"""What the commands of this package share: a parser that takes Beam's flags along, and kinds of values."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import orjson
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options import _BeamArgumentParser as BeamArgumentParser

from models.errors import UserError


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and raises UserError where argparse would exit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """What argparse calls on a wrong value."""
        raise UserError(f"{message} (see --help)")

    def parse_with_beam(self, argv: Sequence[str]) -> tuple[argparse.Namespace, PipelineOptions, list[str]]:
        """This command's flags, Beam's, and a problem for each that neither knows: Beam would drop it in silence.

        Beam's flags are at work from then on wherever files are read, whose credentials to use, for instance.
        """
        flags, rest = self.parse_known_args(argv)
        problems = self._unknown(rest)
        try:
            options = PipelineOptions(list(rest))
        except SystemExit:  # a wrong value, which is among the problems already
            options = PipelineOptions([])
        FileSystems.set_options(options)
        return flags, options, problems

    def _unknown(self, rest: Sequence[str]) -> list[str]:
        parser = BeamArgumentParser(allow_abbrev=False)
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(parser)
        try:
            _, unknown = parser.parse_known_args(list(rest))
        except SystemExit:
            return ["a flag of Beam has a wrong value; see the line above"]
        known = [*self._option_string_actions, *parser._option_string_actions]
        problems = []
        for position, argument in enumerate(unknown):
            flag = argument.split("=")[0]
            if flag.startswith("-"):
                close = difflib.get_close_matches(flag, known, n=1) or [f for f in known if f.startswith(flag)][:1]
                hint = f"did you mean {close[0]}?" if close else "see --help"
                problems.append(f"unknown flag {flag}: {hint}")
            elif not (position and unknown[position - 1].startswith("-")):  # else the value of an unknown flag
                problems.append(f"unexpected argument {argument!r}: every value follows a flag")
        return problems


def add_json(parser: argparse._ActionsContainer) -> None:
    """The flag --json, for commands whose result `print_json` can print."""
    parser.add_argument("--json", action="store_true", help="print JSON, for a machine to read")


def print_json(result: Any) -> None:
    """Prints a result for a machine."""
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


def refuse(problems: Sequence[str]) -> None:
    """Raises one UserError with every problem, each once; returns where there is none."""
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def names(text: str) -> tuple[str, ...]:
    """A comma-separated list of distinct field names."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected distinct names separated by commas, found {text!r}")
    return found


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A number greater than zero."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number greater than 0, found {text!r}")
        return value

    return parse


def rate(text: str) -> float:
    """A share from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, found {text!r}")
    return value


def scores(text: str) -> str:
    """Which scores to write."""
    if text in ("predicted", "all"):
        return text
    if text.startswith("top:") and text[4:].isdecimal() and int(text[4:]) > 0:
        return text
    raise argparse.ArgumentTypeError(f"expected predicted, all or top:K with K from 1, found {text!r}")

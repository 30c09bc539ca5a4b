"""Defines the flags that several commands share. It imports nothing heavy, so that `--help` answers at once."""

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import orjson

from inference.scoring.options import DeviceChoice, PrecisionChoice, RuntimeChoice
from models import paths
from models.arguments import Parser, refuse

BEAM_FLAGS = Path(__file__).with_name("beam_flags.txt")


class BeamParser(Parser):
    """A parser that also accepts the flags of Apache Beam. It knows their names, but not their values."""

    def parse_with_beam(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the values of this command's flags, and Beam's flags as they were typed.

        Beam itself ignores unknown flags, so this parser refuses them.

        Raises:
            UserError: has a line for each mistake, such as a flag that neither this command nor Beam knows.
        """
        flags, beam_flags, problems = self.parse_known(argv, known_to_beam())
        refuse(problems)
        return flags, [*beam_flags, *vars(flags).pop("beam_flags", ())]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Do for argparse, which calls this for the flags of a subcommand, what `parse_with_beam` does."""
        flags, beam_flags = self.parse_with_beam(args)
        vars(flags).update({**vars(namespace or argparse.Namespace()), "beam_flags": beam_flags})
        return flags, []


@cache
def known_to_beam() -> dict[str, bool]:
    """Return each flag of Apache Beam, and whether a value follows it. A test compares the list with Beam's own."""
    lines = BEAM_FLAGS.read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line.endswith(" VALUE") for line in lines}


def add_model(
    parser: argparse._ActionsContainer, about: str = "trained model; may be repeated", *, required: bool = True
) -> None:
    """Add --model, whose value is a list of folders; empty if it is not required and not given."""
    _add_paths(parser, "--model", "DIR", about, required=required)


def add_input(
    parser: argparse._ActionsContainer,
    about: str = "files of JSON lines, CSV, TSV or Parquet; may be repeated",
    *,
    required: bool = True,
) -> None:
    """Add --input, whose value is a list of patterns; empty if it is not required and not given."""
    _add_paths(parser, "--input", "GLOB", about, required=required)


def _add_paths(parser: argparse._ActionsContainer, flag: str, metavar: str, about: str, *, required: bool) -> None:
    default: list[str] | None = None if required else []
    parser.add_argument(
        flag, type=paths.anywhere, action="append", required=required, default=default, metavar=metavar, help=about
    )


def add_reading_flags(parser: argparse.ArgumentParser) -> argparse._ActionsContainer:
    """Add the flags that decide what is read of a record. Return their group."""
    reading = parser.add_argument_group("reading")
    reading.add_argument(
        "--input_format",
        choices=("jsonl", "csv", "tsv", "parquet"),
        help="format of all input files (default: what the end of each name tells)",
    )
    reading.add_argument(
        "--text_fields",
        type=names,
        default=(),
        metavar="A,B",
        help="text fields of a record (default: the model's own)",
    )
    reading.add_argument(
        "--id_field",
        default="id",
        metavar="NAME",
        help="field with the id, or empty for file and line number (default: id)",
    )
    return reading


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide which fields of a record are read and how its text is scored."""
    reading = add_reading_flags(parser)
    reading.add_argument(
        "--keep_fields",
        type=names,
        default=(),
        metavar="A,B:TYPE",
        help="input fields to copy into the rows, each with a type or without, such as year:int (default: none)",
    )
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--scores",
        type=which_scores,
        default="predicted",
        metavar="WHICH",
        help="probabilities to write: predicted, all or top:K (default: predicted)",
    )
    scoring.add_argument(
        "--max_tokens",
        type=positive(int),
        metavar="N",
        help="number of tokens after which a text is truncated (default: the model's own)",
    )
    scoring.add_argument(
        "--device",
        choices=get_args(DeviceChoice),
        default="auto",
        help="device that computes (default: auto, a GPU if there is one)",
    )
    scoring.add_argument(
        "--runtime",
        choices=get_args(RuntimeChoice),
        default="auto",
        help="runtime that computes (default: auto, openvino on a CPU if it is installed, else torch)",
    )
    scoring.add_argument(
        "--precision",
        choices=get_args(PrecisionChoice),
        default="auto",
        help="number format; int8 needs inference.optimize first "
        "(default: auto, bf16 in hardware, else fp16 on a GPU and fp32 on a CPU)",
    )
    scoring.add_argument(
        "--threads",
        type=positive(int),
        default=0,
        metavar="N",
        help="number of computing threads in a process (default: its share of the cores)",
    )


def add_damage(parser: argparse._ActionsContainer) -> None:
    """Add the flag that accepts failures which stand for any number of documents."""
    parser.add_argument(
        "--allow_damaged_files",
        action="store_true",
        help="no exit code 3 for a damaged file or a JSON array, which may hold any number of documents",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add --json to a command whose result `print_json` can print."""
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output, for scripts")


def print_json(result: Any) -> None:
    """Print a result as indented JSON."""
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of distinct names.

    Raises:
        ArgumentTypeError: a name is empty or repeated.
    """
    fields = tuple(part.strip() for part in text.split(","))
    if not all(fields) or len(set(fields)) < len(fields):
        raise argparse.ArgumentTypeError(f"expected distinct names separated by commas, found {text!r}")
    return fields


def positive(number_type: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser for finite numbers of a type that are greater than zero."""

    def parse(text: str) -> Any:
        try:
            value = number_type(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number greater than 0, found {text!r}")
        return value

    return parse


def whole(text: str) -> int:
    """Parse a whole number.

    Raises:
        ArgumentTypeError: it is not one, or it is below zero.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def share(text: str) -> float:
    """Parse a share.

    Raises:
        ArgumentTypeError: it is not a number from 0 to 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, found {text!r}")
    return value


def which_scores(text: str) -> str:
    """Parse the choice of the scores to write.

    Raises:
        ArgumentTypeError: it is not predicted, all or top:K.
    """
    if text in ("predicted", "all"):
        return text
    if text.startswith("top:") and text[4:].isdecimal() and int(text[4:]) > 0:
        return text
    raise argparse.ArgumentTypeError(f"expected predicted, all or top:K with K from 1, found {text!r}")

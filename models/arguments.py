"""Reads a command's flags and reports every mistake in them at once. Needs nothing but the standard library.

    parser = Parser("python -m training.train", __doc__)
    parser.add_argument("--output", required=True)
    flags = parser.parse(argv)

A command whose flags another library reads as well names those flags in `parse_known` and hands on what is left.
"""

import argparse
import difflib
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from models.errors import UserError
from models.names import is_utf8

KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}  # names of the values of a type in messages
NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
WRONG = object()  # stands in the namespace for a value that was refused


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and raises UserError where argparse would end the process.

    Each mistake is one line of the message: an unknown flag with the flag that was probably meant, flags that are
    missing, a wrong value, a stray word. A misspelt flag is not reported as missing too.
    """

    def __init__(self, prog: str | None = None, description: str | None = None, **options: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self._wrong_values: list[str] = []

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Return the values of the flags in `argv`, or in `sys.argv`. Print the help and exit if it is asked for.

        Raises:
            UserError: has a line for each mistake.
        """
        flags, _, problems = self.parse_known(argv)
        refuse(problems)
        return flags

    def parse_known(
        self, argv: Sequence[str] | None = None, others: Mapping[str, bool] | None = None
    ) -> tuple[argparse.Namespace, list[str], list[str]]:
        """Return the values of the flags, the words that belong to `others`, and a line for each mistake.

        `others` maps each flag that another parser reads to whether a value follows it.
        """
        words = sys.argv[1:] if argv is None else argv
        sorting = _Sorting(self, others or {}).sort(words)
        if sorting.wants_help:
            self.print_help()
            self.exit()
        self._wrong_values = []
        required = [action for action in self._actions if action.required]
        with _optional(required):
            flags, stray = super().parse_known_args(sorting.own)
        missing = [action for action in required if getattr(flags, action.dest) is None]
        problems = [f"expected UTF-8, found {word!r}; use another name." for word in words if not is_utf8(word)]
        problems += [*sorting.problems, *self._wrong_values]
        if names := [_name(action) for action in missing if not sorting.explains(action)]:
            problems.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} required; see --help.")
        if stray and not sorting.dropped_words:
            more = f" and {len(stray) - 1:,} more" if len(stray) > 1 else ""
            problems.append(
                f"unexpected argument {stray[0]!r}{more}; put each value after its flag, and a pattern such as "
                "'*.jsonl' in quotes."
            )
        return flags, sorting.rest, problems

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Do for argparse, which calls this for the flags of a subcommand, what `parse` does."""
        flags = self.parse(args)
        vars(flags).update(vars(namespace or argparse.Namespace()))
        return flags, []

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of ending the process."""
        raise UserError(f"{message}; see --help.")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Convert the words of one argument. A wrong one is noted, so that the others are checked as well."""
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            problem = _wrong_value(action, arg_strings, error)
            if action.nargs == argparse.PARSER:  # without a subcommand nothing else can be read
                raise UserError(problem) from None
            self._wrong_values.append(problem)
            return WRONG


class _Sorting:
    """Divides the words of a command into its own, those of another parser, and mistakes."""

    def __init__(self, parser: argparse.ArgumentParser, others: Mapping[str, bool]) -> None:
        self._actions: dict[str, argparse.Action] = parser._option_string_actions
        self._has_subcommands = any(action.nargs == argparse.PARSER for action in parser._actions)
        self._others = others
        self._faulty: set[str] = set()  # flags that a mistake was reported for
        self.own: list[str] = []
        self.rest: list[str] = []
        self.problems: list[str] = []
        self.wants_help = False
        self.dropped_words = False  # whether a word was dropped that may have been a positional argument

    def explains(self, action: argparse.Action) -> bool:
        """Whether another mistake is the reason why this argument is missing."""
        if not action.option_strings:
            return self.dropped_words
        return not self._faulty.isdisjoint(action.option_strings)

    def sort(self, argv: Sequence[str]) -> "_Sorting":
        """Sort all words and return itself."""
        words = deque(argv)
        while words:
            word = words.popleft()
            flag = _flag(word)
            if flag is None:
                self.own.append(word)
                if word == "--" or self._has_subcommands:  # no flags follow, or those of the subcommand
                    self.own += words
                    break
            elif flag in self._actions:
                self._take(flag, word, words)
            elif flag in self._others:
                self.rest += [word, *_value(word, words, self._others[flag])]
            else:
                self._refuse(flag, word, words)
        return self

    def _take(self, flag: str, word: str, words: deque[str]) -> None:
        action = self._actions[flag]
        value = _value(word, words, action.nargs is None)
        if action.dest == "help":
            self.wants_help = True
        elif action.nargs is None and not value and "=" not in word:
            self.problems.append(f"{flag}: expected a value, {_metavar(action)}, found none.")
            self._faulty.add(flag)
        elif action.nargs == 0 and "=" in word:
            self.problems.append(f"{flag}: expected no value, found {word.partition('=')[2]!r}.")
        else:
            self.own += [word, *value]

    def _refuse(self, flag: str, word: str, words: deque[str]) -> None:
        """Note an unknown flag, and drop it with the value that the flag that was meant takes."""
        meant = _closest(flag, [*self._actions, *self._others])
        if meant:
            self.problems.append(f"unknown flag {flag}: did you mean {meant}?")
            self._faulty.add(meant)
            _value(word, words, self._actions[meant].nargs != 0 if meant in self._actions else self._others[meant])
        else:
            self.problems.append(f"unknown flag {flag}: see --help.")
            self.dropped_words |= bool(_value(word, words, True))


def refuse(problems: Sequence[str]) -> None:
    """Raise one UserError with every problem, each once; do nothing if there are none."""
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def _flag(word: str) -> str | None:
    """Return the flag that a word gives, without its value; None if it is a value, as argparse sees it."""
    name = word.partition("=")[0]
    if not name.startswith("-") or name in ("-", "--") or " " in name or NEGATIVE_NUMBER.fullmatch(word):
        return None
    return name


def _value(word: str, words: deque[str], takes_value: bool) -> list[str]:
    """Take the value that follows a flag off the words; return it in a list, which is empty if there is none."""
    if takes_value and "=" not in word and words and words[0] != "--" and _flag(words[0]) is None:
        return [words.popleft()]
    return []


def _closest(flag: str, known: Sequence[str]) -> str | None:
    """Return the known flag that was probably meant: a similar one, or the first that begins in the same way."""
    names = {name.lstrip("-"): name for name in known}
    name = flag.lstrip("-")
    close = difflib.get_close_matches(name, names, n=1) or [other for other in names if name and other.startswith(name)]
    return names[close[0]] if close else None


def _wrong_value(action: argparse.Action, words: Sequence[str], error: argparse.ArgumentError) -> str:
    found = words[0] if action.nargs == argparse.PARSER else " ".join(words)
    if action.choices is not None:
        return f"{_name(action)}: expected one of {', '.join(map(str, action.choices))}; found {found!r}."
    if action.type in KINDS:
        return f"{_name(action)}: expected {KINDS[action.type]}, found {found!r}."
    return f"{_name(action)}: {error.message.rstrip('.')}."


def _name(action: argparse.Action) -> str:
    return "/".join(action.option_strings) or _metavar(action)


def _metavar(action: argparse.Action) -> str:
    return str(action.metavar or "|".join(map(str, action.choices or [])) or action.dest.upper())


@contextmanager
def _optional(required: Sequence[argparse.Action]) -> Iterator[None]:
    """Let argparse read a command in which required arguments are missing."""
    for action in required:
        action.required = False
    try:
        yield
    finally:
        for action in required:
            action.required = True

"""Write what the documentation takes from the code and from result files into its pages.

    python -m docs.generate

Two comments enclose a generated part of a page, and one comment follows a figure in a sentence or a table:

    <!-- generated: flags -->
    <!-- end of flags -->
    labelbeam labels 133<!-- = papers.ours --> papers a second.

Everything between the two comments is replaced, and so is the figure. `--figures` lists all figures by name.
The list of Apache Beam's flags, inference/beam_flags.txt, is written as well.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from docs import code_tables, figures, result_tables
from inference.flags import BEAM_FLAGS

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks" / "README.md"
PAGES = (ROOT / "README.md", BENCHMARKS, *sorted((ROOT / "docs").rglob("*.md")))
PART = re.compile(r"^<!-- generated: (\w+) -->\n(?:.*?\n)??<!-- end of \1 -->$", re.MULTILINE | re.DOTALL)
BEGINNING = re.compile(r"^<!-- generated: ", re.MULTILINE)
FIGURE = re.compile(r"<!-- = ([\w.-]+) -->")
COMMENT = re.compile(r"^<!-- .* -->\n|<!-- = .*? -->", re.MULTILINE)
NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")
RELATIVE_LINK = re.compile(r"\]\((?!\w+:|#)")


def main() -> None:
    """Write every file that is not as it should be, and name it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", action="store_true", help="list the figures by name and write nothing")
    if parser.parse_args().figures:
        print("\n".join(f"{name:32} {value}" for name, value in figures.figures().items()))
        return
    for path, content in stale():
        path.write_text(content, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def stale() -> Iterator[tuple[Path, str]]:
    """Yield each file that is not as it should be, and what it should hold."""
    if BEAM_FLAGS.read_text(encoding="utf-8") != beam_flags():
        yield BEAM_FLAGS, beam_flags()
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        if (generated := filled(content, str(page.relative_to(ROOT)))) != content:
            yield page, generated


def filled(content: str, page: str) -> str:
    """Return a page's content with its parts and figures as they should be.

    Raises:
        ValueError: the page names a part or a figure that does not exist, or a part has no end.
    """
    if len(BEGINNING.findall(content)) != len(PART.findall(content)):
        raise ValueError(f"{page}: expected <!-- end of NAME --> after each <!-- generated: NAME -->.")
    content = PART.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n\n{part(found[1], page)}\n\n<!-- end of {found[1]} -->", content
    )
    pieces = FIGURE.split(content)  # text, name, text, name, ..., text
    for place in range(1, len(pieces), 2):
        value = _look_up(pieces[place], figures.figures(), page)
        pieces[place - 1] = with_figure(pieces[place - 1], value)
        pieces[place] = f"<!-- = {pieces[place]} -->"
    return "".join(pieces)


def with_figure(text: str, value: str) -> str:
    """Return a text that ends with a figure, with that figure replaced by the value.

    The figure is what has the shape of the value, such as `0.5 (0.4 to 0.6)`. If nothing has, it is the last word.
    """
    literal = [re.escape(part).replace(r"\ ", r"\s+").replace("%", r"\s?%") for part in NUMBER.split(value)]
    shape = r"(?<![\d.,])" * value[0].isdigit() + NUMBER.pattern.join(literal) + "$"
    found = re.search(shape, text) or re.search(r"[^\s|]*$", text)
    assert found  # the last word may be empty
    return text if found[0].split() == value.split() else text[: found.start()] + value


@cache
def part(name: str, page: str) -> str:
    """Return a generated part."""
    parts = {**code_tables.PARTS, **result_tables.PARTS, "measured": measured}
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_look_up(name, parts, page)())).strip("\n")


def _look_up(name: str, known: Mapping[str, Any], page: str) -> Any:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}."
        raise ValueError(f"{page}: unknown name {name}: {hint}")
    return known[name]


def measured() -> Iterator[str]:
    """Yield benchmarks/README.md without its title, with its links as seen from docs/."""
    content = filled(BENCHMARKS.read_text(encoding="utf-8"), "benchmarks/README.md")
    yield RELATIVE_LINK.sub("](../benchmarks/", COMMENT.sub("", content).partition("\n")[2])


def beam_flags() -> str:
    """Return a line for each flag that Apache Beam's own parsers know; ` VALUE` follows those that take one."""
    parser = _BeamArgumentParser(allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    flags = sorted((flag, action.nargs != 0) for flag, action in parser._option_string_actions.items())
    return "".join(f"{flag}{' VALUE' * value}\n" for flag, value in flags if flag not in ("-h", "--help"))


if __name__ == "__main__":
    main()

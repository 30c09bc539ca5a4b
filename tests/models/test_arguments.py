"""Right flags are read as argparse reads them. Each mistake is one line, and all mistakes come together."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from models.arguments import Parser, refuse
from models.errors import UserError

OTHERS = {"--runner": True, "--streaming": False, "--max_num_workers": True}


def share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, found {text!r}")
    return float(text)


def parser() -> Parser:
    made = Parser("python -m x", "Does x.\n\n    python -m x my.toml --output DIR")
    made.add_argument("config", metavar="CONFIG.toml", help="the configuration")
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change")
    made.add_argument("--trials", type=int, default=20, metavar="N", help="the number of trials (default: 20)")
    made.add_argument("--rate", type=share, metavar="SHARE", help="a share")
    made.add_argument("--device", choices=("auto", "cpu"), default="auto", help="the device (default: auto)")
    made.add_argument("--overwrite", action="store_true", help="replace the folder")
    return made


def problems(*argv: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parser().parse(argv)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "argv",
    [
        ["my.toml", "--output", "out", "--set", "a=1", "--set", "b=-1", "--trials", "-3", "--overwrite"],
        ["--overwrite", "--set=a=1", "--set=b=-1", "--trials=-3", "my.toml", "--output=out"],
        ["--overwrite", "--set", "a=1", "--set", "b=-1", "--trials", "-3", "--output", "out", "--", "my.toml"],
    ],
)
def test_what_is_right_is_read(argv: list[str]) -> None:
    flags = parser().parse(argv)
    assert (flags.config, flags.output, flags.set) == ("my.toml", Path("out"), ["a=1", "b=-1"])
    assert (flags.trials, flags.rate, flags.device, flags.overwrite) == (-3, None, "auto", True)


def test_values_may_look_like_much_but_not_like_flags() -> None:
    flags = parser().parse(["-", "--output", "a b", "--set", "-not a flag", "--set", ""])
    assert (flags.config, flags.output, flags.set) == ("-", Path("a b"), ["-not a flag", ""])
    assert parser().parse(["--output", "o", "--", "--odd.toml"]).config == "--odd.toml"


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (["my.toml", "--ouptut", "x"], ["unknown flag --ouptut: did you mean --output?"]),
        (["my.toml", "--ouptut=x"], ["unknown flag --ouptut: did you mean --output?"]),
        (["--ouptut", "x", "my.toml"], ["unknown flag --ouptut: did you mean --output?"]),
        (["my.toml", "-output", "x"], ["unknown flag -output: did you mean --output?"]),
        (["my.toml", "--output", "x", "--over"], ["unknown flag --over: did you mean --overwrite?"]),
        (["--overwrit", "my.toml", "--output", "x"], ["unknown flag --overwrit: did you mean --overwrite?"]),
        (["my.toml", "--o", "x"], ["unknown flag --o: did you mean --output?"]),
        (["--zebra", "my.toml", "--output", "x"], ["unknown flag --zebra: see --help."]),
        (["my.toml", "--zebra", "1", "--output", "x"], ["unknown flag --zebra: see --help."]),
        (["my.toml"], ["--output is required; see --help."]),
        (["--output", "x"], ["CONFIG.toml is required; see --help."]),
        ([], ["CONFIG.toml, --output are required; see --help."]),
        (["my.toml", "--output"], ["--output: expected a value, DIR, found none."]),
        (["my.toml", "--output", "--overwrite"], ["--output: expected a value, DIR, found none."]),
        (["my.toml", "--output", "x", "--overwrite=1"], ["--overwrite: expected no value, found '1'."]),
        (["my.toml", "--output", "x", "--trials", "ten"], ["--trials: expected a whole number, found 'ten'."]),
        (["my.toml", "--output", "x", "--rate", "7"], ["--rate: expected a share from 0 to 1, found '7'."]),
        (["my.toml", "--output", "x", "--device", "tpu"], ["--device: expected one of auto, cpu; found 'tpu'."]),
        (
            ["a.toml", "b.toml", "c.toml", "--output", "x"],
            [
                "unexpected argument 'b.toml' and 1 more; put each value after its flag, and a pattern such as "
                "'*.jsonl' in quotes."
            ],
        ),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], lines: list[str]) -> None:
    assert problems(*argv) == lines


def test_every_mistake_is_told_at_once() -> None:
    assert problems("--trails", "5", "--rate", "x", "--trials", "1.5", "--device", "tpu", "--zebra") == [
        "unknown flag --trails: did you mean --trials?",
        "unknown flag --zebra: see --help.",
        "--rate: invalid share value: 'x'.",
        "--trials: expected a whole number, found '1.5'.",
        "--device: expected one of auto, cpu; found 'tpu'.",
        "CONFIG.toml, --output are required; see --help.",
    ]


def test_an_argument_that_is_not_utf_8_is_a_mistake() -> None:
    assert problems("my.toml", "--output", "o\udcff") == ["expected UTF-8, found 'o\\udcff'; use another name."]


def test_a_parser_can_be_used_again_after_a_mistake() -> None:
    made = parser()
    for _ in range(2):
        with pytest.raises(UserError, match="^CONFIG.toml, --output are required; see --help.$"):
            made.parse([])
    assert made.parse(["my.toml", "--output", "x"]).config == "my.toml"
    assert "--output DIR" in made.format_usage()
    assert "[--output" not in made.format_usage()


def test_flags_of_another_parser_are_handed_on_with_their_values() -> None:
    argv = ["--runner", "R", "my.toml", "--streaming", "--output", "x", "--max_num_workers=4", "--runner", "-1"]
    flags, rest, mistakes = parser().parse_known(argv, OTHERS)
    assert (flags.config, flags.output) == ("my.toml", Path("x"))
    assert rest == ["--runner", "R", "--streaming", "--max_num_workers=4", "--runner", "-1"]
    assert mistakes == []


def test_a_misspelt_flag_of_another_parser_is_told_with_the_other_mistakes() -> None:
    _, rest, mistakes = parser().parse_known(["my.toml", "--max_num_workerz", "5", "--trials", "x"], OTHERS)
    assert rest == []
    assert mistakes == [
        "unknown flag --max_num_workerz: did you mean --max_num_workers?",
        "--trials: expected a whole number, found 'x'.",
        "--output is required; see --help.",
    ]


def test_subcommands_have_flags_of_their_own() -> None:
    made = Parser("python -m x", "Does x.")
    commands = made.add_subparsers(dest="command", required=True, metavar="build|check")
    commands.add_parser("build", description="builds").add_argument("--tag", required=True, help="the tag")
    commands.add_parser("check", description="checks").add_argument("--model", action="append", help="a model")
    flags = made.parse(["build", "--tag", "t"])
    assert (flags.command, flags.tag) == ("build", "t")
    for argv, line in {
        ("build", "--tga", "t"): "unknown flag --tga: did you mean --tag?",
        ("check", "--tag", "t"): "unknown flag --tag: see --help.",
        ("bild",): "build|check: expected one of build, check; found 'bild'.",
        (): "build|check is required; see --help.",
    }.items():
        with pytest.raises(UserError) as caught:
            made.parse(argv)
        assert str(caught.value) == line


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["my.toml", "--trials", "x", "--zebra", "--help"]])
def test_help_is_printed_as_it_was_written(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse(argv)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m x ")
    assert "Does x.\n\n    python -m x my.toml --output DIR\n" in printed


def test_argparses_own_name_reads_in_the_same_way() -> None:
    assert parser().parse_args(["my.toml", "--output", "x"]).output == Path("x")
    with pytest.raises(UserError, match="did you mean --output"):
        parser().parse_args(["my.toml", "--ouptut", "x"])


def test_the_flags_of_the_process_are_read_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "my.toml", "--output", "out"])
    assert parser().parse().output == Path("out")


def test_problems_are_refused_together_and_each_once() -> None:
    refuse([])
    with pytest.raises(UserError, match="^one\ntwo$"):
        refuse(["one", "two", "one"])


def test_nothing_but_the_standard_library_is_imported() -> None:
    code = "import sys, models.arguments; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {name for name in done.stdout.split() if not name.startswith("_")} - set(sys.stdlib_module_names)
    assert "models" in foreign
    assert not foreign & {"numpy", "pydantic", "torch", "transformers", "apache_beam"}

"""Turn labelled files into the splits of a training, and report what they hold.

    python -m training.prepare training/configs/goemotions.toml --data_dir data --output prepared/goemotions

It drops duplicates and leaks, cuts missing splits and samples the training split. The output holds the splits, a data
card and a list of duplicates. `python -m training.train` does the same by itself, or takes the output as --prepared.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, data_card, output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data of a configuration. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.prepare`."""
    parser = Parser("python -m training.prepare", __doc__)
    config_file.add_flags(parser)
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="folder for the splits and the card"
    )
    parser.add_argument(
        "--splits",
        type=Path,
        metavar="DIR",
        help="folder that training.prepare wrote before; its validation and test documents stay what they are, and "
        "all others join training",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what training.prepare wrote there before")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = config_file.parse_flags(make_parser(), argv)
    _check_output(flags.output, flags.overwrite)
    config = config_file.load(flags)

    from training import data_splits, terminal

    terminal.quiet_libraries()
    prepared = data_splits.prepare(config, flags.data_dir, flags.splits)
    data_splits.write(prepared, config, flags.output)
    data_card.show(prepared.card)
    print(f"splits, card.md and {data_splits.DUPLICATES}: {flags.output}")


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite or not (output / data_card.FILE).is_file():
        only = " (only what training.prepare wrote is ever replaced)" if overwrite else ", or add --overwrite"
        raise UserError(f"--output {output} is there already: name another directory{only}.")


if __name__ == "__main__":
    sys.exit(main())

"""What the commands of this package share: a parser, and the check of where a model goes."""

import argparse
from pathlib import Path
from typing import NoReturn

from models import trained_model
from models.errors import UserError


class Parser(argparse.ArgumentParser):
    """Flags by their full names only; a mistake is a UserError."""

    def __init__(self, module: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Instead of argparse's own exit.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (see --help)")

    def add_config(self) -> None:
        """The configuration, where its data lies, and changes to it: CONFIG.toml, --data_dir, --set."""
        self.add_argument("config", type=Path, metavar="CONFIG.toml", help="see training/configs/")
        self.add_argument("--data_dir", type=Path, default=Path(), metavar="DIR", help="where the data files lie (.)")
        self.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as training.epochs=1")


def check_output(output: Path, overwrite: bool) -> None:
    """A missing or empty directory is free; only a trained model is ever replaced.

    Raises:
        UserError: the directory holds something that must stay.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise UserError(f"--output {output} is there already: name another directory, or add --overwrite.")
    if not (output / trained_model.MANIFEST).is_file():
        raise UserError(f"--output {output}: --overwrite replaces trained models only, and this is none; name another.")

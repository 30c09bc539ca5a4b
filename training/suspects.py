"""List the labels of a data set that look wrong, as a sheet to correct and as a page to read.

    python -m training.suspects my_labels.toml --data_dir my_data --output suspects/my_labels

The data is divided into folds. A model that never saw a fold scores it. A label is suspect if it is given although the
score is as low as that of documents without it, or missing although the score is as high as that of documents with it.
OUTPUT keeps the scores of finished folds, so the same command continues after a kill.
"""

import sys
from collections.abc import Sequence

from models.arguments import Parser
from models.errors import UserError, exit_code
from training import config_file, output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Find suspect labels. Return 0 when done, 1 when stopped, 2 after wrong use."""
    return exit_code(lambda: _run(argv), "The same command continues, and keeps the folds that have ended.")


def make_parser() -> Parser:
    """Return the parser of `training.suspects`."""
    parser = Parser("python -m training.suspects", __doc__)
    config_file.add_flags(parser)
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="folder for the sheet and the page"
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = config_file.parse_flags(make_parser(), argv)
    if flags.folds < 3:
        raise UserError(f"--folds: expected 3 or more, found {flags.folds}.")
    config = config_file.load(flags)
    if config.training.one_vs_rest:  # one model scores all labels here
        together = config.training.model_copy(update={"one_vs_rest": False, "metric": "macro_f1"})
        config = config.model_copy(update={"training": together})

    from training import data_splits, label_noise, terminal

    terminal.quiet_libraries()
    prepared = data_splits.prepare(config, flags.data_dir)
    found = label_noise.find(prepared, config, flags.output, flags.folds)
    label_noise.write(found, flags.output)
    print(f"{len(found):,} suspect labels: {flags.output / label_noise.SHEET}, {flags.output / label_noise.PAGE}")


if __name__ == "__main__":
    sys.exit(main())

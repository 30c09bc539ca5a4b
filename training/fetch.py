"""Fetch what a training needs from the Hugging Face hub, for a job on a machine without network.

    python -m training.fetch training/configs/goemotions_paper.toml

The base model and a dataset of the hub go to the hub's cache (HF_HOME). A job that sees the same cache needs no
network; HF_HUB_OFFLINE=1 keeps it from asking for one.
"""

import sys
from collections.abc import Sequence

from models.arguments import Parser
from models.errors import exit_code
from training import config_file


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what a configuration names. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.fetch`."""
    parser = Parser("python -m training.fetch", __doc__)
    config_file.add_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = config_file.parse_flags(make_parser(), argv)
    config = config_file.load(flags)

    from huggingface_hub import constants

    from training import base_model, tables, terminal

    terminal.quiet_libraries()
    where = base_model.fetch(config.model)
    print(f"base model {config.model.base}: {where}")
    if config.data.dataset:
        for part in (*config.data.train, *config.data.validation, *config.data.test):
            rows = tables.read_dataset(config.data, part, flags.data_dir)
            print(f"dataset {config.data.dataset}, {part}: {len(rows):,} rows")
    print(f"the cache is {constants.HF_HOME}; in the job, HF_HUB_OFFLINE=1 keeps from the network")


if __name__ == "__main__":
    sys.exit(main())

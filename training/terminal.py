"""Prints tables on the terminal, and keeps libraries from printing there."""

from rich.table import Table

from models.console import PlainConsole


def new_table(title: str) -> Table:
    """Return an empty table with its title on the left."""
    return Table(title=title, title_justify="left")


def print_table(table: Table) -> None:
    """Print a table. Its cells are plain text, whatever label names hold."""
    PlainConsole().print(table)


def counted(count: int, thing: str) -> str:
    """Return a number of things in words, such as `1 row` or `1,200 rows`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def quiet_libraries() -> None:
    """Silence the messages and bars of libraries. A training has its own."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()

"""A console for text that comes from data: it is printed as it is, and cannot steer the terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from models.names import for_terminal


class PlainConsole(Console):
    """A console that takes no text for markup, and shows control characters as escapes, also in the cells of tables."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a string into rich's text. Every line, title and cell that is a string comes through here."""
        return super().render_str(for_terminal(text), **settings)

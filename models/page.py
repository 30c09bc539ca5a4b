"""Renders self-contained pages: one style, no request to any other host, and no text in them can act."""

from pathlib import Path
from typing import Any

import jinja2

SHARED = Path(__file__).with_name("templates")  # the frame and the style of every page


def render(template: Path, **content: Any) -> str:
    """Return the page that a template file makes of the content; a name that the content lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "share": _share}
    return environment.get_template(template.name).render(**content)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"

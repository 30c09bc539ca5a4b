"""Renders self-contained pages with one style; all text is escaped, so none can run as code.

Each page also has a content security policy, with which a browser asks no other host, and runs no script but one whose
hash the policy names.
"""

from pathlib import Path
from typing import Any

import jinja2

SHARED = Path(__file__).with_name("templates")  # this folder holds the frame and the style of every page


def render(template: Path, **content: Any) -> str:
    """Return the page that a template file renders from the content.

    Raises:
        jinja2.UndefinedError: the template uses a name that the content lacks.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "share": _share}
    return environment.get_template(template.name).render(**content)


def shortened(text: str, longest: int) -> str:
    """Return the beginning of a text, with an ellipsis if something is left out."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()}…"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"

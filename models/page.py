"""Renders self-contained pages: one style, no request to any other host, and no text in them can act."""

from typing import Any

import jinja2


def render(package: str, template: str, **content: Any) -> str:
    """A page from `PACKAGE/templates/TEMPLATE`; a name that the content lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("models")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "share": _share}
    return environment.get_template(template).render(**content)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"

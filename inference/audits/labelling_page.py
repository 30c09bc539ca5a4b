"""Makes the page on which a person labels the documents of an audit: one file, which needs no network and no server."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from inference.audits.population import NONE
from inference.audits.sheets import Paper
from models import page

TEMPLATES = Path(__file__).parent / "templates"


def make(name: str, papers: Sequence[Paper], labels: Sequence[str], *, exclusive: bool) -> bytes:
    """Return the page. A script runs in it, whose hash its policy names."""
    script = (TEMPLATES / "labelling.js").read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = orjson.dumps(
        {"name": name, "labels": labels, "none": NONE, "exclusive": exclusive, "documents": papers}
    ).decode()
    return page.render(
        TEMPLATES / "labelling.html",
        name=name,
        labels=labels,
        single=len(labels) == 1,
        exclusive=exclusive,
        hash=f"sha256-{sha256}",
        data=data.replace("<", "\\u003c"),  # so that no text ends the element
        script=script,
    ).encode()

"""Reads HTML pages in tests: their cells, the addresses that they load, and what a browser makes of them."""

import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

needs_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")


class Page(HTMLParser):
    """The parts of a page: the cells of its tables, its elements, and the addresses in them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self._open = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        self._open = tag == "td"
        if self._open:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._open and self.cells:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "td"


def in_browser(path: Path) -> str:
    """Return the page as Chromium renders it. Fail if its console shows an error or a warning."""
    content, complaints = opened(path)
    assert not complaints
    return content


def opened(path: Path) -> tuple[str, list[str]]:
    """Return the page as Chromium renders it, and what its console complains of."""
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*browser, f"--user-data-dir={profile}", "--dump-dom", f"file://{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

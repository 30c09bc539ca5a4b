"""Reads HTML pages in tests: their cells, the addresses that they load, and what a browser makes of them."""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

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


class Tab:
    """A page in a running Chromium, to which keys can be sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the browser's debugging protocol and return its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def press(self, keys: Iterable[str]) -> None:
        """Press keys one after another."""
        for key in keys:
            text = {} if len(key) > 1 else {"text": key}
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        for _ in range(300):
            if self.value(expression):
                return
            time.sleep(0.1)
        raise AssertionError(f"{expression} never became true")

    def picture(self, path: Path) -> None:
        """Write what the page looks like as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def tab(path: Path, downloads: Path) -> Iterator[Tab]:
    """Open a page in Chromium, which saves files into a folder."""
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*browser, f"--user-data-dir={profile}", f"file://{path}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = _port(Path(profile) / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
                pages = [one for one in json.load(answer) if one["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as connection:
                opened_tab = Tab(connection)
                opened_tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
                yield opened_tab
        finally:
            process.terminate()
            process.wait()


def _port(file: Path) -> int:
    for _ in range(600):
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(file.read_text().splitlines()[0])
        time.sleep(0.1)
    raise AssertionError("Chromium did not start")

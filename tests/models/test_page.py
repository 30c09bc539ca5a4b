"""Test that no page acts: values are escaped, and a browser refuses what would act if one were not."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models import page
from tests.pages import Page, needs_browser, opened

VALUES = (
    "<img src=x onerror=\"document.title='acted'\">",
    '" onmouseover="document.title=\'acted\'" x="',
    "javascript:document.title='acted'",
    "</style></title><script>document.title='acted'</script>",
)


def render(folder: Path, body: str, **content: object) -> Path:
    template = folder / "made.html"
    template.write_text(
        '{% extends "page.html" %}{% block title %}quiet{% endblock %}{% block main %}' + body + "{% endblock %}"
    )
    (folder / "page.html").write_text(page.render(template, **content))
    return folder / "page.html"


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_text(tmp_path: Path, value: str) -> None:
    content = render(tmp_path, '<p title="{{ value }}">{{ value }}</p>', value=value).read_text()
    assert "script" not in Page(content).elements
    assert "img" not in Page(content).elements
    assert '<p title="' + content.split('<p title="')[1].split('"')[0] + '">' in content  # one attribute alone


@needs_browser
def test_a_browser_refuses_what_would_act(tmp_path: Path) -> None:
    """The values are not escaped here, as if a template had a mistake."""
    asked: list[str] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        loads = [f'<img src="{host}/img">', f'<link rel="stylesheet" href="{host}/css">']
        loads += [f'<iframe src="{host}/frame"></iframe>', f'<p style="background:url({host}/background)">x</p>']
        loads += [f'<script src="{host}/script"></script>']
        clicks = "<a id=a href=\"javascript:document.title='acted'\">x</a><script>a.click()</script>"
        path = render(tmp_path, "{{ content | safe }}", content="".join([*VALUES, *loads, clicks]))
        content, complaints = opened(path)
        server.shutdown()
    assert "<title>quiet</title>" in content
    assert asked == []
    assert len([line for line in complaints if "Content Security Policy" in line]) >= len(loads)

"""What MkDocs calls while it builds the site: links that lead out of docs/ become text, and pictures are copied."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]+)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")  # relative


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's Markdown for the site, which has no copy of what lies beside docs/."""
    folder = Path(page.file.abs_src_path).parent

    def link(found: re.Match[str]) -> str:
        target = (folder / found["path"]).resolve()
        if target.is_relative_to(config["docs_dir"]):
            return found[0]
        if not found["picture"]:
            return found["text"]
        copy = File.generated(config, f"pictures/{target.name}", abs_src_path=str(target))
        files.append(copy)
        return f"![{found['text']}]({'../' * page.file.src_uri.count('/')}{copy.src_uri})"

    return LINK.sub(link, markdown)

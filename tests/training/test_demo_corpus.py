"""The built-in corpus is made from an imitation of installed packages."""

import json
from pathlib import Path

import pytest

from models.errors import UserError
from training import demo_corpus


def rows_of(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def test_modules_are_dealt_out_once_and_nothing_is_run(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(30))
    for package in demo_corpus.PACKAGES:
        for module in range(40):
            path = tmp_path / "site" / package / f"m{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                f'"""{package} {module} {words}"""\ndef f():\n    """too short"""\n'
                f'def g():\n    """the same everywhere {words}"""\nraise SystemExit\n'
            )
    (tmp_path / "site" / "torch" / "broken.py").write_text("def (")
    for folder in ("first", "second"):
        demo_corpus.write(tmp_path / "site", tmp_path / folder)
    rows = rows_of(tmp_path / "first")
    assert rows == rows_of(tmp_path / "second")
    labelled = [row for name in ("train", "validation", "test") for row in rows[name]]
    assert len({row["text"] for row in labelled}) == len(labelled) == 40 * len(demo_corpus.PACKAGES) + 1
    for name in ("train", "validation", "test"):
        assert {row["package"] for row in rows[name]} == set(demo_corpus.PACKAGES)
    assert sum(row["text"].startswith("the same everywhere") for row in rows["corpus"]) == 1
    assert all(set(row) == {"id", "text", "module"} for row in rows["corpus"])


def test_a_missing_package_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `make install`"):
        demo_corpus.write(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()

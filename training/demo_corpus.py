"""Make a labelled corpus of the docstrings of installed packages, which every installation has.

    python -m training.demo_corpus --output data/demo

The task is to tell which package a docstring comes from. Each module goes to one split with all its docstrings, so
similar docstrings of a module never end up in two splits.
"""

import ast
import hashlib
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.arguments import Parser
from models.errors import UserError, exit_code
from training import output_folder

PACKAGES = (
    "apache_beam",
    "datasets",
    "google",
    "huggingface_hub",
    "networkx",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
FEWEST_WORDS = 25  # words of a docstring that is long enough
PER_PACKAGE = {"train": 200, "validation": 50, "test": 80}
CORPUS_PER_PACKAGE = 400
Row = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Write train, validation and test with labels, and corpus.jsonl without. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: write(Path(sysconfig.get_paths()["purelib"]), make_parser().parse(argv).output))


def make_parser() -> Parser:
    """Return the parser of `training.demo_corpus`."""
    parser = Parser("python -m training.demo_corpus", __doc__)
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="folder for the four files"
    )
    return parser


def write(site_packages: Path, output: Path) -> None:
    """Write the four files. The same packages give the same bytes.

    Raises:
        UserError: a package is not installed.
    """
    parts: dict[str, list[Row]] = {name: [] for name in (*PER_PACKAGE, "corpus")}
    seen: set[str] = set()
    for package in PACKAGES:
        if not (site_packages / package).is_dir():
            raise UserError(f"expected the package {package} in {site_packages}, found none: run `make install`.")
        for split, rows in _rows(site_packages, package, seen).items():
            parts[split] += rows
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        rows.sort(key=lambda row: _hash(row["id"]))
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{output / name}.jsonl: {len(rows):,} docstrings of {len(PACKAGES)} packages")


def _rows(site_packages: Path, package: str, seen: set[str]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {name: [] for name in (*PER_PACKAGE, "corpus")}
    modules = [str(path.relative_to(site_packages)) for path in (site_packages / package).rglob("*.py")]
    for module in sorted(modules, key=lambda name: _hash(f"order:{name}")):
        split = _split_of(module)
        full = len(rows[split]) >= PER_PACKAGE[split]
        if full and len(rows["corpus"]) >= CORPUS_PER_PACKAGE:
            if all(len(rows[name]) >= count for name, count in PER_PACKAGE.items()):
                break
            continue
        for place, text in docstrings(site_packages / module):
            if text in seen:
                continue
            seen.add(text)
            row = {"id": f"{module}:{place}", "text": text}
            if len(rows[split]) < PER_PACKAGE[split]:
                rows[split].append({**row, "package": package})
            if len(rows["corpus"]) < CORPUS_PER_PACKAGE:
                rows["corpus"].append({**row, "module": module})
    return rows


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Return each docstring that is long enough, with its line. The module is parsed, and never imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages may have outdated escapes in their source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text.split()) >= FEWEST_WORDS:
                yield str(getattr(node, "lineno", 1)), text.encode("utf-8", "replace").decode()


def _split_of(module: str) -> str:
    place = int(_hash(module)[:8], 16) / 2**32
    return "test" if place < 0.2 else "validation" if place < 0.3 else "train"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

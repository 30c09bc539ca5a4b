"""What is shipped and what it needs: the wheel's content, setup.py's requirements, the pinned versions."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from inference.dataflow import image_context

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "training", "inference")
STANDARD_LIBRARY = {*sys.stdlib_module_names, "compression"}  # the latter from Python 3.14 on
PINS = ("requirements.txt", "requirements-dev.txt", "requirements-demo.txt", "requirements-torch.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy of the tree that also holds a trained model, as a working tree does."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("MANIFEST.in", *image_context.SOURCES):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("trained", "__pycache__"))
    (tree / "models/trained/mine").mkdir(parents=True)
    (tree / "models/trained/mine/model.pth").write_bytes(b"weights")
    build = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout + build.stderr
    (path,) = out.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


def asked_by(wheel: zipfile.ZipFile) -> list[Requirement]:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(wheel.read(metadata).decode())
    return [Requirement(line) for line in fields.get_all("Requires-Dist", [])]


@pytest.fixture(scope="module")
def requirements(wheel: zipfile.ZipFile) -> dict[str, Requirement]:
    """What an installation of the wheel asks for, by canonical name."""
    return {canonicalize_name(r.name): r for r in asked_by(wheel) if "extra" not in str(r.marker)}


@pytest.fixture(scope="module")
def optional(wheel: zipfile.ZipFile) -> set[str]:
    """What its extras ask for, the tools of development aside."""
    extras = ('extra == "openvino"', 'extra == "onnxruntime"', 'extra == "s3"')
    return {canonicalize_name(r.name) for r in asked_by(wheel) if str(r.marker) in extras}


def pins(file: str) -> list[str]:
    """The requirements of one file, without hashes and comments."""
    lines = (ROOT / file).read_text().splitlines()
    return [line.rstrip(" \\") for line in lines if re.match("[a-z]", line)]


def pinned(file: str) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in pins(file)}


def source_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path for path in (ROOT / package).rglob("*.py") if "trained" not in path.parts)


def imported(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Dotted names of everything a module imports, wherever in it the import stands; or of what it imports at once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def owners() -> dict[str, list[str]]:
    """Top-level package to the distributions that install into it."""
    return {top: sorted({*names}) for top, names in packages_distributions().items()}


@cache
def modules(distribution_name: str) -> set[str]:
    """Every dotted prefix of what a distribution installs."""
    files = (str(file).removesuffix(".py").split("/") for file in distribution(distribution_name).files or [])
    return {".".join(parts[:length]) for parts in files for length in range(1, len(parts) + 1)}


def providers(name: str) -> set[str]:
    """Distributions that `name` may come from; in a namespace such as google.cloud, those that hold most of it."""
    found = owners().get(name.partition(".")[0], [])
    while len(found) > 1 and not any(name in modules(d) for d in found):
        name = name.rpartition(".")[0]
    return {canonicalize_name(d) for d in found if len(found) == 1 or name in modules(d)}


def test_wheel_holds_the_three_packages_and_their_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    code = {str(path.relative_to(ROOT)) for path in source_files()}
    kinds = ("configs/**/*.toml", "cost/*.toml", "beam_flags.txt", "**/templates/*")
    data = {path for package in PACKAGES for kind in kinds for path in (ROOT / package).glob(kind)}
    front_door = {"labelbeam.py", "labelbeam.pth"}
    image = {f"inference/dataflow/image/{name}" for name in image_context.SOURCES}
    assert found == code | front_door | image | {str(path.relative_to(ROOT)) for path in data}


def test_an_image_can_be_built_from_an_installed_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Its RECORD tells its files from others beside them, even if a clone of something else surrounds it."""
    installed, context = tmp_path / "site-packages", tmp_path / "context"
    wheel.extractall(installed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in (".env", "inference/.env", "models/id_rsa", "inference/dataflow/image/.env"):
        (installed / name).write_text("secret")
    script = (
        f"from inference.dataflow import image_context as c; c.fill([], c.Path({str(context)!r})); print(c.commit())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, context],
        capture_output=True, text=True, check=False, cwd=installed, env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "unknown\n"), done.stderr
    filled = {str(path.relative_to(context)): path for path in context.rglob("*") if path.is_file()}
    packages = {name for name in wheel.namelist() if name.split("/")[0] in PACKAGES}
    own = {name for name in packages if not name.startswith("inference/dataflow/image/")}
    assert set(filled) == own | {*image_context.SOURCES}
    assert {name for name, path in filled.items() if path.read_bytes() != (ROOT / name).read_bytes()} == set()


def test_every_import_is_a_named_requirement(requirements: dict[str, Requirement], optional: set[str]) -> None:
    named = {*requirements, *optional, *pinned("requirements-demo.txt")}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in source_files()
        for name in imported(path)
        if name.split(".")[0] not in {*STANDARD_LIBRARY, *PACKAGES, "labelbeam"} and not providers(name) & named
    }
    assert not missing, f"add to setup.py what these imports need: {sorted(missing)}"


def test_what_an_extra_brings_is_imported_where_it_is_used(optional: set[str]) -> None:
    assert optional >= {"openvino", "nncf", "onnxruntime", "boto3"}
    at_once = {path.name for path in source_files() for n in imported(path, at_once=True) if providers(n) & optional}
    assert not at_once


@pytest.mark.parametrize("file", PINS)
def test_every_pin_is_exact_and_names_no_index(file: str) -> None:
    for line in pins(file):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line), line


@pytest.mark.parametrize("file", PINS[:3])
def test_every_pin_has_hashes(file: str) -> None:
    blocks = re.split(r"^(?=[a-z])", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(file)) > 0
    for block in blocks:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", block, re.MULTILINE), block


def test_no_package_is_pinned_in_two_files() -> None:
    names = [name for file in PINS for name in pinned(file)]
    assert len(names) == len(set(names))


def test_pins_satisfy_setup_py(requirements: dict[str, Requirement]) -> None:
    pinned = map(Requirement, [*pins("requirements.txt"), *pins("requirements-torch.txt")])
    versions = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in pinned}
    found = {name: versions.get(canonicalize_name(name), "0") for name in requirements}
    wrong = {name: found[name] for name, r in requirements.items() if found[name] not in r.specifier}
    assert not wrong, "run `make lock`"


def test_one_beam_version_everywhere(requirements: dict[str, Requirement]) -> None:
    (pin,) = (line for line in pins("requirements.txt") if line.startswith("apache-beam=="))
    major_minor = pin.removeprefix("apache-beam==").rsplit(".", 1)[0]
    assert str(requirements["apache-beam"]) == f"apache-beam[gcp]=={major_minor}.*"


def test_torch_brings_its_own_cuda_libraries() -> None:
    assert not [line for line in pins("requirements.txt") if line.startswith(("nvidia", "cuda", "triton"))]

"""Gathers the files that an image is built from: labelbeam's own, and those of the named models. It adds no others.

In a clone git says which files are labelbeam's own, and in an installation the wheel's RECORD does. So a key, a `.env`
or a draft that lies beside them reaches no image.
"""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from inference.scoring import conversion_folder
from models import trained_model
from models.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = Path(__file__).with_name("image")  # holds the SOURCES in a wheel; setup.py puts them there
SOURCES = (
    *("Dockerfile", "LICENSE", "README.md", "pyproject.toml", "setup.py"),
    *("labelbeam.py", "labelbeam.pth", "deploy/flex_template/main.py"),
    *("requirements.txt", "requirements-dev.txt", "requirements-torch.txt"),
)
PACKAGES = ("inference", "models", "training")
MODELS = "models/trained"
VARIANT = (
    conversion_folder.MANIFEST,
    conversion_folder.OPENVINO,
    conversion_folder.OPENVINO_WEIGHTS,
    conversion_folder.PROOF,
)


def fill(directories: Sequence[str], context: Path) -> None:
    """Copy labelbeam's own files and those of the models into an empty folder.

    Raises:
        UserError: a file is a symbolic link, or neither git nor a wheel says which files are labelbeam's own.
    """
    packages = _tracked() or _recorded()
    if not packages:
        raise UserError(
            f"expected a git clone or an installed wheel of labelbeam, which tells its own files from others, found "
            f"neither at {ROOT}; clone the project and check `git status` there, or install its wheel."
        )
    sources = ROOT if (ROOT / "Dockerfile").is_file() else BUNDLE
    for folder, names in ((sources, SOURCES), (ROOT, packages)):
        for name in names:
            _copy(folder, name, context)
    for directory in directories:
        manifest = trained_model.read_manifest(directory)
        target = context / MODELS / trained_model.model_name(directory)
        for name in (trained_model.MANIFEST, *manifest.files):
            _copy(Path(directory), name, target)
        variant = f"{conversion_folder.FOLDER}/{conversion_folder.int8(manifest).name}"
        for name in VARIANT:
            if (Path(directory) / variant / name).exists():
                _copy(Path(directory), f"{variant}/{name}", target)


def commit() -> str:
    """Return the clone's commit with `-dirty` if tracked files have changed, or `unknown` without git."""
    return (_git("describe", "--always", "--abbrev=40", "--dirty", "--match=") or "unknown").strip()


def _tracked() -> list[str]:
    """Return the files of the packages that git tracks, without deleted ones; none if this is no clone."""
    listed = (_git("ls-files", "-z", "--", *PACKAGES) or "").split("\0")
    return [name for name in listed if name and not name.startswith(f"{MODELS}/") and (ROOT / name).exists()]


def _git(*arguments: str) -> str | None:
    """Return what git prints about ROOT; None without git, or if ROOT only lies in a clone of something else."""
    if not (ROOT / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607  (whichever git the user has)
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _recorded() -> list[str]:
    """Return the files of the packages that the installed wheel brought; none if this is no installation of one."""
    try:
        distribution = metadata.distribution("labelbeam")
    except metadata.PackageNotFoundError:
        return []
    if Path(str(distribution.locate_file(""))).resolve() != ROOT:
        return []
    bundle = BUNDLE.relative_to(ROOT)
    files = [file for file in distribution.files or () if file.parts[0] in PACKAGES and file.suffix != ".pyc"]
    return [str(file) for file in files if not Path(file).is_relative_to(bundle)]


def _copy(folder: Path, name: str, target: Path) -> None:
    """Copy a file to the same place below `target`. A link is refused, since it may lead to what nobody named."""
    source = folder / name
    if (leads_to := source.resolve()) != folder.resolve() / name:
        raise UserError(f"{source}: expected a file, found a symbolic link to {leads_to}; copy the file itself there.")
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target / name)

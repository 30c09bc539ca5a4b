"""Keeps conversions beside the model, or else in the user's cache, and loads only what was checked.

The files of a conversion are read once, compared with its manifest, and given to the runtime as the bytes that were
compared. Torch is imported only to make a conversion.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from inference.scoring import conversion_folder
from inference.scoring.conversion_folder import ChangedError, Checked, Conversion
from inference.scoring.verified_model import VerifiedModel
from models.errors import ModelError
from models.trained_model import Manifest


def has_int8(manifest: Manifest, directory: str | os.PathLike[str]) -> bool:
    """Return whether the model has an int8 variant of its present weights, with its manifest."""
    folder = conversion_folder.path_of(directory, conversion_folder.int8(manifest))
    return (folder / conversion_folder.MANIFEST).is_file()


def int8_folder(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Return the folder of the model's int8 variant.

    Raises:
        ModelError: the model has no int8 variant of its present weights.
    """
    if not has_int8(manifest, directory):
        raise ModelError(
            f"Model {str(directory)!r} has no int8 variant of these weights with a {conversion_folder.MANIFEST}; make "
            f"one with `python -m inference.optimize --model {directory} --data LABELLED`, or choose another "
            "--precision."
        )
    return conversion_folder.path_of(directory, conversion_folder.int8(manifest))


def int8(manifest: Manifest, directory: str | os.PathLike[str]) -> Checked:
    """Return the checked files of the model's int8 variant.

    Raises:
        ModelError: the model has no int8 variant of its present weights, or it is not as `inference.optimize` made it.
    """
    folder = int8_folder(manifest, directory)
    try:
        return conversion_folder.read(folder, conversion_folder.int8(manifest))
    except ChangedError as error:
        raise ModelError(
            f"{folder}: expected the int8 variant as it was made, found {error}; make it again with `python -m "
            f"inference.optimize --model {directory} --data LABELLED`, or choose another --precision."
        ) from None


def exact(model: VerifiedModel, package: str) -> contextlib.AbstractContextManager[Checked]:
    """Return a context with the checked files of the conversion by this package, as `kept` gives them.

    The body has to prove a new conversion.
    """

    def make(folder: Path) -> None:
        from inference.scoring import converters

        converters.convert(model.trained, package, folder)

    return kept(model, conversion_folder.exact(model.manifest, package), make)


@contextlib.contextmanager
def kept(
    model: VerifiedModel,
    expected: Conversion,
    make: Callable[[Path], None],
    check: Callable[[Checked], None] = lambda _: None,
) -> Iterator[Checked]:
    """Give the checked files of a conversion; make them in an empty folder if there are none as they were made.

    New files are kept when the body ends without an exception: beside the model, or in the user's cache if the model's
    directory cannot be written. `check` raises a ChangedError about files that are of no use here.

    Raises:
        ModelError: a link leads from the conversion out of the model's directory.
    """
    found: dict[Path, tuple[int, int] | None] = {}
    changes = []
    for home in conversion_folder.homes(model.directory):
        folder = conversion_folder.path_of(home, expected)
        found[folder] = conversion_folder.identity(folder)
        checked = _unchanged(folder, expected, check) if found[folder] else None
        if isinstance(checked, Checked):
            yield checked
            return
        if checked:
            changes.append(f"{folder}: expected the conversion as it was made, found {checked}; converting again.")
    for change in changes:
        print(f"warning: {change}", file=sys.stderr)
    with _staging(list(found)) as (staging, target):
        make(staging)
        yield conversion_folder.seal(staging, expected)
        if target:
            with contextlib.suppress(OSError):  # another process may have been faster
                conversion_folder.publish(staging, target, found[target])


def _unchanged(folder: Path, expected: Conversion, check: Callable[[Checked], None]) -> Checked | ChangedError:
    """Return the checked files of a conversion, or what has changed."""
    try:
        checked = conversion_folder.read(folder, expected)
        check(checked)
    except ChangedError as error:
        return error
    return checked


@contextlib.contextmanager
def _staging(folders: list[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Give an empty folder beside the first of these that can be written, and that one. Delete what is left of it.

    If none can be written, give a temporary folder and None.
    """
    staging: str | None = None
    target: Path | None = None
    for folder in folders:
        with contextlib.suppress(OSError):  # the model may lie in a read-only image
            folder.parent.mkdir(exist_ok=True)
            staging, target = tempfile.mkdtemp(prefix=".", dir=folder.parent), folder
            break
    staging = staging or tempfile.mkdtemp(prefix="labelbeam_")
    try:
        yield Path(staging), target
    finally:
        shutil.rmtree(staging, ignore_errors=True)

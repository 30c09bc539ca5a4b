"""Knows which files in a folder belong to a run, and deletes those that are no longer needed and no others."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator

from inference.corpus import slices, storage
from inference.runs import receipts, sink, slice_list, summary
from inference.runs.lock import LOCK, TASKS

RUN, SCHEMA, REPORT = "run.json", "schema.json", "report.html"
CLAIMS = "claims"  # of a run that is shared between tasks
AUDITS = "audits"  # estimates of the audits of a run, which its report shows
FILES = (LOCK, RUN, SCHEMA, REPORT, summary.SUMMARY, slice_list.SLICES)
# The folders of a run, and the pattern of the names in each. A run deletes only files with these names.
FOLDERS = {
    receipts.RECEIPTS: rf"{slices.NAME}\.[0-9a-f]{{8}}\.json",
    sink.PREDICTIONS: rf"{slices.NAME}\.[0-9a-f]{{8}}-[0-9a-f]{{16}}\.(jsonl|parquet)",
    sink.FAILURES: rf"{slices.NAME}\.[0-9a-f]{{8}}-[0-9a-f]{{16}}\.jsonl",
    sink.IDS: rf"{slices.NAME}\.[0-9a-f]{{8}}-[0-9a-f]{{16}}\.bin",
    slice_list.COPIES: slices.COPY,
    sink.ATTEMPTS: rf"{slices.NAME}\.[0-9a-f]{{8}}",
    TASKS: r"[0-9a-f]{32}",
    AUDITS: r"audit-[0-9a-f]{8}\.json",
    CLAIMS: rf"({slices.NAME}|slices|summary)\.[0-9a-f]{{8}}\.\d{{3}}",
}
PARTIAL = rf"\.[0-9a-f]{{32}}{re.escape(storage.PART_SUFFIX)}"  # end of the name of a local file that is being written
BATCH = 1000  # files that `clear` deletes between two looks at whose folder it is
NFS = ".nfs"  # start of the name that NFS gives to a deleted file which a process still has open


def of(output: str, folder: str) -> Iterator[str]:
    """Yield the names in one of the FOLDERS that only a run gives, finished or partial."""
    return (name for name in storage.listing(storage.join(output, folder)) if _is_own(name, folder))


def strangers(output: str, overwrite: bool) -> Iterator[str]:
    """Yield what does not belong to a run. A remote folder is only searched where files will be deleted."""
    if storage.is_remote(output):
        folders = FOLDERS if overwrite else ()
    elif os.path.isdir(output):
        folders = FOLDERS
        for entry in sorted(os.scandir(output), key=lambda entry: entry.name):
            is_own = entry.name in FOLDERS if entry.is_dir() else _is_own_file(entry.name)
            if not is_own and not entry.name.startswith(NFS):
                yield entry.name
    else:
        return
    for folder in folders:
        names = storage.listing(storage.join(output, folder))
        yield from (f"{folder}/{n}" for n in sorted(names) if not (_is_own(n, folder) or n.startswith(NFS)))


def delete_shared(output: str) -> None:
    """Delete what tasks have shared, once nobody needs it any more, but not what others are writing."""
    for folder in (CLAIMS, TASKS):
        _delete_whole(output, folder)


def delete_claims(output: str) -> None:
    """Free all slices and the summary. A claim only saves work."""
    _delete_whole(output, CLAIMS)


def delete_copies(output: str) -> None:
    """Delete the copies of text that a killed worker has left. Every slice is finished."""
    _delete_whole(output, slice_list.COPIES)


def _delete_whole(output: str, folder: str) -> None:
    names = [name for name in of(output, folder) if not name.endswith(storage.PART_SUFFIX)]
    storage.delete(storage.join(output, folder), names)


def tidy_up(output: str) -> None:
    """Delete what tasks have shared, and the local files that a killed process left half-written."""
    delete_shared(output)
    if storage.is_remote(output):
        return
    storage.delete(output, [name for name in storage.listing(output) if _is_partial(name)])
    for folder in FOLDERS:
        names = [name for name in of(output, folder) if name.endswith(storage.PART_SUFFIX)]
        storage.delete(storage.join(output, folder), names)


def delete_empty_folders(output: str) -> None:
    """Delete local folders of unfinished work, unless files are in them: of unfinished slices, or of other tasks."""
    if not storage.is_remote(output):
        for folder in (sink.ATTEMPTS, slice_list.COPIES, CLAIMS, TASKS):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(output, folder))


def clear(output: str, require_own: Callable[[], None]) -> None:
    """Delete the files of a run, and nothing else. `run.json` goes first, so that the old run's workers stop.

    `require_own` is called before each batch of files. It raises an error if another command has taken the folder.
    """
    require_own()
    storage.delete(output, [RUN])
    for folder in FOLDERS:
        names = list(of(output, folder))
        for start in range(0, len(names), BATCH):
            require_own()
            storage.delete(storage.join(output, folder), names[start : start + BATCH])
    names = [name for name in storage.listing(output) if _is_own_file(name)]
    require_own()
    storage.delete(output, [name for name in names if name != LOCK])


def _is_own(name: str, folder: str) -> bool:
    return re.fullmatch(rf"{FOLDERS[folder]}({PARTIAL})?", name) is not None


def _is_own_file(name: str) -> bool:
    return name in FILES or _is_partial(name)


def _is_partial(name: str) -> bool:
    return any(re.fullmatch(re.escape(whole) + PARTIAL, name) for whole in FILES)

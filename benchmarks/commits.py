"""Runs the commands of an earlier commit beside those of this one."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import environment

# Finds the packages of the clone that is named first, whichever one is installed and was imported when Python started.
FROM_CLONE = "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.modules.pop('labelbeam', None); "
# Runs a command of the clone that is named first.
PROGRAM = (
    FROM_CLONE + "import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


@contextmanager
def clone_of(commit: str | None) -> Iterator[Path | None]:
    """Check an earlier commit out into a folder of its own."""
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(environment.ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", f"{folder}/clone", commit], check=True)
        try:
            yield Path(folder) / "clone"
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/clone"], check=True)

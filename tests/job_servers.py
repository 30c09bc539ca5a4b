"""Starts what a portable engine needs on this machine: a Prism job server, and pools of worker processes."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

NEARBY = sorted(Path(__file__).parents[2].glob("shared/prism/*-prism-*.zip"))
PRISM = Path(os.environ["PRISM_LOCATION"]) if "PRISM_LOCATION" in os.environ else next(iter(NEARBY), None)
POOL = (sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def job_server(folder: Path) -> Iterator[str]:
    """Run Prism's job server, and yield its address."""
    assert PRISM
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(PRISM) as archive:
        binary = Path(archive.extract(archive.namelist()[0], folder))
    binary.chmod(0o755)
    port = free_port()
    with _running(binary, "-job_port", str(port), "-serve_http=false", "-log_level", "warn", cwd=folder):
        wait_for(port)
        yield f"localhost:{port}"


@contextlib.contextmanager
def pool(folder: Path, path: Path = Path(sys.executable).parent, **environment: str) -> Iterator[str]:
    """Run a pool of workers in another folder and environment, whose `python` lies in `path`. Yield its address."""
    port = free_port()
    variables = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(folder), **environment}
    with _running(*POOL, f"--service_port={port}", cwd=folder, env=variables):
        wait_for(port)
        yield f"127.0.0.1:{port}"


def workers_of(output: Path) -> list[int]:
    """Return the numbers of the worker processes of all pools that write into a folder."""
    found = subprocess.run(["pgrep", "-f", "import SdkHarness"], capture_output=True, text=True, check=False).stdout
    homes = {int(pid): _environment(int(pid)) for pid in found.split()}
    return [pid for pid, variables in homes.items() if f"HOME={output.parent}".encode() in variables]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@contextlib.contextmanager
def _running(*command: object, cwd: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=env or dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int) -> None:
    """Wait until something listens on a port."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")

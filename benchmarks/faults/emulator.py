"""Serves an emulator of Cloud Storage in its own process, with faults that are switched on and off by name.

python -m benchmarks.faults.emulator      # prints its address, then reads the names of faults from standard input
"""

import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import environment
from inference.corpus import storage
from tests import cloud_storage
from tests.cloud_storage import LOST, Fault

BUCKET = "bucket"
NO_AUTH = "--no_auth"


FAULTS: dict[str, Fault] = {
    "none": lambda _method, _path: None,
    "late": lambda _method, _path: random.uniform(0.2, 0.5),
    "twice": cloud_storage.every(5, LOST),
    "unavailable": lambda _method, _path: 503 if random.random() < 0.1 else None,
}


@dataclass
class Cloud:
    """An emulator in another process, which STORAGE_EMULATOR_HOST names to this process and its children."""

    process: subprocess.Popen[str]

    def fault(self, name: str) -> int:
        """Switch to a fault. Return how many requests the earlier one hit."""
        assert self.process.stdin
        assert self.process.stdout
        print(name, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@contextmanager
def running() -> Iterator[Cloud]:
    """Run the emulator while the body runs."""
    command = [sys.executable, "-m", "benchmarks.faults.emulator"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=environment.ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        os.environ["STORAGE_EMULATOR_HOST"] = process.stdout.readline().strip()
        storage.configure([NO_AUTH])
        try:
            yield Cloud(process)
        finally:
            process.stdin.close()
            process.wait()


def main() -> None:
    """Serve until standard input ends."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    with cloud_storage.running(BUCKET) as cloud:
        print(cloud.url, flush=True)
        for line in sys.stdin:
            hit, cloud.failed = cloud.failed, 0
            cloud.fault = FAULTS[line.strip()]
            print(hit, flush=True)


if __name__ == "__main__":
    main()

"""Settings of all tests."""

import functools
import os
import sys

import pytest
from apache_beam.transforms import userstate
from hypothesis import settings

settings.register_profile("labelbeam", deadline=None)  # a slow machine is no failure
settings.load_profile("labelbeam")

# Processes that test side by side get a core each: what counts cores finds one, and nothing is oversubscribed.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# A run spends a third of its launch in what Beam asks again and again: for the states of each step, and for the size
# and language of the terminal whenever it reads a flag.
userstate.get_dofn_specs = functools.lru_cache(200)(userstate.get_dofn_specs)
os.environ |= {"COLUMNS": "80", "LINES": "25", "LANGUAGE": "C"}

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # tests import OpenVINO before our code does so


@pytest.fixture(autouse=True)
def no_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a container engine runs on this machine matters to the tests of the image alone."""
    if not request.node.get_closest_marker("docker"):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")

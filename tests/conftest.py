"""Settings of all tests."""

import os

import pytest
from hypothesis import settings

settings.register_profile("labelbeam", deadline=None)  # a slow machine is no failure
settings.load_profile("labelbeam")

# Processes that test side by side get a core each: what counts cores finds one, and nothing is oversubscribed.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(autouse=True)
def no_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a container engine runs on this machine matters to the tests of the image alone."""
    if not request.node.get_closest_marker("docker"):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")

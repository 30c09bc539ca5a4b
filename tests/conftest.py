"""Settings of all tests."""

import pytest
from hypothesis import settings

settings.register_profile("labelbeam", deadline=None)  # a slow machine is no failure
settings.load_profile("labelbeam")


@pytest.fixture(autouse=True)
def no_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a container engine runs on this machine matters to the tests of the image alone."""
    if not request.node.get_closest_marker("docker"):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")

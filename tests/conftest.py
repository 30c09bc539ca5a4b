"""Settings of all tests."""

import functools
import json
import os
import sys
from pathlib import Path

import pytest
from apache_beam.transforms import userstate
from hypothesis import settings

RECORDS = Path(__file__).parents[1] / "docs" / "engines.json"  # what has run where; a page shows it as a table
_seen: list[tuple[str, str, str]] = []  # engine, what was shown, and the test that showed it

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help=f"write what has run on which engine into {RECORDS.name}")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call" and not call.excinfo:
        item.user_properties += [("engine", marker.args) for marker in item.iter_markers("engine")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note in the main process what a test that passed has shown."""
    if report.when == "call" and report.passed:
        shown = [tuple(map(str, value)) for name, value in report.user_properties if isinstance(value, list | tuple)]
        _seen.extend((engine, what, report.nodeid) for engine, what in shown)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _seen and session.config.getoption("--record") and not worker:
        from benchmarks import environment

        here = environment.describe()
        where = f"{here['hardware']['cpu']}, {here['hardware']['cores']} cores"
        records = {(r["engine"], r["shown"]): r for r in json.loads(RECORDS.read_text())} if RECORDS.exists() else {}
        for engine, shown, test in _seen:
            facts = {"commit": here["commit"], "date": here["date"][:10], "where": where, "command": f"pytest {test}"}
            records[engine, shown] = {"engine": engine, "shown": shown, **facts}
        RECORDS.write_text(json.dumps([records[key] for key in sorted(records)], indent=1) + "\n")

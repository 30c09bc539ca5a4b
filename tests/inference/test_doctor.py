"""Tests what the doctor prints about this machine, and about good and damaged models."""

import json
from pathlib import Path

import pytest
import torch
from google.auth.exceptions import DefaultCredentialsError

from inference import doctor


@pytest.fixture(autouse=True)
def wide_terminal_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find no credentials without a search on the network, and print wide lines."""

    def refuse() -> None:
        raise DefaultCredentialsError("none")  # type: ignore[no-untyped-call]  # google-auth has no types for it

    monkeypatch.setattr("google.auth.default", refuse)
    monkeypatch.setenv("COLUMNS", "200")


def test_a_machine_that_is_ready(
    colours: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.main(["--model", str(colours)]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__ in printed
    assert "--runtime auto" in printed
    assert "every file is unchanged" in printed
    assert doctor.main(["--model", str(colours), "--json"]) == 0
    findings = {row["what"]: row["found"] for row in json.loads(capsys.readouterr().out)}
    assert findings["torch"] == torch.__version__
    assert all(finding.split()[0] in printed for finding in findings.values())


def test_a_model_that_was_changed(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "colours"
    copy.mkdir()
    for file in colours.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "model.pth"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert doctor.main(["--model", str(copy)]) == 1
    assert "model.pth" in capsys.readouterr().out

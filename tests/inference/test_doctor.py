"""Tests what the doctor prints about this machine, and about good and damaged models."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from google.auth.exceptions import DefaultCredentialsError

from docs.figures import figures
from inference import doctor
from inference.scoring import conversion_folder
from models import hardware, trained_model
from tests.inference.conftest import int8_variant

INT8 = figures()["without_bf16.int8_speedup"]


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


def test_engines_are_named_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> dict[str, str]:
        assert doctor.main(["--json"]) == 0
        return {row["what"]: row["found"] for row in json.loads(capsys.readouterr().out)}

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    nothing = found()
    assert nothing["PrismRunner"].startswith("none here; Beam downloads it")
    assert nothing["labelbeam worker"].startswith("no scheduler found")
    assert nothing["FlinkRunner, SparkRunner"] == "no Java for the job server"
    assert nothing["S3"] == "endpoint: Amazon's; credentials: neither variables nor a profile"
    for name in ("bin/sbatch", "bin/java", ".apache_beam/cache/prism/bin/apache_beam-v2-prism-linux-amd64"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:5000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    some = found()
    assert some["PrismRunner"].endswith("prism-linux-amd64")
    assert some["labelbeam worker"] == "Slurm"
    assert str(tmp_path / "bin" / "java") in some["FlinkRunner, SparkRunner"]
    assert some["S3"] == "endpoint: http://localhost:5000; credentials: found"


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


def test_conversions_that_were_changed(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    model = Path(shutil.copytree(colours, tmp_path / "m", ignore=shutil.ignore_patterns("runtimes")))
    variant = int8_variant(model)
    kind = conversion_folder.exact(trained_model.read_manifest(model), "openvino")
    exact = Path(shutil.copytree(variant, conversion_folder.path_of(model, kind)))
    conversion_folder.seal(exact, kind)

    def findings(code: int) -> dict[str, dict[str, object]]:
        assert doctor.main(["--model", str(model), "--json"]) == code
        return {row["what"]: row for row in json.loads(capsys.readouterr().out)}

    good = findings(0)
    assert {good[str(folder)]["found"] for folder in (variant, exact)} == {"every file is unchanged"}
    for folder in (variant, exact):
        (folder / "model.bin").write_bytes(b"other weights")
    bad = findings(1)
    assert not bad[str(exact)]["good"]
    assert re.search("found model.bin changed .*; the next run that uses it makes it", str(bad[str(exact)]["found"]))
    assert re.search("model.bin changed .*; make it again with python -m inference", str(bad[str(variant)]["found"]))
    shutil.rmtree(exact)
    exact.symlink_to(tmp_path)
    assert "found a link to" in str(findings(1)[str(exact)]["found"])


@pytest.mark.parametrize(
    ("int8", "bf16", "found"),
    [
        (False, False, "slower than fp32, because the processor has no int8 products"),
        (True, True, "hardly faster than bf16"),
        (True, False, f"about {INT8} times as fast as fp32; `labelbeam optimize` makes and proves it"),
    ],
)
def test_what_int8_would_give_is_said_before_it_is_made(
    int8: bool, bf16: bool, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware, "has_int8", lambda: int8)
    monkeypatch.setattr(hardware, "has_bf16", lambda _: bf16)
    assert doctor.main([]) == 0
    assert found in capsys.readouterr().out

"""Models of several seeds share their data, and their spread is told."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from models import trained_model

SHORT = ("--set", "training.epochs=1")


def test_seeds_differ_in_the_training_alone(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m"
    assert start("multi_label", output, *SHORT, "--seeds", "3", "--set", "training.seed=4") == 0
    manifests = [trained_model.verify(output / f"seed{seed}") for seed in (4, 5, 6)]
    assert len({manifest.files["model.pth"] for manifest in manifests}) == 3
    assert len({manifest.metrics["test"]["data_sha256"] for manifest in manifests}) == 1
    assert len({manifest.training["data_sha256"] for manifest in manifests}) == 1
    found = json.loads((output / "seeds.json").read_bytes())
    scores = [manifest.metrics["test"]["macro_f1"] for manifest in manifests]
    assert found["metrics"]["macro_f1"]["values"] == pytest.approx(scores)
    assert found["metrics"]["macro_f1"]["mean"] == pytest.approx(statistics.mean(scores))
    assert found["metrics"]["macro_f1"]["deviation"] == pytest.approx(statistics.stdev(scores))
    assert found["labels"]["red"]["highest"] == max(m.metrics["test"]["labels"]["red"]["f1"] for m in manifests)
    assert "3 models, alike but for the seed" in capsys.readouterr().out

    (output / "seed6" / "model.json").unlink()  # as if the job had died before the last model
    assert start("multi_label", output, *SHORT, "--seeds", "3", "--set", "training.seed=4", "--resume") == 0
    assert trained_model.verify(output / "seed6").files == manifests[2].files
    assert "seed4 is finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--seeds", "1"), "expected a whole number of at least 2, found '1'"),
        (("--seeds", "2", "--set", "training.one_vs_rest=true"), "expected one model for all labels"),
        (("--seeds", "2", "--push_to_hub", "me/m"), "expected one model for all labels that stays here"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(
    flags: tuple[str, ...],
    problem: str,
    start: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code: object
    try:
        code = start("multi_label", tmp_path / "m", *flags)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "m").exists()

"""Tests the plan of a run: its size, time and cost are printed, and a job that may cost too much is refused."""

import json
import re
from pathlib import Path

import pytest

from inference import beam_runner, estimate_cost
from inference.cost import pricing
from inference.dataflow import launch, spending
from inference.scoring import runtimes
from tests.cloud_storage import CloudStorage
from tests.dataflow import Service
from tests.inference.conftest import BUCKET, launch_flags, upload_folder

pytestmark = pytest.mark.usefixtures("corpus_in_the_cloud")


def test_the_plan_prints_the_cost_and_runs_nothing(
    cloud: CloudStorage, service: Service, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, plan="")) == 0
    printed = capsys.readouterr().out
    assert "1 file, 0.0 MB" in printed
    assert ": 100 documents, 1 slice," in printed
    assert "--max_num_workers 1: enough to finish in 6 hours, and at most one a slice" in printed
    assert "--num_workers 1: all of them from the start, as an estimate assumes" in printed
    assert re.search(
        r"estimate: \$\d+\.\d\d \(\$\d+\.\d\d to \$\d+\.\d\d\), 0\.1 hours with at most 1 worker, whose start costs "
        r"\$0\.\d\d of it;",
        printed,
    )
    assert "prices of 2026-11-21 for us-central1, from apache_beam/" in printed
    assert service.jobs == []
    assert cloud.contents(BUCKET, "out/") == {}


@pytest.mark.parametrize(("runtimes", "measured"), [("openvino", "openvino in"), ("", "torch in")])
def test_a_plan_measures_the_runtime_that_the_image_holds(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    capsys: pytest.CaptureFixture[str],
    runtimes: str,
    measured: str,
) -> None:
    pytest.importorskip("openvino")
    service.labels["org.labelbeam.runtimes"] = runtimes
    assert beam_runner.main(launch_flags(service, model=upload_folder(cloud, colours, "models/colours"), plan="")) == 0
    assert re.search(rf"measured: [\d.,]+ docs/s, {measured}", capsys.readouterr().out)


def test_a_runtime_that_only_workers_have_leaves_the_speed_unknown(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runtimes, "is_installed", lambda name: name != "onnxruntime")
    service.labels["org.labelbeam.runtimes"] = "onnxruntime"
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, runtime="onnxruntime", plan="")) == 0
    printed = capsys.readouterr().out
    assert "the cost is unknown: the speed of a worker cannot be measured on this machine: --runtime onnxr" in printed


def test_a_plan_takes_a_shape_and_prices_of_the_users_own(
    cloud: CloudStorage, service: Service, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    prices = tmp_path / "prices.toml"
    prices.write_text(re.sub("vcpu_hour = .*", "vcpu_hour = 1000.0", pricing.PRICES.read_text()))
    command = launch_flags(service, model=model, machine_type="n2-custom-2-4096", plan="")
    dollars = []
    for flags in ([], ["--prices", str(prices)]):
        assert beam_runner.main([*command, *flags]) == 0
        found = re.search(r"estimate: \$([\d,.]+) ", capsys.readouterr().out)
        assert found
        dollars.append(float(found[1].replace(",", "")))
    assert dollars[1] > 150 > 1 > dollars[0]
    prices.write_text("vcpu_hour = ")
    assert beam_runner.main([*command, "--prices", str(prices)]) == 2
    assert f"--prices {prices} is not valid TOML" in capsys.readouterr().err


def test_a_launcher_that_holds_the_models_knows_the_price(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The launcher of a flex template runs in the image itself, without an engine."""
    monkeypatch.setattr(launch, "MODELS_FOLDER", str(colours.parent))
    assert beam_runner.main(launch_flags(service, model=str(colours), plan="")) == 0
    assert "estimate: $" in capsys.readouterr().out
    service.labels["org.labelbeam.models"] = f"colours={'0' * 64}"  # the image has another model of this name
    assert beam_runner.main(launch_flags(service, model=str(colours), plan="")) == 0
    assert "the cost is unknown: " in capsys.readouterr().out


def test_a_gpu_is_priced_by_a_profile_measured_on_it(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert estimate_cost.main(["--model", str(colours), "--input", str(corpus), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (tmp_path / "cpu.json").write_text(json.dumps(result))
    result["profile"] |= {"device": "Tesla T4", "runtime": "torch in fp16 on GPU"}
    (tmp_path / "profile.json").write_text(json.dumps(result))
    model = upload_folder(cloud, colours, "models/colours")
    service.labels["org.labelbeam.torch"] = "2.13.0+cu128"
    command = launch_flags(service, model=model, accelerator="t4", plan="")
    assert beam_runner.main(command) == 0
    assert "a GPU's speed has to be measured on it" in capsys.readouterr().out
    profile = ["--profile", str(tmp_path / "profile.json")]
    assert beam_runner.main([*command, *profile, "--max_cost", "100"]) == 0
    assert re.search(r"estimate: \$0\.\d\d \(\$0\.\d\d to \$0\.\d\d\)", capsys.readouterr().out)
    assert beam_runner.main([*command, *profile, "--machine_type", "c9-mega"]) == 0
    assert "the prices file has no machine type c9-mega with t4" in capsys.readouterr().out
    assert beam_runner.main([*command, *profile, "--machine_type", "n1-custom-4-8192"]) == 0
    assert "estimate: $" in capsys.readouterr().out
    assert beam_runner.main([*command, *profile, "--precision", "fp32"]) == 2
    assert (
        "expected one measured with --runtime torch and --precision fp32, as the workers score, found torch in fp16"
        in (capsys.readouterr().err)
    )
    assert beam_runner.main([*command, "--profile", str(tmp_path / "cpu.json")]) == 2
    assert "expected one measured on t4, as the machine type has, found one measured on CPU" in capsys.readouterr().err
    (tmp_path / "profile.json").write_text("{}")
    assert beam_runner.main([*command, *profile]) == 2
    assert "expected the output of `python -m inference.estimate_cost --json`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "refusal"),
    [
        ({"precision": "int8"}, "has no int8 variant"),
        ({"max_tokens": "9999"}, "but 9999 were asked for"),
        ({"text_fields": "title"}, "expected a field 'title', found the fields id, text"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_it_costs_anything(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    capsys: pytest.CaptureFixture[str],
    flag: dict[str, str],
    refusal: str,
) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, **flag)) == 2
    assert refusal in capsys.readouterr().err
    assert service.jobs == []


def test_a_job_that_may_cost_too_much_is_refused(
    cloud: CloudStorage, service: Service, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, max_cost="0.001")) == 2
    assert "more than --max_cost 0.001: raise it" in capsys.readouterr().err
    assert service.jobs == []
    assert beam_runner.main(launch_flags(service, model=model, max_cost="5", no_wait="")) == 0
    (pool,) = service.jobs[0]["environment"]["workerPools"]
    assert (pool["numWorkers"], pool["autoscalingSettings"]["maxNumWorkers"]) == (1, 1)


def test_a_job_is_cancelled_when_it_costs_more_than_it_may(
    impatient: None,
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(spending, "POLL_SECONDS", 0.1)
    service.state, service.vcpu_seconds = "JOB_STATE_RUNNING", 100 * 3600
    model = upload_folder(cloud, colours, "models/colours")
    command = launch_flags(service, model=model, max_cost="5")
    assert beam_runner.main(command) == 1
    err = capsys.readouterr().err
    assert "failed: the job has cost about $5.60 so far, more than --max_cost 5, and was cancelled; raise it" in err
    assert f"resumes after them.\npython -m inference.beam_runner {' '.join(command)}\n" in err
    assert "0.0% of the run is finished, 0 lines, and 100.0% is left." in err
    assert service.state == "JOB_STATE_CANCELLED"
    lease = json.loads(cloud.contents(BUCKET, "out/")[".lock"])
    assert (lease["job"], lease["left"]) == (None, True)


def test_a_job_below_its_limit_is_left_alone(
    impatient: None,
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(spending, "POLL_SECONDS", 0.01)
    service.state, service.vcpu_seconds = "JOB_STATE_RUNNING", 3600
    asked: list[float] = []

    def look(self: spending.Spending) -> None:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError("the service is away")
        look_really(self)
        service.state = "JOB_STATE_FAILED"

    look_really = spending.Spending._look
    monkeypatch.setattr(spending.Spending, "_look", look)
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, max_cost="5")) == 1
    err = capsys.readouterr().err
    assert "warning: --max_cost cannot be watched now (the service is away); the job is asked again." in err
    assert "was cancelled" not in err
    assert len(asked) > 1


def test_nobody_watches_a_job_without_waiting(
    cloud: CloudStorage, service: Service, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = upload_folder(cloud, colours, "models/colours")
    assert beam_runner.main(launch_flags(service, model=model, max_cost="5", no_wait="")) == 0
    assert "--max_cost: with --no_wait nobody watches what the job costs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "first", "most"),
    [
        ({}, 20, 20),
        ({"num_workers": "3"}, 3, 3),
        ({"max_num_workers": "4"}, 4, 4),
        ({"max_num_workers": "400"}, 100, 400),  # one a slice
        ({"num_workers": "2", "max_num_workers": "9"}, 2, 9),
    ],
)
def test_every_job_has_a_cap_and_starts_with_enough_workers(
    cloud: CloudStorage,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    flags: dict[str, str],
    first: int,
    most: int,
) -> None:
    """The speed is unknown here, because no engine holds the model. The corpus has 100 slices."""
    size = len(cloud.contents(BUCKET, "a.jsonl")[""])
    command = launch_flags(service, no_wait="", slice_mb=str(size / 99.5 / 2**20), **flags)
    assert beam_runner.main(command) == 0
    (pool,) = service.jobs[0]["environment"]["workerPools"]
    assert (pool["numWorkers"], pool["autoscalingSettings"]["maxNumWorkers"]) == (first, most)
    printed = capsys.readouterr().out
    assert ("--max_num_workers 20: at most one a slice, and 20 while a worker" in printed) is (not flags)
    assert ("--max_num_workers 3: those of --num_workers" in printed) is (flags == {"num_workers": "3"})


def test_a_plan_of_a_local_run(corpus: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["--model", str(colours), "--input", str(corpus), "--output", str(out), "--plan"]
    assert beam_runner.main(command) == 0
    assert re.search(
        r"1 file, 0\.0 MB: (?:29|30)\d \(.*\) documents, 1 slice, 6,\d\d\d .* tokens", capsys.readouterr().out
    )
    assert not out.exists()
    assert beam_runner.main([*command, "--max_cost", "3"]) == 2

"""Tests a launch on Dataflow up to the request, with an emulator of storage and stubs of registry and service."""

import json
import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult

from inference import beam_runner
from inference.corpus import gcs, slices
from inference.cost import pricing
from inference.dataflow import images, launch
from inference.runs import launches, pipeline
from inference.runs.handler import SliceHandler
from inference.runs.options import RunOptions
from inference.scoring.options import ScoringOptions
from tests.cloud_storage import CloudStorage
from tests.dataflow import Service
from tests.inference.conftest import BUCKET, jsonl, launch_flags

pytestmark = pytest.mark.usefixtures("corpus_in_the_cloud")


@pytest.mark.engine("DataflowRunner", "the job is submitted to a stub of the service, which runs nothing")
def test_the_submitted_job_is_the_one_that_the_flags_describe(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beam_runner.main(launch_flags(service, no_wait="", num_workers="3", max_num_workers="40")) == 0
    (job,) = service.jobs
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert {i["containerImage"] for i in pool["sdkHarnessContainerImages"]} == {service.image}
    assert pool["machineType"] == launch.MACHINE
    assert (pool["numWorkers"], pool["autoscalingSettings"]["maxNumWorkers"], pool["diskSizeGb"]) == (3, 40, 50)
    assert job["type"] == 1  # batch
    assert re.fullmatch(r"labelbeam-out-[0-9a-f]{8}", job["name"])
    options = json.dumps(environment["sdkPipelineOptions"])
    assert launch.ONE_PROCESS in options
    assert re.search(r'"number_of_worker_harness_threads": 4\b', options)
    graph = b"".join(cloud.contents(BUCKET, "tmp").values())
    for step in (b"Count", b"ReadSlice", b"RunInference", b"WriteSlice", b"WriteSummary"):
        assert step in graph
    printed = capsys.readouterr().out
    assert "https://console.cloud.google.com/dataflow/jobs/us-central1/2026-11-21_job?project=paper-labels" in printed
    assert "--machine_type n2-highcpu-8: a run needs little memory" in printed
    description = json.loads(cloud.contents(BUCKET, "out/")["run.json"])
    assert description["models"] == [
        {"name": "colours", "path": "/models/colours", "sha256": service.labels["org.labelbeam.models"].split("=")[1]}
    ]


def test_a_job_in_int8_names_the_variant_in_the_image(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = launch_flags(service, no_wait="", precision="int8")
    assert beam_runner.main(flags) == 2
    assert f"expected an int8 variant in image {service.image}, found none" in capsys.readouterr().err
    assert cloud.contents(BUCKET, "out/") == {}
    service.labels["org.labelbeam.models"] += ",colours.int8=00ff"
    assert beam_runner.main(flags) == 0
    (model,) = json.loads(cloud.contents(BUCKET, "out/")["run.json"])["models"]
    assert model["sha256"] == "00ff"
    service.labels["org.labelbeam.models"] = service.labels["org.labelbeam.models"].replace("00ff", "00fe")
    assert beam_runner.main(flags) == 2
    assert "holds another run (models were colours 00ff, now colours 00fe)" in capsys.readouterr().err


def handler_in(graph: bytes) -> SliceHandler:
    """Return the model handler in a staged pipeline, as a worker reads it."""
    components = beam_runner_api_pb2.Pipeline.FromString(graph).components
    (step,) = (t for t in components.transforms.values() if t.unique_name == "RunInference/BeamML_RunInference")
    payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).do_fn.payload
    handler: SliceHandler = pickler.loads(payload)[0]._model_handler
    return handler


@pytest.mark.parametrize(
    ("accelerator", "machine", "torch", "device"),
    [
        (None, launch.MACHINE, "2.13.0+cpu", "auto"),
        ("l4", "g2-standard-8", "2.13.0+cu128", "cuda"),
        ("t4", "n1-standard-8", "2.13.0+cu128", "cuda"),
        ("a100", "a2-highgpu-1g", "2.13.0+cu128", "cuda"),
    ],
)
@pytest.mark.engine("DataflowRunner", "the whole job, with and without a GPU, is built offline and checked")
def test_the_whole_job_is_built_and_checked_without_a_service(
    cloud: CloudStorage,
    service: Service,
    tmp_path: Path,
    accelerator: str | None,
    machine: str,
    torch: str,
    device: str,
) -> None:
    """Beam's own code writes the request that it sends into a file, and stages what the workers read."""
    service.labels["org.labelbeam.torch"] = torch
    file = tmp_path / "job.json"
    flags = {"accelerator": accelerator, "dataflow_job_file": str(file), "slice_mb": "0.0001", "no_wait": ""}
    assert beam_runner.main(launch_flags(service, **flags)) == 0
    job = json.loads(file.read_text())
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    gpu = accelerator and f"worker_accelerator=type:{pricing.GPUS[accelerator].type};count:1;install-nvidia-driver"
    assert job["type"] == "JOB_TYPE_BATCH"
    assert (pool["machineType"], pool["diskSizeGb"]) == (machine, pricing.DISK_GB)
    assert (pool["numWorkers"], pool["autoscalingSettings"]["maxNumWorkers"]) == (20, 20)
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {service.image}
    assert environment.get("serviceOptions") == ([gpu] if gpu else None)
    assert launch.ONE_PROCESS in environment["experiments"]
    assert "flexResourceSchedulingGoal" not in environment
    options = environment["sdkPipelineOptions"]["options"]
    assert options["number_of_worker_harness_threads"] == launch.THREADS
    assert (options["sdk_location"], options["save_main_session"]) == ("container", False)
    (graph,) = (content for name, content in cloud.contents(BUCKET, "tmp").items() if name.endswith("pipeline.pb"))
    assert handler_in(graph)._options.device == device
    with pytest.raises(OSError, match="503"), launches.guard(handler_in(graph)._launch):
        raise OSError("503")
    launches.require(handler_in(graph)._launch)  # Dataflow gives the slice to the same process again


def test_a_template_launcher_writes_the_job_into_a_file(cloud: CloudStorage, service: Service, tmp_path: Path) -> None:
    """The launcher of a flex template adds --template_location, and submits the job in that file."""
    assert beam_runner.main(launch_flags(service, no_wait="", template_location=str(tmp_path / "job.json"))) == 0
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["environment"]["workerPools"][0]["sdkHarnessContainerImages"][0]["containerImage"] == service.image
    assert service.jobs == []


def test_a_gpu_comes_with_its_machine_and_driver(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.labels["org.labelbeam.torch"] = "2.13.0+cu128"
    assert beam_runner.main(launch_flags(service, no_wait="", accelerator="l4", disk_size_gb="80")) == 0
    environment = service.jobs[0]["environment"]
    assert environment["workerPools"][0]["machineType"] == "g2-standard-8"
    assert environment["workerPools"][0]["diskSizeGb"] == 80
    assert environment["serviceOptions"] == ["worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"]
    assert "--device cuda: a worker that does not see its GPU fails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "flags", "sentence"),
    [
        (
            {"torch": "2.13.0+cpu"},
            {"accelerator": "l4"},
            "expected a torch for CUDA, which the l4 needs, found torch 2",
        ),
        ({"torch": None}, {"accelerator": "l4"}, "expected labels that name its torch and its runtimes, found none"),
        ({"torch": None}, {"runtime": "openvino"}, "expected labels that name its torch and its runtimes, found none"),
        (
            {"torch": "2.13.0+cu128"},
            {"accelerator": "l4", "device": "cpu"},
            "--device cpu: expected the l4 that is paid",
        ),
        (
            {},
            {"device": "cuda"},
            "--device cuda: expected --accelerator, found workers without a GPU; add one of l4, t4",
        ),
        ({"torch": "2.13.0+cu128"}, {"accelerator": "l4", "runtime": "openvino"}, "expected a CPU, found a GPU"),
        ({}, {"accelerator": "l4", "precision": "int8"}, "--precision int8: expected workers without a GPU"),
        ({"torch": "2.13.0+cu128"}, {"accelerator": "t4", "precision": "bf16"}, "expected a GPU that multiplies it"),
        ({"runtimes": ""}, {"runtime": "openvino"}, '; build image {} again with --build_arg "RUNTIMES=openvino".'),
        ({}, {"runtime": "onnxruntime"}, '--build_arg "RUNTIMES=openvino onnxruntime onnx onnxscript".'),
        ({"runtimes": ""}, {"precision": "int8"}, "--runtime openvino: the package is not installed"),
        ({}, {"runtime": "torch", "precision": "int8"}, "expected the runtime openvino, found torch"),
        ({}, {"precision": "bf16"}, "expected a machine type that multiplies it in hardware, found n2-highcpu-8"),
        (
            {"torch": "2.13.0+cu128"},
            {"dataflow_service_options": "worker_accelerator=type:nvidia-l4;count:2;install-nvidia-driver"},
            "expected count:1, found count:2; a worker computes on one GPU",
        ),
        (
            {"torch": "2.13.0+cu128"},
            {"experiments": "worker_accelerator=type:nvidia-l4;count:2;install-nvidia-driver"},
            "expected count:1, found count:2; a worker computes on one GPU",
        ),
        ({}, {"precision": "fp16"}, "--precision fp16: expected a GPU, found a CPU"),
    ],
)
def test_what_a_worker_would_refuse_is_refused_before_it_is_paid(
    cloud: CloudStorage,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    labels: dict[str, str | None],
    flags: dict[str, str],
    sentence: str,
) -> None:
    service.labels["org.labelbeam.models"] += ",colours.int8=00ff"
    service.labels |= {f"org.labelbeam.{name}": value for name, value in labels.items() if value is not None}
    for name, value in labels.items():
        if value is None:
            del service.labels[f"org.labelbeam.{name}"]
    assert beam_runner.main(launch_flags(service, no_wait="", **flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence.format(service.image) in line
    assert service.jobs == []


def test_what_a_worker_can_do_is_launched(cloud: CloudStorage, service: Service) -> None:
    """An image without the newer labels serves a job that asks for nothing special."""
    assert beam_runner.main(launch_flags(service, no_wait="", precision="bf16", machine_type="c3-highcpu-8")) == 0
    del service.labels["org.labelbeam.torch"], service.labels["org.labelbeam.runtimes"]
    assert beam_runner.main(launch_flags(service, no_wait="", output=f"gs://{BUCKET}/other")) == 0


def test_every_problem_is_found_before_anything_is_submitted(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service.labels |= {"org.labelbeam.python": "3.8", "org.labelbeam.beam": "2.1.0"}
    cloud.client.create_bucket("faraway")
    locations = {BUCKET: "US-CENTRAL1", "faraway": "EUROPE-WEST1"}  # the emulator has only one location
    monkeypatch.setattr(gcs, "bucket_location", locations.__getitem__)
    code = beam_runner.main(
        launch_flags(
            service,
            project=None,
            temp_location="gs://faraway/tmp",
            model="/models/colors",
            accelerator="t4",
            flexrs_goal="COST_OPTIMIZED",
        )
    )
    lines = capsys.readouterr().err.splitlines()
    sentences = [
        "--project: expected the project that pays, found nothing",
        "FlexRS has no GPUs",
        "--temp_location gs://faraway/tmp: expected a bucket in us-central1, where the job runs, found one in europe-",
        "as on this machine, found Python 3.8",
        "as on this machine, found Beam 2.1.0",
        "expected a torch for CUDA, which the t4 needs, found torch 2.13.0+cpu",
        f"--model /models/colors: expected a model in image {service.image} (colours), found no such model",
    ]
    assert code == 2
    for sentence in sentences:
        assert sum(sentence in line for line in lines) == 1, (sentence, lines)
    assert len(lines) == len(sentences)
    assert service.jobs == []
    assert cloud.contents(BUCKET, "out/") == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sdk_container_image": "localhost:1/labelbeam:latest"}, "expected a tag that stays"),
        ({"sdk_container_image": "localhost:1/labelbeam:1"}, "its registry cannot be read"),
        ({"temp_location": "/tmp/here"}, "--temp_location /tmp/here: expected a gs:// path"),
        ({"temp_location": "gs://nowhere/tmp"}, "--temp_location gs://nowhere/tmp: there is no such bucket"),
        ({"output": "runs/here"}, "--output runs/here: expected a gs:// path"),
        (
            {"model": "models/trained/mine"},
            "found one on this machine; name one in the image, /models/mine, or in gs://",
        ),
        (
            {"max_cost": "5"},
            "the cost cannot be estimated: the speed of /models/colours cannot be measured on this machine",
        ),
        ({"max_cost": "5", "resubmit": "1"}, "--max_cost and --resubmit: expected one of them, found both"),
        ({"dataflow_endpoint": "http://127.0.0.1:1"}, "Invalid url (http://127.0.0.1:1)"),  # Beam itself checks this
    ],
)
def test_one_problem_is_one_sentence(
    cloud: CloudStorage,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    assert beam_runner.main(launch_flags(service, **changes)) == 2
    assert sum(sentence in line for line in capsys.readouterr().err.splitlines()) == 1
    assert service.jobs == []
    assert not (Path("runs") / "here").exists()


def test_an_image_of_another_project_is_refused(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.labels = {}
    assert beam_runner.main(launch_flags(service)) == 2
    assert "expected one that `python -m inference.container build` made" in capsys.readouterr().err


def test_a_bucket_whose_metadata_may_not_be_read(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """Roles for objects do not include this right. Reading and writing do not need it, but staging does."""
    cloud.client.create_bucket("objects-only")
    cloud.upload("objects-only", "a.jsonl", jsonl(10))
    elsewhere = {"input": "gs://objects-only/a.jsonl", "output": "gs://objects-only/out"}

    def forbidden(method: str, path: str) -> int | None:
        return 403 if method == "GET" and re.fullmatch(r"/storage/v1/b/objects-only(\?.*)?", path) else None

    cloud.fault = forbidden
    assert beam_runner.main(launch_flags(service, plan="", **elsewhere)) == 0
    assert cloud.failed
    assert beam_runner.main(launch_flags(service, plan="", temp_location="gs://objects-only/tmp", **elsewhere)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--temp_location gs://objects-only/tmp: this account may not read the bucket's metadata" in line


def test_a_job_that_fails_prints_why_and_how_to_resume(
    impatient: None,
    cloud: CloudStorage,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.state = "JOB_STATE_FAILED"
    command = launch_flags(service)
    assert beam_runner.main(command) == 1
    err = capsys.readouterr().err
    assert "The worker ran out of memory." in err
    assert f"python -m inference.beam_runner {' '.join(command)}" in err
    assert json.loads(cloud.contents(BUCKET, "out/")[".lock"])["job"] is None


def test_ctrl_c_ends_the_waiting_and_not_the_job(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: DataflowPipelineResult) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DataflowPipelineResult, "wait_until_finish", interrupted)
    assert beam_runner.main(launch_flags(service)) == 1
    captured = capsys.readouterr()
    assert "to stop it: gcloud dataflow jobs cancel 2026-11-21_job --region us-central1" in captured.out
    assert "no longer waiting: if the job was submitted, it continues" in captured.err
    assert "stopped" not in captured.err


def test_a_job_that_ends_without_a_summary_has_failed(
    impatient: None, cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beam_runner.main(launch_flags(service)) == 1
    assert "failed: the runner ended without a summary." in capsys.readouterr().err


def test_a_job_that_is_done_ends_with_the_summary(
    cloud: CloudStorage,
    service: Service,
    colours: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def work(self: DataflowPipelineResult) -> None:
        identity = json.loads(cloud.contents(BUCKET, "out/")["run.json"])["run"]
        scoring = ScoringOptions((str(colours),))
        with beam.Pipeline(runner="FnApiRunner") as p:  # this runner replaces the workers
            pipeline.build(p, RunOptions(f"gs://{BUCKET}/out", slices.MIN_SLICE_BYTES, scoring, run=identity))

    monkeypatch.setattr(DataflowPipelineResult, "wait_until_finish", work)
    assert beam_runner.main(launch_flags(service)) == 0
    assert "100 lines = 100 predicted + 0 failed + 0 blank, in 1 slices" in capsys.readouterr().out


def test_a_folder_belongs_to_the_job_until_the_job_has_ended(
    cloud: CloudStorage, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.state = "JOB_STATE_RUNNING"
    assert beam_runner.main(launch_flags(service, no_wait="")) == 0
    (job,) = service.jobs
    for command in (launch_flags(service, no_wait=""), launch_flags(service, no_wait="", overwrite="")):
        assert beam_runner.main(command) == 2
        assert f"the job {job['name']} is at work here; wait for it or cancel it" in capsys.readouterr().err
    service.state = "JOB_STATE_CANCELLED"
    assert beam_runner.main(launch_flags(service, no_wait="")) == 0
    assert len(service.jobs) == 2


@pytest.mark.parametrize(
    ("location", "region", "near"),
    [
        ("US-CENTRAL1", "us-central1", True),
        ("US", "us-east1", True),
        ("EU", "europe-west4", True),
        ("EU", "us-east1", False),
        ("EUROPE-WEST1", "europe-west4", False),
        ("NAM4", "us-central1", True),  # a pair of regions that the code does not know
    ],
)
def test_where_a_bucket_is_near(location: str, region: str, near: bool) -> None:
    assert launch._is_near(location, region) is near


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("a.pkg.dev/p/r/labelbeam:1", "1"),
        ("a.pkg.dev/p/r/labelbeam", ""),
        ("localhost:5000/labelbeam", ""),
        ("labelbeam@sha256:00ff", "sha256:00ff"),
        ("labelbeam:latest", "latest"),
    ],
)
def test_the_tag_of_an_image(reference: str, tag: str) -> None:
    assert images.tag_of(reference) == tag
    assert (images.tag_problem(reference) is None) is (tag not in ("", "latest"))

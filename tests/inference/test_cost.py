"""Tests bills against calculations by hand, estimates from samples, and the command with its refusals."""

import contextlib
import datetime
import gzip
import json
import lzma
import random
import re
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from google.api_core.exceptions import PermissionDenied
from google.cloud import dataflow_v1beta3 as dataflow

from inference import estimate_cost, plan
from inference.corpus.files import InputFile
from inference.corpus.records import Document, DocumentRecipe
from inference.cost import actual, estimate, pricing, profile, sample
from inference.cost.estimate import Corpus
from inference.cost.pricing import Machine, Work
from inference.cost.profile import Profile
from inference.dataflow import images, spending, workers
from inference.runs.options import RunOptions
from inference.scoring.options import PrecisionChoice, ScoringOptions
from models import hardware
from models.errors import UserError
from models.text import TextRecipe
from tests.inference.conftest import write_corpus

READING = DocumentRecipe((TextRecipe(),))


def prices(**changes: Any) -> pricing.Prices:
    content = tomllib.loads(pricing.PRICES.read_text())
    return pricing.Prices.model_validate(content | changes)


def test_the_bill_by_hand() -> None:
    machine = {"vcpus": 4, "cores": 2, "memory_gb": 16, "gpu": "l4"}
    bill = pricing.bill(
        prices(
            **{"vcpu_hour": 0.05, "memory_gb_hour": 0.003, "disk_gb_hour": 0.0001, "shuffle_gb": 0.01},
            **{"flexrs_discount": 0.4, "gpu_hour": {"l4": 0.7}, "machines": {"m": machine}},
        ),
        "m",
        10,
        Work(documents=1e9, slices=0, processor_seconds=10 * 3600 - 10 * pricing.START_SECONDS),
        "FlexRS",
    )
    assert bill.hours == pytest.approx(1)  # there are ten workers with one GPU each
    assert bill.vcpu == pytest.approx(10 * 4 * 0.05 * 0.6)
    assert bill.memory == pytest.approx(10 * 16 * 0.003 * 0.6)
    assert bill.disk == pytest.approx(10 * 50 * 0.0001)
    assert bill.shuffle == pytest.approx(16 * 0.01)
    assert bill.gpu == pytest.approx(10 * 0.7)
    assert bill.total == pytest.approx(1.2 + 0.288 + 0.05 + 0.16 + 7)
    assert bill.start == pytest.approx((1.2 + 0.288 + 0.05 + 7) * pricing.START_SECONDS / 3600)


@pytest.mark.parametrize(
    ("here", "there", "requested", "measured"),
    [
        (True, False, "auto", "fp32"),
        (True, False, "int8", "fp32"),  # the attention of int8 would be computed in bf16 here
        (True, False, "bf16", "bf16"),
        (True, True, "auto", "auto"),
        (False, False, "auto", "auto"),
        (False, True, "int8", "int8"),
    ],
)
def test_a_machine_without_bf16_is_measured_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
    here: bool,
    there: bool,
    requested: PrecisionChoice,
    measured: PrecisionChoice,
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda _: here)
    machine = Machine(vcpus=4, cores=2, memory_gb=16, bf16=there)
    scoring = ScoringOptions(models=("m",), precision=requested)
    assert estimate.equivalent_scoring(machine, scoring) == replace(scoring, precision=measured)


def on_gpu(result: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the output of --json as a machine with this GPU would have written it."""
    return {**result, "profile": {**result["profile"], "device": device, "runtime": "torch in bf16 on GPU"}}


def test_a_gpu_is_priced_by_the_number_of_gpus_and_not_of_cores() -> None:
    """A profile measured beside 3 cores or beside 30 says the same about a GPU."""
    three = Profile({}, "", "NVIDIA L4", cores=3, documents=100, tokens=1000, seconds=2.0, start_seconds=1.0)
    assert three.seconds_per_token == replace(three, cores=30).seconds_per_token == pytest.approx(0.002)
    machine = Machine(vcpus=8, cores=4, memory_gb=32, gpu="l4")
    dated = prices(machines={"g2": machine.model_dump(), "m": machine.model_dump() | {"gpu": None}})
    exactly = sample.Estimate(3.6e6, 3.6e6, 3.6e6)
    corpus = Corpus(1, 1, 9, text_bytes=exactly, documents=exactly, tokens=exactly, expand_seconds=0.0)
    hours = [
        estimate.offer(dated, corpus, speed, (name, "standard", workers), 1.0).bill.hours * 3600
        for speed, name, workers in ((three, "g2", 1), (three, "g2", 2), (replace(three, device="CPU"), "m", 1))
    ]
    assert hours == pytest.approx([300 + 7200, 300 + 3600, 300 + 7200 * 3 / 4])


@pytest.mark.parametrize(
    ("device", "gpu", "is_it"),
    [
        ("CPU", None, True),
        ("CPU", "l4", False),
        ("NVIDIA L4", None, False),
        ("NVIDIA L4", "l4", True),
        ("NVIDIA L40S", "l4", False),
        ("Tesla T4", "t4", True),
        ("Tesla T4", "l4", False),
        ("NVIDIA A100-SXM4-40GB", "a100", True),
        ("NVIDIA A100-SXM4-80GB", "a100", False),
        ("Tesla V100-SXM2-16GB", "nvidia-tesla-v100", True),  # a name that only the user's prices file has
        ("NVIDIA H100 80GB HBM3", "nvidia-tesla-v100", False),
    ],
)
def test_a_profile_belongs_to_a_device(device: str, gpu: str | None, is_it: bool) -> None:
    assert profile.is_of(device, gpu) is is_it


def test_just_enough_workers_finish_in_time() -> None:
    machine = Machine(vcpus=4, cores=2, memory_gb=16)
    work = Work(documents=1, slices=1_000, processor_seconds=1_000_000)
    count = pricing.workers_for(work, machine, 6)
    assert pricing.START_SECONDS + 1_000_000 / (2 * count) <= 6 * 3600
    assert pricing.START_SECONDS + 1_000_000 / (2 * (count - 1)) > 6 * 3600
    assert pricing.workers_for(Work(1, 1, 0.0), machine, 6) == 1
    assert pricing.workers_for(replace(work, slices=7), machine, 6) == 7  # an eighth would have nothing to do


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("vcpu_hour = ", "is not valid TOML"),
        ("source = 'me'", "region: Field required"),
        (pricing.PRICES.read_text() + "\n[extra]\n", "extra: Extra inputs are not permitted"),
        (
            pricing.PRICES.read_text().replace("shuffle_gb = 0.011", "shuffle_gb = -1"),
            "shuffle_gb: Input should be greater",
        ),
        (pricing.PRICES.read_text().replace("l4 = 0.672", ""), "gpu_hour has no price for l4, which machines name"),
    ],
)
def test_a_wrong_prices_file_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "prices.toml").write_text(content)
    with pytest.raises(UserError, match=sentence):
        pricing.load_prices(tmp_path / "prices.toml")


def test_prices_older_than_a_year_bring_a_warning() -> None:
    dated = prices(date=datetime.date(2026, 1, 1))
    assert dated.warning(datetime.date(2026, 12, 31)) is None
    assert "the prices are of 2026-01-01" in (dated.warning(datetime.date(2027, 1, 2)) or "")


def test_the_interval_holds_the_true_amount_about_as_often_as_it_should() -> None:
    chance = random.Random(0)
    hits = 0
    for _ in range(400):
        sizes = [chance.lognormvariate(6, 1) for _ in range(2000)]
        amounts = [size * chance.uniform(0.5, 1.5) for size in sizes]
        chosen = chance.sample(range(2000), 32)
        estimated = sample.ratio([amounts[i] for i in chosen], [sizes[i] for i in chosen], sum(sizes))
        hits += estimated.low <= sum(amounts) <= estimated.high
    assert 0.9 < hits / 400 < 0.99


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_sample_estimates_how_many_documents_there_are(tmp_path: Path, suffix: str) -> None:
    compressions: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
    compress = compressions[suffix]
    files = []
    lines = write_corpus(tmp_path / "corpus.jsonl", 10_000).read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    for number, part in enumerate((lines[:3000], lines[3000:4000], lines[4000:])):
        path = tmp_path / f"{number}.jsonl{suffix}"
        path.write_bytes(compress(b"".join(part)))
        files.append(InputFile(str(path), path.stat().st_size))
    sampled = sample.read(files, READING, 600)
    counts = [len(piece.documents) for piece in sampled.pieces]
    assert 300 < sum(counts) < 1500
    whole = sampled.whole(counts)
    assert whole.low <= 10_000 <= whole.high
    assert whole.value == pytest.approx(10_000, rel=0.1)


def test_a_corpus_smaller_than_the_sample_is_counted_exactly(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.jsonl", 40)
    file = InputFile(str(path), path.stat().st_size)
    sampled = sample.read([file], READING, 1000)
    whole = sampled.whole([len(piece.documents) for piece in sampled.pieces])
    assert (whole.value, whole.low, whole.high) == pytest.approx((40, 40, 40))


def test_the_command_prints_what_a_run_costs(
    tmp_path: Path, colours: Path, offensive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 2000)
    flags = ["--model", str(colours), "--model", str(offensive), "--input", str(corpus), "--sample_documents", "300"]
    assert estimate_cost.main([*flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["corpus"]["documents"]["low"] <= 2000 <= result["corpus"]["documents"]["high"]
    assert set(result["profile"]["models"]) == {"colours", "offensive"}
    assert result["seconds_here"]["value"] > result["profile"]["start_seconds"]
    totals = [offer["total"] for offer in result["offers"]]
    assert totals == sorted(totals)
    assert all(offer["low"] <= offer["total"] <= offer["high"] for offer in result["offers"])
    machines = {offer["bill"]["machine"] for offer in result["offers"]}
    assert "n2-standard-4" in machines
    assert "g2-standard-8" not in machines  # a GPU is not priced without a measurement

    (tmp_path / "profile.json").write_text(json.dumps(on_gpu(result, "NVIDIA L4")))
    assert estimate_cost.main([*flags, "--workers", "7", "--profile", f"g2-standard-8={tmp_path}/profile.json"]) == 0
    printed = capsys.readouterr().out
    assert f"prices of 2026-11-21 for us-central1, from {prices().source}" in printed
    assert result["prices"] == {"source": prices().source, "region": "us-central1", "date": "2026-11-21", "spot": None}
    assert "g2-standard-8 " in printed
    assert "g2-standard-8, FlexRS" not in printed
    assert printed.count("│ * ") == 1


def test_machines_without_bf16_are_priced_by_a_measurement_in_fp32(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(files: Any, options: RunOptions, documents: int, whole: int | None = None) -> Any:
        measured.append(options.scoring.precision)
        profile, measured_corpus = measure_really(files, options, documents)
        return replace(profile, seconds=profile.tokens * {"auto": 0.001, "fp32": 0.003}[measured[-1]]), measured_corpus

    measure_really = estimate.measure
    monkeypatch.setattr(estimate, "measure", measure)
    monkeypatch.setattr(hardware, "has_bf16", lambda _: True)
    flags = ["--model", str(colours), "--input", str(corpus), "--workers", "1"]
    assert estimate_cost.main([*flags, "--json"]) == 0
    assert measured == ["auto", "fp32"]
    hours = {
        offer["bill"]["machine"]: offer["bill"]["hours"] for offer in json.loads(capsys.readouterr().out)["offers"]
    }
    start = pricing.START_SECONDS / 3600
    assert hours["n2-highcpu-8"] - start == pytest.approx(3 * (hours["c3-highcpu-8"] - start), rel=0.01)
    assert estimate_cost.main(flags) == 0
    assert "Machines without bf16 in hardware are assumed to be as fast as this one in fp32" in capsys.readouterr().out


def test_a_bill_has_a_part_that_grows_and_a_part_that_does_not(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten times the price of a small corpus is not the price of one ten times as large."""
    really = estimate.measure

    def measure(*given: Any) -> Any:
        speed, size = really(*given)
        return replace(speed, seconds=speed.tokens * 1e-4), size

    monkeypatch.setattr(estimate, "measure", measure)  # a steady speed, whatever else the machine does
    flags = ["--model", str(colours), "--input", str(corpus), "--machine_type", "n2-highcpu-8", "--workers", "1"]
    results = {}
    for documents in (1_000_000, 10_000_000):
        assert estimate_cost.main([*flags, "--documents", str(documents), "--json"]) == 0
        results[documents] = json.loads(capsys.readouterr().out)
    small, large = (result["offers"][0] for result in results.values())
    assert [result["corpus"]["documents"]["value"] for result in results.values()] == [1e6, 1e7]
    assert results[10_000_000]["corpus"]["tokens"]["value"] == pytest.approx(
        10 * results[1_000_000]["corpus"]["tokens"]["value"]
    )
    assert small["bill"]["start"] == pytest.approx(large["bill"]["start"])
    assert small["bill"]["start"] > 0
    assert large["total"] == pytest.approx(large["bill"]["start"] + 10 * small["per_million"], rel=0.01)
    assert large["total"] < 9.9 * small["total"]
    assert results[10_000_000]["corpus"]["slices"] >= results[1_000_000]["corpus"]["slices"] >= 64
    assert estimate_cost.main([*flags, "--documents", "1000000"]) == 0
    assert "start: the part of the total that these workers cost before they label." in capsys.readouterr().out


def test_a_corpus_that_one_does_not_have_is_uncertain_even_if_the_sample_is_whole(tmp_path: Path) -> None:
    pieces = [sample.Piece(1000, [Document(i, "", (), {}, b"") for i in range(n)]) for n in (10, 12, 8, 10)]
    sampled = sample.Sample(pieces, sample.Estimate(4000, 4000, 4000), 0.0, 0.0)
    corpus = Corpus(1, 4000, 1, sampled.text_bytes, sampled.whole([10, 12, 8, 10]), sampled.whole([5, 9, 4, 6]), 0.0)
    assert corpus.tokens.low == corpus.tokens.high == 24
    larger = estimate._of_size(4000, corpus, sampled, [5, 9, 4, 6])
    assert (larger.documents.low, larger.documents.high, larger.stored_bytes) == (4000, 4000, 400_000)
    assert larger.tokens.low < larger.tokens.value < larger.tokens.high
    assert larger.tokens.value == pytest.approx(2400)


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gb"),
    [("n2-custom-8-16384", 8, 16), ("custom-4-5120", 4, 5), ("n1-custom-2-26624-ext", 2, 26)],
)
def test_a_custom_machine_type_is_priced_by_its_shape(name: str, vcpus: int, memory_gb: float) -> None:
    custom = prices().with_custom(name)
    assert custom.machines[name] == Machine(vcpus=vcpus, cores=vcpus / 2, memory_gb=memory_gb)
    bill = pricing.bill(custom, name, 1, Work(0, 0, 3300 * vcpus / 2))
    assert (bill.vcpu, bill.memory) == pytest.approx((0.056 * vcpus, 0.003557 * memory_gb))
    for wrong in ("n2-custom-8", "n2-custom-0-1024", "n2-standard-4", "custom"):
        assert prices().with_custom(wrong) == prices()


def test_a_custom_machine_with_a_gpu_without_a_price_is_unknown() -> None:
    assert prices().with_custom("n1-custom-4-8192", "nvidia-tesla-v100") == prices()
    job = mock.Mock(prices=prices(), gpu="nvidia-tesla-v100", machine_type="n1-custom-4-8192")
    with pytest.raises(UserError, match="the prices file has no GPU nvidia-tesla-v100; add its price to gpu_hour"):
        plan._machine(job, Path("profile.json"))


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({}, None),
        ({"runtime": "openvino", "precision": "fp32"}, None),
        ({"runtime": "torch"}, "found openvino in fp32"),
        ({"precision": "bf16"}, "expected one measured with --runtime auto and --precision bf16"),
    ],
)
def test_a_profile_belongs_to_a_runtime_and_a_precision(
    tmp_path: Path, flags: dict[str, Any], found: str | None
) -> None:
    speed = Profile({}, "openvino in fp32 on 8 threads", "CPU", 4.0, 100, 1000, 1.0, 1.0)
    (tmp_path / "p.json").write_text(json.dumps({"profile": asdict(speed)}))
    machine = prices().machines["n2-highcpu-8"]
    refused = pytest.raises(UserError, match=found) if found else contextlib.nullcontext()
    with refused:
        assert profile.read(tmp_path / "p.json", speed, machine, ScoringOptions((), **flags)) == speed


@pytest.mark.parametrize(
    ("machine", "gpu", "runtimes", "flags", "expected"),
    [
        ("n2-highcpu-8", None, "openvino", {}, ("openvino", "fp32")),
        ("n2-highcpu-8", None, "", {}, ("torch", "fp32")),
        ("c3-highcpu-8", None, "openvino", {}, ("openvino", "bf16")),
        ("n4-custom-8-16384", None, "openvino", {}, ("openvino", "auto")),  # nobody has said whether it has bf16
        ("n1-standard-8", "t4", "", {}, ("torch", "fp16")),
        ("n1-standard-8", "t4", "", {"precision": "fp32"}, ("torch", "fp32")),
        ("n2-highcpu-8", None, None, {}, ("auto", "auto")),  # an image without labels
    ],
)
def test_a_launch_knows_how_workers_score(
    machine: str, gpu: str | None, runtimes: str | None, flags: dict[str, Any], expected: tuple[str, str]
) -> None:
    labels = {"org.labelbeam.beam": "2.77.0"}
    if runtimes is not None:
        labels |= {"org.labelbeam.torch": "2.13.0+cu128", "org.labelbeam.runtimes": runtimes}
    image = images.ImageFacts.from_labels("i:1", labels, "a registry")
    scoring = ScoringOptions((), **flags)
    chosen = workers.expected(scoring, image, prices().with_custom(machine), machine, gpu)
    assert (chosen.runtime, chosen.precision) == expected


@pytest.mark.parametrize(
    ("machine", "refused"), [("n2-custom-8-16384", 1), ("custom-8-16384", 1), ("n4-custom-8-16384", 0)]
)
def test_a_custom_machine_of_a_new_family_may_have_bf16(machine: str, refused: int) -> None:
    labels = {"org.labelbeam.beam": "2.77.0", "org.labelbeam.torch": "2.13.0+cpu"}
    image = images.ImageFacts.from_labels("i:1", labels, "a registry")
    scoring = ScoringOptions((), precision="bf16")
    assert len([*workers.problems(scoring, image, prices().with_custom(machine), machine, None)]) == refused


def test_spot_machines_are_priced_where_the_user_knows_their_price(
    tmp_path: Path, corpus: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spot = """
        [spot]
        source = "my contract"
        date = 2024-01-02
        vcpu_hour = 0.01
        memory_gb_hour = 0.001
        disk_gb_hour = 0.0001
    """
    (tmp_path / "prices.toml").write_text(pricing.PRICES.read_text() + spot)
    mine = pricing.load_prices(tmp_path / "prices.toml")
    bill = pricing.bill(mine, "n2-standard-4", 2, Work(1e9, 9, 2 * 2 * 3300), "spot")
    assert bill.hours == pytest.approx(1)
    assert (bill.shuffle, str(bill)) == (0.0, "n2-standard-4, spot")
    assert bill.total == pytest.approx(2 * (4 * 0.01 + 16 * 0.001 + 50 * 0.0001))
    flags = ["--model", str(colours), "--input", str(corpus), "--machine_type", "n2-standard-4"]
    assert estimate_cost.main(flags) == 0
    assert "spot" not in capsys.readouterr().out
    assert estimate_cost.main([*flags, "--prices", str(tmp_path / "prices.toml")]) == 0
    printed = capsys.readouterr()
    assert all(f"n2-standard-4{rate} " in printed.out for rate in ("", ", FlexRS", ", spot"))
    assert "spot prices of 2024-01-02, from my contract" in printed.out
    assert "the spot prices are of 2024-01-02" in printed.err


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        (
            ["--machine_type", "c9-mega"],
            ["--machine_type c9-mega: expected a machine type of the prices file or a custom"],
        ),
        (
            ["--input", "nowhere.jsonl", "--prices", "no.toml"],
            ["expected at least one file", "--prices no.toml cannot be"],
        ),
        (["--profile", "n2-standard-4=none.json"], ["expected MACHINE=FILE, a file that --json wrote"]),
        (["--modle", "x"], ["unknown flag --modle: did you mean --model?"]),
        (["--text_fields", "title"], ["no document of the sample could be read"]),
    ],
)
def test_all_mistakes_are_named_at_once(
    corpus: Path, colours: Path, flags: list[str], sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(["--model", str(colours), "--input", str(corpus), *flags]) == 2
    error = capsys.readouterr().err
    assert all(sentence in error for sentence in sentences)
    assert "Traceback" not in error


def test_a_gpu_here_says_nothing_about_the_speed_of_cpus(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*given: Any) -> Any:
        speed, size = really(*given)
        return replace(speed, device="Tesla T4"), size

    really = estimate.measure
    monkeypatch.setattr(estimate, "measure", measure)
    assert estimate_cost.main(["--model", str(colours), "--input", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert "only a measurement on such a machine tells its speed (--profile): n2-standard-2, n2-standard-4" in printed
    assert "│ * " not in printed


@pytest.mark.parametrize(
    ("device", "machine", "sentence"),
    [
        ("CPU", "g2-standard-8", "expected one measured on l4, as the machine type has, found one measured on CPU"),
        ("NVIDIA L4", "n2-standard-4", "expected one measured on CPU, as the machine type has, found one measured"),
        ("Tesla T4", "g2-standard-8", "expected one measured on l4, as the machine type has, found one measured on T"),
    ],
)
def test_a_profile_of_another_device_is_refused(
    tmp_path: Path,
    corpus: Path,
    colours: Path,
    capsys: pytest.CaptureFixture[str],
    device: str,
    machine: str,
    sentence: str,
) -> None:
    flags = ["--model", str(colours), "--input", str(corpus)]
    assert estimate_cost.main([*flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["profile"]["device"] == "CPU"
    (tmp_path / "profile.json").write_text(json.dumps(on_gpu(result, device)))
    assert estimate_cost.main([*flags, "--profile", f"{machine}={tmp_path}/profile.json"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_profile_of_other_models_is_refused(
    tmp_path: Path, corpus: Path, colours: Path, offensive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(["--model", str(offensive), "--input", str(corpus), "--json"]) == 0
    (tmp_path / "profile.json").write_text(capsys.readouterr().out)
    flags = ["--model", str(colours), "--input", str(corpus), "--profile", f"n2-standard-4={tmp_path}/profile.json"]
    assert estimate_cost.main(flags) == 2
    assert "found one of offensive, or of other weights" in capsys.readouterr().err


# Dataflow answers a request for a job with this JSON. The numbers are invented, so that a bill can be checked by hand.
JOB: dict[str, Any] = {
    "id": "2026-11-20_1",
    "currentState": "JOB_STATE_DONE",
    "startTime": "2026-11-20T10:00:00Z",
    "currentStateTime": "2026-11-20T12:00:00Z",
    "environment": {
        "flexResourceSchedulingGoal": "FLEXRS_COST_OPTIMIZED",
        "workerPools": [{"machineType": "n2-standard-4"}],
    },
}
METRICS = {
    "TotalVcpuTime": 10 * 4 * 2 * 3600,
    "TotalMemoryUsage": 10 * 16 * 1024 * 2 * 3600,
    "TotalPdUsage": 10 * 50 * 2 * 3600,
    "TotalShuffleDataProcessed": 8.0,
    "BillableShuffleDataProcessed": 2.0,
}


class Client:
    """A stub for both clients of the service."""

    job = JOB

    def get_job(self, request: dataflow.GetJobRequest) -> dataflow.Job:
        assert (request.project_id, request.location, request.job_id) == ("p", "us-central1", "2026-11-20_1")
        return dataflow.Job.from_json(json.dumps(self.job))

    def get_job_metrics(self, request: dataflow.GetJobMetricsRequest) -> dataflow.JobMetrics:
        metrics: list[dict[str, Any]] = [
            {"name": {"origin": "dataflow/v1b3", "name": n}, "scalar": v} for n, v in METRICS.items()
        ]
        tentative = [{**m, "name": {**m["name"], "context": {"tentative": "true"}}} for m in metrics]
        return dataflow.JobMetrics.from_json(json.dumps({"metrics": [*metrics, *tentative]}))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "JobsV1Beta3Client", Client)
    monkeypatch.setattr(dataflow, "MetricsV1Beta3Client", Client)


ACTUAL = ("--actual", "2026-11-20_1", "--project", "p", "--region", "us-central1")


def test_the_bill_of_a_job_by_hand(service: None) -> None:
    round_prices = prices(
        vcpu_hour=0.05, memory_gb_hour=0.003, disk_gb_hour=0.0001, shuffle_gb=0.01, flexrs_discount=0.4
    )
    bill = actual.bill(*actual.fetch("p", "us-central1", "2026-11-20_1"), round_prices)
    assert (bill.machine, bill.workers, bill.rate, bill.hours) == ("n2-standard-4", 10, "FlexRS", 2.0)
    assert bill.vcpu == pytest.approx(80 * 0.05 * 0.6)
    assert bill.memory == pytest.approx(320 * 0.003 * 0.6)
    assert bill.disk == pytest.approx(1000 * 0.0001)
    assert bill.shuffle == pytest.approx(0.02)
    assert bill.gpu == 0


def test_a_gpu_is_priced_by_its_kind() -> None:
    options = ["worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"]
    job = dataflow.Job.from_json(json.dumps({**JOB, "environment": {"serviceOptions": options}}))
    used = actual.Usage(0, 0, 0, 0, gpu_seconds=7200)
    assert actual.bill(job, used, prices()).gpu == pytest.approx(2 * 0.672)
    unpriced = dataflow.Job.from_json(
        json.dumps(JOB).replace('"workerPools"', '"serviceOptions": ["worker_accelerator=type:tpu"], "workerPools"')
    )
    with pytest.raises(UserError, match="no GPU tpu"):
        actual.bill(unpriced, used, prices())


def test_the_gpus_of_a_job_cost_at_least_what_its_vcpus_imply() -> None:
    """The service may count GPUs in another unit than seconds, or not at all."""
    options = ["worker_accelerator=type:nvidia-l4;install-nvidia-driver"]
    pool = {"machineType": "g2-standard-8"}
    for where in ("serviceOptions", "experiments"):
        job = dataflow.Job.from_json(json.dumps({**JOB, "environment": {where: options, "workerPools": [pool]}}))
        used = actual.Usage(8 * 7200, 0, 0, 0, gpu_seconds=2.0)
        assert actual.bill(job, used, prices()).gpu == pytest.approx(2 * 0.672)
        assert actual.bill(job, replace(used, gpu_seconds=10_800), prices()).gpu == pytest.approx(3 * 0.672)


def test_an_ssd_has_a_price_of_its_own() -> None:
    used = actual.Usage(0, 0, 3600, 0, 0, ssd_gb_seconds=7200)
    assert actual.costs(used, prices(), None, flexrs=False)["disk"] == pytest.approx(0.000054 + 2 * 0.000298)
    hour = Work(0, 0, 3300 * 4)
    disks = [
        pricing.bill(prices().with_disk(gigabytes, disk_type), "n2-highcpu-8", 1, hour).disk
        for gigabytes, disk_type in ((50, None), (200, "pd-standard"), (200, "projects/p/zones/z/diskTypes/pd-ssd"))
    ]
    assert disks == pytest.approx([50 * 0.000054, 200 * 0.000054, 200 * 0.000298])


def spent(used: list[dict[str, Any]], cancel: Callable[[], None]) -> spending.Spending:
    """Return what watches a job on T4s, which may cost 3 dollars, after one look."""
    client = mock.Mock()
    client.get_job_metrics.return_value = dataflow.JobMetrics.from_json(json.dumps({"metrics": used}))
    result = mock.Mock(_runner=mock.Mock(dataflow_client=client), cancel=cancel)
    job = mock.Mock(prices=prices(), machine_type="n1-standard-8", gpu="t4", flexrs=False)
    watch = spending.Spending(result, job, 3.0)
    with contextlib.suppress(OSError):
        watch._look()
    return watch


def test_a_limit_counts_gpus_that_the_service_does_not() -> None:
    """Without its T4s, the job has cost 2.24 dollars."""
    hours = [{"name": {"name": "TotalVcpuTime"}, "scalar": 8 * 5 * 3600}]
    assert "the job has cost about $4.34 so far" in spent(hours, lambda: None).stopped
    assert spent([{**hours[0], "scalar": 8 * 3600}], lambda: None).stopped == ""


def test_a_job_whose_cancellation_was_not_answered_counts_as_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer() -> None:
        raise OSError("no answer")

    monkeypatch.setattr(spending, "POLL_SECONDS", 0.01)
    hours = [{"name": {"name": "TotalVcpuTime"}, "scalar": 8 * 5 * 3600}]
    watch = spent(hours, no_answer)
    with watch:
        time.sleep(0.1)
    assert "and was cancelled" in watch.stopped


def test_the_bill_of_a_custom_machine_stands_beside_its_estimate(
    service: None, colours: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACTUAL, "--model", str(colours), "--input", str(corpus), "--sample_documents", "30"]
    for machine, printed in (
        ("n2-custom-8-16384", r"estimate: \$0\.\d\d; actual"),
        ("c9-mega", "estimate: none for c9-m"),
    ):
        environment = {"workerPools": [{"machineType": machine}]}
        monkeypatch.setattr(Client, "job", {**JOB, "environment": environment})
        assert estimate_cost.main(command) == 0
        assert re.search(printed, capsys.readouterr().out)


def test_the_actual_cost_stands_beside_the_estimate(
    service: None, colours: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(ACTUAL) == 0
    assert "on 10 workers n2-standard-4, FlexRS, 2.0 hours" in capsys.readouterr().out
    assert estimate_cost.main([*ACTUAL, "--model", str(colours), "--input", str(corpus)]) == 0
    assert re.search(r"estimate: \$0\.0\d; actual \+\d+ %, outside of", capsys.readouterr().out)
    assert estimate_cost.main([*ACTUAL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["actual"]["machine"] == "n2-standard-4"


def test_a_job_that_cannot_be_priced(
    service: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Client, "job", {**JOB, "currentState": "JOB_STATE_RUNNING"})
    assert estimate_cost.main(ACTUAL) == 2
    assert "expected a job that has ended, found JOB_STATE_RUNNING" in capsys.readouterr().err

    def refuse(self: Client, request: dataflow.GetJobRequest) -> None:
        raise PermissionDenied("no")  # type: ignore[no-untyped-call]  # google-api-core has no types for it

    monkeypatch.setattr(Client, "get_job", refuse)
    assert estimate_cost.main(ACTUAL) == 2
    assert "the job cannot be read (403 no); check --project, --region and your login." in capsys.readouterr().err
    assert estimate_cost.main(ACTUAL[:4]) == 2
    assert "expected --actual JOB_ID, --project and --region together, found only some" in capsys.readouterr().err
    assert estimate_cost.main([]) == 2
    assert "expected --model DIR and --input GLOB, or --actual JOB_ID alone" in capsys.readouterr().err

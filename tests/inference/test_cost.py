"""Cost: the bill by hand, samples that say what the whole holds, the command and what it refuses."""

import datetime
import gzip
import json
import lzma
import random
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import PermissionDenied
from google.cloud import dataflow_v1beta3 as dataflow

from inference import estimate_cost
from inference.corpus.files import InputFile
from inference.corpus.records import DocumentRecipe
from inference.cost import actual, estimate, pricing, sample
from inference.cost.pricing import Machine, Work
from inference.runs.options import RunOptions
from inference.scoring.options import ScoringOptions
from models.errors import UserError
from models.text import TextRecipe
from tests.inference.conftest import write_corpus

READING = DocumentRecipe((TextRecipe(),))


def prices(**changes: Any) -> pricing.Prices:
    content = tomllib.loads(pricing.PRICES.read_text())
    return pricing.Prices.model_validate(content | changes)


def test_the_bill_by_hand() -> None:
    machine = {"vcpus": 4, "cores": 2, "memory_gb": 16, "gpu": "l4"}
    found = pricing.bill(
        prices(
            **{"vcpu_hour": 0.05, "memory_gb_hour": 0.003, "disk_gb_hour": 0.0001, "shuffle_gb": 0.01},
            **{"flexrs_discount": 0.4, "gpu_hour": {"l4": 0.7}, "machines": {"m": machine}},
        ),
        "m",
        10,
        Work(documents=1e9, slices=0, core_seconds=20 * 3600 - 20 * pricing.START_SECONDS),
        flexrs=True,
    )
    assert found.hours == pytest.approx(1)  # ten workers of two cores
    assert found.vcpu == pytest.approx(10 * 4 * 0.05 * 0.6)
    assert found.memory == pytest.approx(10 * 16 * 0.003 * 0.6)
    assert found.disk == pytest.approx(10 * 50 * 0.0001)
    assert found.shuffle == pytest.approx(16 * 0.01)
    assert found.gpu == pytest.approx(10 * 0.7)
    assert found.total == pytest.approx(1.2 + 0.288 + 0.05 + 0.16 + 7)


@pytest.mark.parametrize(
    ("here", "there", "asked", "measured"),
    [
        (True, False, "auto", "fp32"),
        (True, False, "int8", "fp32"),  # its attention would be in bf16 here
        (True, False, "bf16", "bf16"),
        (True, True, "auto", "auto"),
        (False, False, "auto", "auto"),
        (False, True, "int8", "int8"),
    ],
)
def test_a_machine_without_bf16_is_measured_in_fp32(
    monkeypatch: pytest.MonkeyPatch, here: bool, there: bool, asked: str, measured: str
) -> None:
    monkeypatch.setattr(estimate, "has_bf16", lambda _: here)
    machine = Machine(vcpus=4, cores=2, memory_gb=16, bf16=there)
    scoring = ScoringOptions(models=("m",), precision=asked)
    assert estimate.as_on(machine, scoring) == replace(scoring, precision=measured)


def test_as_many_workers_as_finish_in_time() -> None:
    machine = Machine(vcpus=4, cores=2, memory_gb=16)
    work = Work(documents=1, slices=1, core_seconds=1_000_000)
    count = pricing.workers_for(work, machine, 6)
    assert pricing.START_SECONDS + 1_000_000 / (2 * count) <= 6 * 3600
    assert pricing.START_SECONDS + 1_000_000 / (2 * (count - 1)) > 6 * 3600
    assert pricing.workers_for(Work(1, 1, 0.0), machine, 6) == 1


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
def test_a_prices_file_that_is_wrong_is_said_to_be(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "prices.toml").write_text(content)
    with pytest.raises(UserError, match=sentence):
        pricing.load_prices(tmp_path / "prices.toml")


def test_prices_older_than_a_year_bring_a_warning() -> None:
    found = prices(date=datetime.date(2026, 1, 1))
    assert found.warning(datetime.date(2026, 12, 31)) is None
    assert "the prices are of 2026-01-01" in (found.warning(datetime.date(2027, 1, 2)) or "")


def test_the_interval_holds_what_it_promises() -> None:
    chance = random.Random(0)
    held = 0
    for _ in range(400):
        sizes = [chance.lognormvariate(6, 1) for _ in range(2000)]
        amounts = [size * chance.uniform(0.5, 1.5) for size in sizes]
        chosen = chance.sample(range(2000), 32)
        found = sample.ratio([amounts[i] for i in chosen], [sizes[i] for i in chosen], sum(sizes))
        held += found.low <= sum(amounts) <= found.high
    assert 0.9 < held / 400 < 0.99


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_sample_says_how_many_documents_there_are(tmp_path: Path, suffix: str) -> None:
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
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
    found = sampled.whole(counts)
    assert found.low <= 10_000 <= found.high
    assert found.value == pytest.approx(10_000, rel=0.1)


def test_a_corpus_smaller_than_the_sample_is_counted_exactly(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.jsonl", 40)
    file = InputFile(str(path), path.stat().st_size)
    sampled = sample.read([file], READING, 1000)
    found = sampled.whole([len(piece.documents) for piece in sampled.pieces])
    assert (found.value, found.low, found.high) == pytest.approx((40, 40, 40))


def test_the_command_says_what_a_run_costs(
    tmp_path: Path, colours: Path, offensive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 2000)
    flags = ["--model", str(colours), "--model", str(offensive), "--input", str(corpus), "--sample_documents", "300"]
    assert estimate_cost.main([*flags, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["corpus"]["documents"]["low"] <= 2000 <= said["corpus"]["documents"]["high"]
    assert set(said["profile"]["models"]) == {"colours", "offensive"}
    assert said["seconds_here"]["value"] > said["profile"]["start_seconds"]
    totals = [offer["total"] for offer in said["offers"]]
    assert totals == sorted(totals)
    assert all(offer["low"] <= offer["total"] <= offer["high"] for offer in said["offers"])
    machines = {offer["bill"]["machine"] for offer in said["offers"]}
    assert "n2-standard-4" in machines
    assert "g2-standard-8" not in machines  # no GPU without a measurement

    (tmp_path / "profile.json").write_text(json.dumps(said))
    assert estimate_cost.main([*flags, "--workers", "7", "--profile", f"g2-standard-8={tmp_path}/profile.json"]) == 0
    printed = capsys.readouterr().out
    assert "on Dataflow, us-central1" in printed
    assert "g2-standard-8 " in printed
    assert "g2-standard-8, FlexRS" not in printed
    assert printed.count("│ * ") == 1


def test_machines_without_bf16_are_priced_by_a_measurement_in_fp32(
    corpus: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(files: Any, options: RunOptions, documents: int) -> Any:
        measured.append(options.scoring.precision)
        profile, found = real(files, options, documents)
        return replace(profile, seconds=profile.tokens * {"auto": 1.0, "fp32": 3.0}[measured[-1]]), found

    real = estimate.measure
    monkeypatch.setattr(estimate, "measure", measure)
    monkeypatch.setattr(estimate, "has_bf16", lambda _: True)
    flags = ["--model", str(colours), "--input", str(corpus), "--workers", "1"]
    assert estimate_cost.main([*flags, "--json"]) == 0
    assert measured == ["auto", "fp32"]
    hours = {
        offer["bill"]["machine"]: offer["bill"]["hours"] for offer in json.loads(capsys.readouterr().out)["offers"]
    }
    start = pricing.START_SECONDS / 3600
    assert hours["n2-highcpu-8"] - start == pytest.approx(3 * (hours["c3-highcpu-8"] - start), rel=0.01)
    assert estimate_cost.main(flags) == 0
    assert "Machines without bf16 in hardware are taken to be as fast as this one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        (
            ["--input", "nowhere.jsonl", "--prices", "no.toml"],
            ["expected at least one file", "--prices no.toml cannot be"],
        ),
        (["--profile", "n2-standard-4=none.json"], ["expected MACHINE=FILE, a file that --json wrote"]),
        (["--modle", "x"], ["unknown flag --modle: did you mean --model?"]),
        (["--text_fields", "title"], ["no document of the sample could be read"]),
    ],
)
def test_what_is_wrong_is_said_at_once(
    corpus: Path, colours: Path, flags: list[str], sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(["--model", str(colours), "--input", str(corpus), *flags]) == 2
    error = capsys.readouterr().err
    assert all(sentence in error for sentence in sentences)
    assert "Traceback" not in error


def test_a_profile_of_other_models_is_refused(
    tmp_path: Path, corpus: Path, colours: Path, offensive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(["--model", str(offensive), "--input", str(corpus), "--json"]) == 0
    (tmp_path / "profile.json").write_text(capsys.readouterr().out)
    flags = ["--model", str(colours), "--input", str(corpus), "--profile", f"n2-standard-4={tmp_path}/profile.json"]
    assert estimate_cost.main(flags) == 2
    assert "found one of offensive, or of other weights" in capsys.readouterr().err


# What Dataflow answers for a job, in its own JSON; the numbers are made up, so that the bill can be added up by hand.
JOB = {
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
    """In the place of both of the service's clients."""

    job = JOB

    def get_job(self, request: dataflow.GetJobRequest) -> dataflow.Job:
        assert (request.project_id, request.location, request.job_id) == ("p", "us-central1", "2026-11-20_1")
        return dataflow.Job.from_json(json.dumps(self.job))

    def get_job_metrics(self, request: dataflow.GetJobMetricsRequest) -> dataflow.JobMetrics:
        metrics = [{"name": {"origin": "dataflow/v1b3", "name": n}, "scalar": v} for n, v in METRICS.items()]
        tentative = [{**m, "name": {**m["name"], "context": {"tentative": "true"}}} for m in metrics]
        return dataflow.JobMetrics.from_json(json.dumps({"metrics": [*metrics, *tentative]}))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "JobsV1Beta3Client", Client)
    monkeypatch.setattr(dataflow, "MetricsV1Beta3Client", Client)


ACTUAL = ("--actual", "2026-11-20_1", "--project", "p", "--region", "us-central1")


def test_what_a_job_has_cost_by_hand(service: None) -> None:
    by_hand = prices(vcpu_hour=0.05, memory_gb_hour=0.003, disk_gb_hour=0.0001, shuffle_gb=0.01, flexrs_discount=0.4)
    paid = actual.bill(*actual.fetch("p", "us-central1", "2026-11-20_1"), by_hand)
    assert (paid.machine, paid.workers, paid.flexrs, paid.hours) == ("n2-standard-4", 10, True, 2.0)
    assert paid.vcpu == pytest.approx(80 * 0.05 * 0.6)
    assert paid.memory == pytest.approx(320 * 0.003 * 0.6)
    assert paid.disk == pytest.approx(1000 * 0.0001)
    assert paid.shuffle == pytest.approx(0.02)
    assert paid.gpu == 0


def test_a_gpu_is_priced_by_its_kind() -> None:
    options = ["worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"]
    job = dataflow.Job.from_json(json.dumps({**JOB, "environment": {"serviceOptions": options}}))
    used = actual.Usage(0, 0, 0, 0, gpu_seconds=7200)
    assert actual.bill(job, used, prices()).gpu == pytest.approx(2 * 0.672)
    strange = dataflow.Job.from_json(
        json.dumps(JOB).replace('"workerPools"', '"serviceOptions": ["worker_accelerator=type:tpu"], "workerPools"')
    )
    with pytest.raises(UserError, match="no GPU tpu"):
        actual.bill(strange, used, prices())


def test_the_actual_cost_stands_beside_the_estimate(
    service: None, colours: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_cost.main(ACTUAL) == 0
    said = capsys.readouterr().out
    assert "on 10 workers n2-standard-4, FlexRS, 2.0 hours" in said
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

    def denied(self: Client, request: dataflow.GetJobRequest) -> None:
        raise PermissionDenied("no")

    monkeypatch.setattr(Client, "get_job", denied)
    assert estimate_cost.main(ACTUAL) == 2
    assert "the job cannot be read (403 no); check --project, --region and your login." in capsys.readouterr().err
    assert estimate_cost.main(ACTUAL[:4]) == 2
    assert "--actual JOB_ID, --project and --region belong together" in capsys.readouterr().err
    assert estimate_cost.main([]) == 2
    assert "expected --model DIR and --input GLOB" in capsys.readouterr().err

"""Tests the number of cores and the choice of a number format, with containers and GPUs that are not there."""

import ctypes
from pathlib import Path
from unittest import mock

import pytest
import torch

from models import hardware
from models.errors import UserError
from models.hardware import Floats, FloatsChoice


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((9, 0), "bf16"), ((10, 0), "bf16")],
)
def test_emulated_bf16_is_never_chosen(
    capability: tuple[int, int], expected: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A V100 has 7.0 and a T4 7.5. torch emulates bf16 on both, and then says that they support it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    bf16 = hardware.has_bf16("cuda")
    assert hardware.floats("auto", "--precision", "cuda", bf16=bf16) == expected


@pytest.mark.parametrize(
    ("asked", "device", "sentence"),
    [
        ("fp16", "cpu", "--precision fp16: expected a GPU, found a CPU; take fp32 or auto."),
        ("bf16", "cuda", "--precision bf16: expected a GPU that multiplies it, found an older one; take fp16 or auto."),
    ],
)
def test_a_format_that_a_device_lacks_is_refused(asked: FloatsChoice, device: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        hardware.floats(asked, "--precision", device, bf16=False)


def test_a_cpu_computes_in_bf16_on_request_and_in_fp32_without_it() -> None:
    assert hardware.floats("bf16", "--precision", "cpu", bf16=False) == "bf16"
    assert hardware.floats("auto", "--precision", "cpu", bf16=False) == "fp32"


@pytest.mark.parametrize(("content", "expected"), [("2048K\n", 2**21), ("2M", 2**20), (None, 2**20)])
def test_the_cache_of_a_core_is_read_from_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, expected: int
) -> None:
    monkeypatch.setattr(hardware, "CACHES", tmp_path)
    for index, (level, size) in enumerate([("1", "48K"), ("2", content)]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "level").write_text(f"{level}\n")
        if size:
            (tmp_path / f"index{index}" / "size").write_text(size)
    assert hardware.cache_bytes.__wrapped__() == expected


FLAGS = "fpu avx2 avx512_bf16 avx512_vnni"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"flags\t\t: {FLAGS} amx_tile", (True, True, True)),
        (f"flags\t\t: {FLAGS}", (True, False, True)),
        ("flags\t\t: fpu avx2 avx512_bf16x", (False, False, False)),
        ("Features\t: fp asimd bf16", (False, False, False)),
    ],
)
def test_linux_tells_what_a_processor_multiplies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: tuple[bool, bool, bool]
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware, "instructions", hardware.instructions.__wrapped__)
    assert (hardware.has_bf16("cpu"), hardware.has_amx(), hardware.has_int8()) == expected


def test_this_processor_multiplies_what_torch_says_too(monkeypatch: pytest.MonkeyPatch) -> None:
    here = hardware.has_bf16("cpu"), hardware.has_amx(), hardware.has_int8()
    monkeypatch.setattr(hardware, "instructions", lambda: None)
    assert (hardware.has_bf16("cpu"), hardware.has_amx(), hardware.has_int8()) == here


def test_without_a_driver_there_is_no_gpu_and_torch_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "AMD_GPU", tmp_path / "none")
    monkeypatch.setattr(ctypes, "CDLL", mock.Mock(side_effect=OSError))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not hardware.has_gpu()
    monkeypatch.setattr(ctypes, "CDLL", mock.Mock())
    assert hardware.has_gpu()


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine of 64 cores, without quotas and schedulers, and return its control groups."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "GROUPS", tmp_path)
    for name in hardware.SLOTS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_all_cores_that_the_process_may_run_on_are_used(groups: Path) -> None:
    assert hardware.cores() == 64
    _write(groups / "own", "0::/\n")
    _write(groups / "cpu.max", "max 100000\n")
    assert hardware.cores() == 64


@pytest.mark.parametrize(("quota", "cores"), [("400000 100000", 4), ("150000 100000", 2), ("20000 100000", 1)])
def test_a_container_s_quota_is_heeded(quota: str, cores: int, groups: Path) -> None:
    """With 64 threads on a quota of 4 cores, the kernel stops all of them for most of each tenth of a second."""
    _write(groups / "own", "0::/\n")
    _write(groups / "cpu.max", quota + "\n")
    assert hardware.cores() == cores


def test_the_least_quota_of_all_groups_counts(groups: Path) -> None:
    _write(groups / "own", "0::/kubepods/pod1/main\n")
    _write(groups / "kubepods/pod1/main/cpu.max", "max 100000\n")
    _write(groups / "kubepods/pod1/cpu.max", "300000 100000\n")
    _write(groups / "kubepods/cpu.max", "4800000 100000\n")
    assert hardware.cores() == 3


def test_a_quota_of_the_first_version_is_heeded(groups: Path) -> None:
    """A container without a namespace of its own sees the host's path, and its group where the host has the root."""
    _write(groups / "own", "5:memory:/docker/12ab\n4:cpu,cpuacct:/docker/12ab\n1:name=systemd:/docker/12ab\n")
    _write(groups / "cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    _write(groups / "cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert hardware.cores() == 64
    _write(groups / "cpu,cpuacct/cpu.cfs_quota_us", "200000\n")
    assert hardware.cores() == 2


@pytest.mark.parametrize("name", hardware.SLOTS)
def test_a_job_takes_no_more_cores_than_its_scheduler_gave_it(
    name: str, groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "8")
    assert hardware.cores() == 8
    monkeypatch.setenv(name, "128")
    assert hardware.cores() == 64
    monkeypatch.setenv(name, "undefined")
    assert hardware.cores() == 64


@pytest.mark.parametrize(("siblings", "threads"), [("0\n", 1), ("0,32\n", 2), ("0-1\n", 2), (None, 1)])
def test_threads_of_a_core_are_known(
    siblings: str | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "SIBLINGS", tmp_path / "siblings")
    if siblings:
        (tmp_path / "siblings").write_text(siblings)
    assert hardware.threads_per_core() == threads

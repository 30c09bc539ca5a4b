"""Tests the choice of a number format, with GPUs of any age that are not there."""

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

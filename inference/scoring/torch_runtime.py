"""Runs a model in torch or torch.compile, on a CPU or a GPU."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.scoring import gpu, packed
from inference.scoring.logits import Forward, Logits
from inference.scoring.runtimes import Runtime

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def start(runtime: Runtime, network: nn.Module) -> Forward:
    """Move a network to the runtime's device and precision, and return what computes it."""
    network = network.to(runtime.device, DTYPES[runtime.precision])
    if runtime.name == "compile":
        return padded(torch.compile(network, dynamic=True), runtime.device, runtime.threads)
    return padded(network, runtime.device, runtime.threads // runtime.batches_at_once)


def padded(network: Any, device: str, threads: int) -> Forward:
    """Return what computes a network on batches with padding; 0 threads leaves torch's number."""

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        with torch.inference_mode(), _torch_threads(threads):
            return gpu.fetch(network(gpu.send(ids, device), None if mask is None else gpu.send(mask, device)))

    return forward


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads for the calling thread, and restore it at the end; 0 changes nothing."""
    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count and count != before:
            torch.set_num_threads(before)


def start_packed(
    runtime: Runtime, name: str, network: nn.Module, compared: Callable[[Forward], Forward]
) -> Forward | None:
    """Start a network that computes no padding; log why if it cannot be used, and return None."""
    reason = packed.obstacle(network, runtime.device, DTYPES[runtime.precision])
    if not reason:
        try:
            network = network.to(runtime.device, DTYPES[runtime.precision])
            without_padding = packed.PackedNetwork(network, compiled=runtime.name == "compile")
            return compared(_packed_forward(without_padding, runtime.device))
        except Exception as error:  # whatever the kernel raises or gets wrong, a network with padding may do without it
            reason = " ".join(str(error).split())[:200]
    logging.getLogger(__name__).warning("model %s: batches are padded, because %s", name, reason)
    return None


def _packed_forward(network: packed.PackedNetwork, device: str) -> Forward:
    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        row = packed.row(ids, mask)
        with torch.inference_mode():
            sent = gpu.send(np.concatenate([row.starts, row.ids]), device)
            return gpu.fetch(network(sent[len(row.starts) :], sent[: len(row.starts)], row.longest))

    return forward

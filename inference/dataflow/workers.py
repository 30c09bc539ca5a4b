"""Checks before a launch that workers can compute what the flags ask for, by their image and machine type."""

from collections.abc import Iterator
from dataclasses import replace

from inference.cost import pricing
from inference.cost.pricing import Prices
from inference.dataflow.images import ImageFacts
from inference.scoring import runtimes
from inference.scoring.options import ScoringOptions
from inference.scoring.runtimes import PACKAGES, Host, Runtime
from models.errors import UserError


def problems(
    scoring: ScoringOptions, image: ImageFacts, prices: Prices, machine_type: str, gpu: str | None
) -> Iterator[str]:
    """Yield a sentence for each reason why a worker would fail, or would compute slower than it is paid for."""
    if gpu and scoring.precision == "int8":
        yield (
            f"--precision int8: expected workers without a GPU, because only a CPU computes in it, found the {gpu}; "
            "drop the precision or --accelerator."
        )
    elif gpu and scoring.device == "cpu":
        yield f"--device cpu: expected the {gpu} that is paid for, found the CPU beside it; drop it or --accelerator."
    elif scoring.device == "cuda" and not gpu:
        gpus = ", ".join(pricing.GPUS)
        yield f"--device cuda: expected --accelerator, found workers without a GPU; add one of {gpus}."
    elif image.torch is None and (gpu or scoring.runtime in PACKAGES or scoring.precision == "int8"):
        yield (
            f"image {image.reference}: expected labels that name its torch and its runtimes, found none, as before "
            "they were written or without `labelbeam container build`; build it again with that."
        )
    elif gpu and image.torch and "+cu" not in image.torch:
        yield (
            f"image {image.reference}: expected a torch for CUDA, which the {gpu} needs, found torch {image.torch}; "
            "build it with `labelbeam container build --gpu`."
        )
    else:
        yield from _refusals(scoring, image, prices, machine_type, gpu)


def _refusals(
    scoring: ScoringOptions, image: ImageFacts, prices: Prices, machine_type: str, gpu: str | None
) -> Iterator[str]:
    """Yield the sentence with which a worker would refuse the flags, and one if it would emulate bf16."""
    bf16 = _has_bf16(prices, machine_type, gpu)
    if scoring.precision == "bf16" and not gpu and bf16 is False:
        yield (
            f"--precision bf16: expected a machine type that multiplies it in hardware, found {machine_type}, which is "
            "slower in it; drop the flag, or take a --machine_type such as c3-highcpu-8."
        )
    if scoring.precision == "int8" and scoring.runtime == "auto":
        scoring = replace(scoring, runtime="openvino")  # no other runtime computes in it
    try:
        _choose(scoring, image, gpu, bf16=bf16 is not False)
    except UserError as error:
        yield str(error)


def expected(
    scoring: ScoringOptions, image: ImageFacts, prices: Prices, machine_type: str, gpu: str | None
) -> ScoringOptions:
    """Return the options with the runtime and the precision that a worker will choose, where they are known."""
    if image.torch is None:
        return scoring
    bf16 = _has_bf16(prices, machine_type, gpu)
    chosen = _choose(scoring, image, gpu, bf16=bf16 is not False)
    is_known = bf16 is not None or chosen.precision != "bf16"
    return replace(scoring, runtime=chosen.name, precision=chosen.precision if is_known else scoring.precision)


def _choose(scoring: ScoringOptions, image: ImageFacts, gpu: str | None, *, bf16: bool) -> Runtime:
    """Return the runtime that a worker chooses. Raise the UserError with which it would refuse the options."""
    kept = " ".join([*image.runtimes, "{}"])  # a build with the missing runtime also needs those that the image has
    host = Host(
        gpu=bool(gpu),
        bf16=frozenset({"cuda" if gpu else "cpu"} if bf16 else ()),
        packages=frozenset(image.runtimes),
        install=f'build image {image.reference} again with --build_arg "RUNTIMES={kept}"',
    )
    return runtimes.choose(scoring.runtime, scoring.precision, scoring.device, host=host)


def _has_bf16(prices: Prices, machine_type: str, gpu: str | None) -> bool | None:
    """Return whether a worker multiplies bf16 in hardware; None if the machine type or the GPU is unknown."""
    if gpu:
        return pricing.GPUS[gpu].bf16 if gpu in pricing.GPUS else None
    name = prices.find(machine_type)
    return prices.machines[name].bf16 if name else None

"""Names the torch and the runtimes in an image, for its labels. The build asks for them inside the image."""

import torch

from inference.scoring.runtimes import PACKAGES, is_installed

TORCH, RUNTIMES = "org.labelbeam.torch", "org.labelbeam.runtimes"


def labels() -> dict[str, str]:
    """Return the labels: the version of torch with its CUDA or `cpu`, and the complete runtimes besides torch."""
    build = f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
    return {
        TORCH: f"{torch.__version__.split('+')[0]}+{build}",
        RUNTIMES: ",".join(name for name, needed in PACKAGES.items() if all(map(is_installed, needed.split()))),
    }

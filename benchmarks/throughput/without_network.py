"""Labels a corpus as `inference.beam_runner` does, with zeros for the network's logits. So everything else is timed."""

import sys
from typing import Any

import numpy as np

from inference import beam_runner
from inference.scoring import starting
from inference.scoring.reference import PROBE_TEXTS

_start = starting.start


def _without(runtime: Any, model: Any, reference: Any) -> starting.Started:
    """Start a model whose network computes the probe texts alone."""
    started = _start(runtime, model, reference)
    zeros = np.zeros(reference.logits.shape[1], np.float32)

    def forward(ids: Any, mask: Any) -> Any:
        return started.forward(ids, mask) if len(ids) == len(PROBE_TEXTS) else np.tile(zeros, (len(ids), 1))

    return started._replace(forward=forward)


if __name__ == "__main__":
    starting.start = _without
    sys.exit(beam_runner.main())

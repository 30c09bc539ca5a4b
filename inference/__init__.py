"""Labels a JSONL corpus with trained models: slices in, predictions, failures and receipts out.

The commands are modules of this package, such as `python -m inference.beam_runner`. For Python code and notebooks there
are three names, which docs/howto/python.md shows at work:

    from inference import Classifier, read_failures, read_predictions
"""

from typing import TYPE_CHECKING, Any

import labelbeam

if TYPE_CHECKING:
    from inference.classifier import Classifier
    from inference.runs.frames import read_failures, read_predictions

__all__ = ["Classifier", "read_failures", "read_predictions"]

labelbeam.claim_names(always=True)  # whoever has this package has its neighbours, whatever the working folder holds


def __getattr__(name: str) -> Any:
    """Import one of the three names when it is first used, so that a command's help needs no torch."""
    if name == "Classifier":
        from inference.classifier import Classifier

        return Classifier
    if name in __all__:
        from inference.runs import frames

        return getattr(frames, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Says in sentences what a reader of an audit's counts has to know."""

from collections.abc import Iterator

from inference.audits import estimates
from inference.audits.estimates import Estimate, Labelled
from models.trained_model import Manifest

LOW = 0.01  # mean score of a stratum up to which its scores are low
FEWEST = 10  # documents with the label below which an interval rests on few


def notes(found: Estimate, labelled: Labelled, label: str, manifest: Manifest | None) -> list[str]:
    """Return the sentences about one label."""
    return [*_few(found), *_calibration(found, labelled), *_quality(found, label, manifest), *_unseen(labelled)]


def _few(found: Estimate) -> Iterator[str]:
    if found.positives < FEWEST:
        yield (
            f"{found.positives} of the documents drawn have the label, fewer than {FEWEST}: the interval rests on few; "
            "draw a larger audit before you publish it."
        )


def _calibration(found: Estimate, labelled: Labelled) -> Iterator[str]:
    expected = float(labelled.expected.sum())
    if not found.count.low <= expected <= found.count.high:
        yield (
            f"The scores add up to {expected:,.0f} documents, outside of the interval: they are not calibrated on this "
            "corpus. `labelbeam decide` fits them to labelled documents."
        )


def _quality(found: Estimate, label: str, manifest: Manifest | None) -> Iterator[str]:
    """Compare precision and recall on this corpus with those on the test documents of the model."""
    test = manifest.metrics.get("test", {}).get("labels", {}).get(label) if manifest else None
    for name, interval in (("precision", found.precision), ("recall", found.recall)):
        value = (test or {}).get(name)
        if interval and isinstance(value, float) and not interval.low <= value <= interval.high:
            yield (
                f"The {name} was {value:.2f} on the test documents, outside of the interval for this corpus: the "
                "corpus differs from the training data, or the threshold does not fit it."
            )


def _unseen(labelled: Labelled) -> Iterator[str]:
    """Say how many documents with low scores could have the label without one having been drawn."""
    shares = labelled.expected.sum(axis=(1, 2)) / labelled.sizes
    low = shares <= max(LOW, shares.min())
    inside = low[labelled.stratum]
    drawn, others = int(inside.sum()), int(labelled.sizes[low].sum()) - int(inside.sum())
    if drawn and others and not labelled.truth[inside].any():
        most = estimates.most_in_stratum(drawn, 0)
        yield (
            f"None of the {drawn} documents drawn with the lowest scores has the label. The interval takes the scores' "
            f"word for the other {others:,}. The sample alone would allow up to {most:.1%} of them."
        )

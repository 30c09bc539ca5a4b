"""Checks of the data that a model was trained and measured on.

The first line of a docstring says what the check looks for, and the rest what to do about it.
"""

from collections.abc import Iterator

import numpy as np
from scipy import stats

from training.evidence import Evidence, Found
from training.paired import discoveries
from training.terminal import counted

FEWEST_LEARNT = 20  # documents of a label in train
FEWEST_MEASURED = 30  # documents of a label in the reported split
SMALLEST = 200  # documents of the reported split
DRIFT = 1.25  # ratio of two shares that matters
SIGNIFICANCE = 0.01  # false-discovery rate of the shares that differ
SAME = 0.95  # Jaccard similarity of the documents of two labels that are one


def leak(evidence: Evidence) -> Iterator[Found]:
    """Documents of validation or test were also trained on, so that the scores are too good.

    Set `data.drop_leaks`, and train again.
    """
    if evidence.main.metrics["data_sha256"] == evidence.manifest.training.get("data_sha256"):
        yield f"{evidence.main.split} is the data that the model was trained on", []
    count = evidence.duplicates("train-validation", "train-test")
    if count and not evidence.config.get("data", {}).get("drop_leaks", True):
        yield f"{counted(count, 'training document')} found in validation or test too, word for word or nearly so", []


def held_out_overlap(evidence: Evidence) -> Iterator[Found]:
    """Documents of test stand in validation too, so that thresholds and the best epoch were chosen on them.

    Name in `data.split_by` what such documents have in common, or remove them.
    """
    if count := evidence.duplicates("validation-test"):
        yield f"{counted(count, 'document')} of validation found in test too, word for word or nearly so", []


def repeated_documents(evidence: Evidence) -> Iterator[Found]:
    """Documents of validation or test stand there more than once, so that intervals are too narrow.

    Remove the copies, or name in `data.split_by` what they have in common.
    """
    if count := evidence.duplicates("validation-validation", "test-test"):
        yield f"{counted(count, 'document')} found twice in validation or twice in test", []


def contrary_labels(evidence: Evidence) -> Iterator[Found]:
    """The same text has contrary labels, which no model can learn.

    Read the pairs of the kind `conflict` in the `duplicates.jsonl` that `labelbeam prepare` writes.
    """
    if count := evidence.conflicts:
        yield f"{counted(count, 'text')} found with contrary labels", []


def few_to_learn(evidence: Evidence) -> Iterator[Found]:
    """A label has few training documents.

    Label more documents, join the label with another one, or leave it out by `labels.min_documents`.
    """
    if few := [name for name, documents in evidence.learnt.items() if documents < FEWEST_LEARNT]:
        yield f"{{labels}}: fewer than {FEWEST_LEARNT} training documents", few


def few_to_decide(evidence: Evidence) -> Iterator[Found]:
    """A label has few documents in validation, so that its threshold and calibration lean on those of all labels.

    Set a larger share of the data aside for validation.
    """
    validation, fewest = evidence.validation, evidence.decision_config.fewest_positives
    if validation and validation.labels.thresholds_needed:
        labels = validation.metrics["labels"]
        decided = validation.labels.names[-validation.labels.thresholds_needed :]
        few = [name for name in decided if labels[name]["support"] < fewest]
        if few:
            yield f"{{labels}}: fewer than {fewest} documents in validation", few


def few_to_measure(evidence: Evidence) -> Iterator[Found]:
    """A label has few documents in the reported split, so that its numbers are vague.

    Report its interval beside each number, or set a larger share of the data aside.
    """
    if few := [name for name, count in evidence.support.items() if 0 < count < FEWEST_MEASURED]:
        yield f"{{labels}}: fewer than {FEWEST_MEASURED} documents in {evidence.main.split}", few


def none_to_measure(evidence: Evidence) -> Iterator[Found]:
    """No document of the reported split has the label, so that it counts as an F1 of 0 in macro-F1.

    Report `macro_f1_of_others` too, or label documents that have it.
    """
    metrics = evidence.main.metrics
    if absent := metrics["labels_without_documents"]:
        others = f", and is {metrics['macro_f1_of_others']:.3f} without" if "macro_f1_of_others" in metrics else ""
        yield f"{{labels}}: no document in {evidence.main.split}; macro-F1 counts 0 for each{others}", absent


def small_split(evidence: Evidence) -> Iterator[Found]:
    """The reported split is so small that another draw of it could give rather different numbers.

    Set a larger share of the data aside, or train with `--folds`.
    """
    if (documents := len(evidence.main.examples)) < SMALLEST:
        yield f"{evidence.main.split} has {counted(documents, 'document')}", []


def share_drift(evidence: Evidence) -> Iterator[Found]:
    """A label is more frequent in one split than in another, by more than chance.

    Cut the splits from one file, or say which of them is like the corpus.
    """
    if (validation := evidence.validation) is None or validation is evidence.main:
        return
    counts = [
        (one.examples.positive.sum(axis=0), one.examples.known.sum(axis=0)) for one in (validation, evidence.main)
    ]
    (hits, known), (other_hits, other_known) = counts
    tables = np.stack([hits, known - hits, other_hits, other_known - other_hits], axis=1).reshape(-1, 2, 2)
    values = [stats.fisher_exact(table).pvalue for table in tables]
    shares = np.stack([(hits + 0.5) / (known + 1), (other_hits + 0.5) / (other_known + 1)])
    far = np.maximum(shares[0] / shares[1], shares[1] / shares[0]) > DRIFT
    drifted = far & np.array(discoveries(values, SIGNIFICANCE))
    if labels := [name for name, one in zip(evidence.main.labels.names, drifted, strict=True) if one]:
        yield f"{{labels}}: the share of documents in {evidence.main.split} is not that in validation", labels


def mostly_unknown(evidence: Evidence) -> Iterator[Found]:
    """It is unknown for most training documents whether the label applies.

    Its F1 holds for the documents that somebody judged. Draw some of the others at random, and label them.
    """
    documents = evidence.manifest.training.get("documents", 0)
    counts: dict[str, int] = evidence.manifest.training.get("unknown_counts", {})
    if unknown := [name for name, count in counts.items() if 2 * count > documents]:
        yield "{labels}: unknown for more than half of the training documents", unknown


def same_label(evidence: Evidence) -> Iterator[Found]:
    """Two labels stand on nearly the same documents, so that they may be one label with two names.

    Join them by `labels.groups`, or leave one out.
    """
    positive = evidence.main.examples.positive.astype(np.float32)
    both, each = positive.T @ positive, positive.sum(axis=0)
    similarity = both / np.maximum(each[:, None] + each - both, 1)
    names = evidence.main.labels.names
    for one, other in np.argwhere(np.triu((similarity >= SAME) & (each >= FEWEST_MEASURED), 1)):
        yield f"{{labels}}: the same documents of {evidence.main.split}, almost all", [names[one], names[other]]

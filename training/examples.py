"""The labelled examples of a training, and the three splits that hold them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.spool import Texts

SPLITS = ("train", "validation", "test")


@dataclass
class Examples:
    """Texts and targets of one split. The texts are in a file.

    `targets` is float32 (documents, labels): 1 where a label applies, 0 where it does not, and NaN where nobody knows.
    Only multi_label has unknown labels.
    """

    texts: Texts
    targets: NDArray[np.float32]
    ids: list[str]  # origin of each example, as FILE:ROW
    groups: list[str] | None = None  # the rows' values of `data.split_by`, which stay in one split; else texts do
    skipped: dict[str, int] = field(default_factory=dict)  # number of rows left out, by reason
    # a teacher's probabilities (documents, labels), which the loss takes in place of the targets
    taught: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, texts: Iterable[str], targets: NDArray[np.float32], ids: list[str], groups: list[str] | None = None
    ) -> "Examples":
        """Return examples whose texts are written to a file."""
        return cls(Texts.of(texts), targets, ids, groups)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def keys(self) -> Sequence[str]:
        """The values that must stay in one split: texts, or groups if there are some."""
        return self.texts if self.groups is None else self.groups

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Whether a label is known to apply, as booleans (documents, labels)."""
        return self.targets > 0

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether it is known if a label applies, as booleans (documents, labels)."""
        return ~np.isnan(self.targets)

    @property
    def learnt(self) -> NDArray[np.float32]:
        """What the loss compares with (documents, labels): the teacher's probabilities where there are some."""
        return self.targets if self.taught is None else self.taught

    def sha256(self) -> str:
        """Return a hash of texts, targets and what a teacher says, which tells on which data a metric was measured."""
        digest = hashlib.sha256(self.targets.tobytes())
        if self.taught is not None:
            digest.update(self.taught.tobytes())
        for text in self.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64], reason: str | None = None) -> "Examples":
        """Return the examples at these positions. If there is a reason, the others count as left out for it."""
        ids = [self.ids[i] for i in indices]
        groups = None if self.groups is None else [self.groups[i] for i in indices]
        skipped = dict(self.skipped)
        if reason and len(indices) < len(self):
            skipped[reason] = skipped.get(reason, 0) + len(self) - len(indices)
        taught = None if self.taught is None else self.taught[indices]
        return Examples(self.texts.take(indices), self.targets[indices], ids, groups, skipped, taught)


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Return all examples, one part after the other."""
    skipped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    texts, targets = Texts.joined([part.texts for part in parts]), np.concatenate([part.targets for part in parts])
    ids = [document for part in parts for document in part.ids]
    grouped = any(part.groups is not None for part in parts)
    groups = [key for part in parts for key in part.keys] if grouped else None
    taught = np.concatenate([part.learnt for part in parts]) if any(part.taught is not None for part in parts) else None
    return Examples(texts, targets, ids, groups, skipped, taught)


@dataclass(frozen=True)
class Splits:
    """The three parts of the labelled data. `test` may be empty."""

    train: Examples
    validation: Examples
    test: Examples

    def items(self) -> Iterator[tuple[str, Examples]]:
        """Return the name and the examples of each split, in the order of SPLITS."""
        return ((name, getattr(self, name)) for name in SPLITS)

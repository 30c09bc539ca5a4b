"""Audits of documents whose labels are all known, in memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inference.audits import strata
from inference.audits.estimates import Labelled
from inference.audits.population import SCALE, Block
from inference.audits.strata import Design


@dataclass(frozen=True, eq=False)
class World:
    """Documents with scores and labels, and the design of an audit of them."""

    scores: NDArray[np.int64]  # (documents,), in millionths
    truth: NDArray[np.bool_]  # (documents,)
    applies: NDArray[np.int64]  # (documents,), 1 if the model gave the label
    group: NDArray[np.int64]  # (documents,), number of the group
    size: int  # documents to draw

    @cached_property
    def _block(self) -> Block:
        groups = [f"{group:06}" for group in self.group]
        return Block(0, [""] * len(groups), groups, self.scores[:, None], self.applies[:, None].astype(np.bool_))

    @cached_property
    def design(self) -> Design:
        """The strata of the audit."""
        return strata.design(strata.histogram(self._block, (1.0,)), (1.0,), self.size)

    @cached_property
    def stratum(self) -> NDArray[np.int64]:
        """The stratum of each document."""
        return self.design.strata_of(self._block)

    @cached_property
    def _frame(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        shape = (len(self.design.strata), int(self.group.max()) + 1, 2)
        place = np.ravel_multi_index((self.stratum, self.group, self.applies), shape)
        documents = np.bincount(place, minlength=int(np.prod(shape))).reshape(shape)
        expected = np.bincount(place, self.scores / SCALE, int(np.prod(shape))).astype(np.float64)
        return documents, expected.reshape(shape)

    @cached_property
    def _members(self) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(self.stratum == number) for number in range(len(self.design.strata))]

    def audit(self, rng: np.random.Generator) -> Labelled:
        """Draw a sample, and label it by the truth."""
        pairs = zip(self._members, self.design.strata, strict=True)
        drawn = np.concatenate([rng.choice(members, one.drawn, replace=False) for members, one in pairs])
        return Labelled(
            *self._frame,
            self.stratum[drawn],
            self.group[drawn],
            self.applies[drawn],
            self.scores[drawn] / SCALE,
            self.truth[drawn].astype(np.float64),
        )

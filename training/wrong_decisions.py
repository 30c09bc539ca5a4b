"""Finds the errors that are worth reading, by label, and the training texts that are closest to each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from models import page
from models.labels import Task
from training.examples import Examples
from training.measurement import Measurement

SHOWN = 60  # errors in all
FEWEST, MOST = 3, 20  # errors of a label, if it has so many
LONGEST = 300  # characters that are shown of a text
CLOSEST = 2  # training texts beside an error
LEAST_SIMILAR = 0.1  # cosine below which two texts have hardly a word in common
SEARCHED = 20_000  # training documents among which the closest are looked for
READ = 2_000  # characters of a text that are compared


@dataclass(frozen=True)
class Neighbour:
    """A training document with words like those of an error."""

    text: str
    labels: list[str]
    similarity: float  # cosine of TF-IDF vectors of words and word pairs


@dataclass(frozen=True)
class WrongDecision:
    """A document that got a label which it should not have, or did not get one which it should."""

    id: str
    text: str
    truth: list[str]
    predicted: list[str]
    label: str
    score: float
    closest: tuple[Neighbour, ...] = ()


def find(measurement: Measurement, train: Examples | None = None) -> dict[str, list[WrongDecision]]:
    """Return the wrong decisions with the most certain scores by label, each document once.

    Labels come in the order of their most certain error. With training documents, each error has the closest ones.
    """
    certainty = _certainty(measurement)
    label_of, by_document = certainty.argmax(axis=1), certainty.max(axis=1)
    names = measurement.labels.names
    most = int(np.clip(SHOWN // len(names), FEWEST, MOST))
    rows: dict[int, list[int]] = {}
    for row in np.argsort(-by_document, kind="stable").tolist():
        if by_document[row] < 0 or sum(map(len, rows.values())) == SHOWN:
            break
        of_label = rows.setdefault(int(label_of[row]), [])
        if len(of_label) < most:
            of_label.append(row)
    every = [row for of_label in rows.values() for row in of_label]
    closest = _closest([measurement.examples.texts[row] for row in every], train, names) if train and every else []
    beside = dict(zip(every, closest, strict=False))  # without training documents there is nothing beside an error
    return {
        names[label]: [_decision(measurement, row, label, beside.get(row, ())) for row in of_label]
        for label, of_label in rows.items()
    }


def _certainty(measurement: Measurement) -> NDArray[np.float64]:
    """Return how certain each wrong decision was (documents, labels), and -1 where none is wrong."""
    truth, known = measurement.examples.positive, measurement.examples.known
    against = np.where(truth, 1 - measurement.probs, measurement.probs)  # weight of the score against the truth
    certainty = np.where((truth != measurement.predicted) & known, against, -1.0)
    if measurement.labels.task is not Task.MULTI_LABEL:  # keep the label that was given instead of the true one
        certainty = np.where(measurement.predicted, certainty, -1.0)
    return certainty


def _decision(measurement: Measurement, row: int, label: int, closest: tuple[Neighbour, ...]) -> WrongDecision:
    examples, names = measurement.examples, np.array(measurement.labels.names)
    return WrongDecision(
        id=examples.ids[row],
        text=page.shortened(examples.texts[row], LONGEST),
        truth=names[examples.positive[row]].tolist(),
        predicted=names[measurement.predicted[row]].tolist(),
        label=str(names[label]),
        score=float(measurement.probs[row, label]),
        closest=closest,
    )


def _closest(texts: Sequence[str], train: Examples, names: Sequence[str]) -> list[tuple[Neighbour, ...]]:
    """Return the training documents that are closest to each text."""
    chosen = np.arange(len(train))
    if len(train) > SEARCHED:
        chosen = np.sort(np.random.default_rng(0).choice(len(train), SEARCHED, replace=False))
    words = HashingVectorizer(ngram_range=(1, 2), alternate_sign=False, norm=None, n_features=2**18, dtype=np.float32)
    weights = TfidfTransformer(sublinear_tf=True)
    learnt = weights.fit_transform(words.transform(train.texts[int(place)][:READ] for place in chosen))
    similarity: csr_matrix = weights.transform(words.transform(text[:READ] for text in texts)) @ learnt.T
    found = []
    for row in range(len(texts)):
        line = similarity.getrow(row)
        best = np.argsort(-line.data, kind="stable")[:CLOSEST]
        pairs = [(int(chosen[line.indices[place]]), float(line.data[place])) for place in best]
        found.append(tuple(_neighbour(train, *pair, names) for pair in pairs if pair[1] >= LEAST_SIMILAR))
    return found


def _neighbour(train: Examples, place: int, similarity: float, names: Sequence[str]) -> Neighbour:
    labels = [name for name, applies in zip(names, train.positive[place], strict=True) if applies]
    return Neighbour(page.shortened(train.texts[place], LONGEST), labels, similarity)

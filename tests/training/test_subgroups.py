"""Differences between the values of a column are found, and chance is not taken for one."""

import numpy as np
import pytest

from models.decision import Decision
from models.labels import LabelSchema, Task
from training import subgroups
from training.examples import Examples
from training.measurement import Measurement, measure_split
from training.subgroups import ALL, OTHERS

LABELS = LabelSchema(task=Task.MULTI_LABEL, names=("red", "green", "blue"))
DECISION = Decision(thresholds=(0.5, 0.5, 0.5))


def world(seed: int, worse: float = 0.0, documents: int = 2_000) -> Measurement:
    """Return a measurement of documents of five years. In 2024, more noise is in the scores of red."""
    chance = np.random.default_rng(seed)
    years = chance.choice(["2020", "2021", "2022", "2023", "2024"], documents)
    targets = (chance.random((documents, 3)) < 0.3).astype(np.float32)
    logits = 4 * targets - 2 + chance.normal(scale=1.5, size=targets.shape)
    logits[years == "2024", 0] += chance.normal(scale=worse, size=(years == "2024").sum())
    groups = years.tolist()
    groups[:3] = ["1999", "1998", ""]
    ids = list(map(str, range(documents)))
    return measure_split("test", Examples.of(ids, targets, ids, groups), logits, LABELS, DECISION)


def test_a_year_in_which_a_label_is_worse_is_found() -> None:
    found = {(one.value, one.label): one for one in subgroups.compare(world(0, worse=5))}
    red = found["2024", "red"]
    assert red.holds_up
    assert red.low < red.f1 - red.f1_elsewhere < red.high < -0.1
    assert red.p < 1e-4
    assert {one.label for one in found.values() if one.value == "2024"} == {ALL, "red", "green", "blue"}
    assert OTHERS not in {value for value, _ in found}  # three documents tell nothing
    assert not found["2024", "green"].holds_up


def test_a_label_that_only_one_value_has_is_not_compared() -> None:
    """Elsewhere its F1 would be 0 whatever the model does."""
    ids = list(map(str, range(200)))
    groups = ["2020"] * 100 + ["2021"] * 100
    targets = np.zeros((200, 3), np.float32)
    targets[:50, 0] = targets[::2, 1] = 1
    examples = Examples.of(ids, targets, ids, groups)
    found = subgroups.compare(measure_split("test", examples, 4 * targets - 2 + 3 * (targets == 0), LABELS, DECISION))
    assert {one.label for one in found} == {ALL, "green"}


def test_chance_is_seldom_taken_for_a_difference() -> None:
    """Without any difference, at most one world in twenty should have a finding; intervals hold 0 as they should."""
    worlds = [subgroups.compare(world(seed, documents=600)) for seed in range(100)]
    assert sum(any(one.holds_up for one in found) for found in worlds) <= 12
    rows = [one for found in worlds for one in found]
    covered = np.mean([one.low <= 0 <= one.high for one in rows])
    assert 0.92 < covered < 0.98


@pytest.mark.parametrize("documents", [40, 500])
def test_a_small_group_is_no_more_often_called_different_than_its_p_value_says(documents: int) -> None:
    """The same model on both sides. A small group may be right by chance in all documents."""
    chance = np.random.default_rng(documents)
    found = []
    for _ in range(200):
        truth = chance.random(1_500) < 0.35
        given = np.where(chance.random(1_500) < 0.92, truth, ~truth)
        hits, decisions = 2 * (truth & given), truth.astype(int) + given
        inside = np.arange(1_500) < documents
        *_, low, high, p = subgroups._difference(hits, decisions, inside, chance)
        found.append((p, low <= 0 <= high))
    p_values, covered = np.array(found).T
    assert (p_values < 0.05).mean() < 0.09
    assert (p_values < 0.002).mean() < 0.015
    assert covered.mean() > 0.88


def test_the_interval_is_that_of_the_bootstrap() -> None:
    chance = np.random.default_rng(3)
    truth = chance.random(2_000) < 0.4
    given = np.where(chance.random(2_000) < 0.85, truth, ~truth)
    hits, decisions, inside = 2 * (truth & given), truth.astype(int) + given, np.arange(2_000) < 800
    first, second, low, high, _ = subgroups._difference(hits, decisions, inside, chance)
    drawn = []
    for _ in range(2_000):
        sides = [chance.integers(0, 800, 800), chance.integers(800, 2_000, 1_200)]
        one, other = (hits[rows].sum() / decisions[rows].sum() for rows in sides)
        drawn.append(one - other)
    assert first - second == pytest.approx(np.mean(drawn), abs=0.005)
    assert high - low == pytest.approx(3.92 * np.std(drawn), rel=0.1)


def test_a_column_with_one_value_has_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    ids = list(map(str, range(100)))
    targets = np.ones((100, 3), np.float32)
    examples = Examples.of(ids, targets, ids, ["en"] * 100)
    measurement = measure_split("test", examples, 3 * targets, LABELS, DECISION)
    assert subgroups.compare(measurement) == []
    subgroups.show([], "language")
    assert "language" in capsys.readouterr().out

"""Tests of the audit's sampling and estimation, in simulated worlds in which the truth is known."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from benchmarks.audit.worlds import World
from inference.audits import drawing, estimates, population, strata
from inference.audits.drawing import Merge, OfFile, Result
from inference.audits.estimates import Labelled
from inference.audits.population import SCALE, Population, Question, RowFile
from inference.runs.lineage import Labels
from models.errors import UserError

Scores = NDArray[np.float64]
NO_RUN = Labels(run=None, delta=None, description={}, kept=None)


def make_population(folder: Path, scores: Scores, groups: list[str] | None = None, files: int = 2) -> Population:
    """Write rows with scores (documents, labels) as a run does, and return their population."""
    folder.mkdir(exist_ok=True)
    labels = [f"l{place}" for place in range(scores.shape[1])]
    row_files = []
    for number, places in enumerate(np.array_split(np.arange(len(scores)), files)):
        rows = []
        for place in places:
            values = [round(float(score), 6) for score in scores[place]]
            chosen = [label for label, value in zip(labels, values, strict=True) if value >= 0.5]
            written = [{"label": label, "score": value} for label, value in zip(labels, values, strict=True)]
            group = groups[place] if groups else None
            rows.append({"id": f"d{place}", "year": group, "m": {"labels": chosen, "scores": written}})
        path = folder / f"{number}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        row_files.append(RowFile(number, str(path), hashlib.sha256(path.read_bytes()).hexdigest(), None))
    question = Question("m", tuple(labels), tuple(range(len(labels))), "year" if groups else None)
    return Population("run", NO_RUN, tuple(row_files), len(scores), tuple(labels), question)


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 0.5)), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_an_allocation_keeps_its_limits(rows: list[tuple[int, float]], share: float) -> None:
    """Property: all of the size is given out; no stratum gets more than it has, nor less than ten if it has them."""
    documents, spreads = [row[0] for row in rows], [row[1] for row in rows]
    least = sum(min(count, strata.LEAST) for count in documents)
    size = least + int(share * (sum(documents) - least))
    drawn = strata.allocate(documents, spreads, size)
    assert sum(drawn) == size
    assert all(min(count, strata.LEAST) <= taken <= count for count, taken in zip(documents, drawn, strict=True))


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("groups", [None, ["a", "b", "c"]])
def test_strata_hold_each_document_once(tmp_path: Path, labels: int, groups: list[str] | None) -> None:
    rng = np.random.default_rng(0)
    of_group = [groups[place % 3] for place in range(900)] if groups else None
    source = make_population(tmp_path, rng.beta(0.2, 2, (900, labels)), of_group)
    design = drawing.plan(source, 300)
    counts = np.zeros(len(design.strata), int)
    for file in source.files:
        for block in population.blocks(file, source.question):
            found = design.strata_of(block)
            assert (found >= 0).all()
            np.add.at(counts, found, 1)
    assert counts.tolist() == [stratum.documents for stratum in design.strata]
    assert sum(stratum.drawn for stratum in design.strata) == 300


def test_more_are_drawn_where_the_model_is_less_sure(tmp_path: Path) -> None:
    scores = np.concatenate([np.full(9_000, 0.001), np.linspace(0.3, 0.7, 1_000)])[:, None]
    design = drawing.plan(make_population(tmp_path, scores), 200)
    sure = [stratum for stratum in design.strata if stratum.variances[0] < 0.01]
    assert sum(stratum.documents for stratum in sure) == 9_000
    assert 70 < sum(stratum.drawn for stratum in sure) < 100  # Neyman: 66 of 180, and 18 of the 20 without scores


def test_each_document_is_drawn_with_its_probability(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = rng.beta(0.3, 1, (400, 1))
    source = make_population(tmp_path, scores, files=3)
    design, draws = drawing.plan(source, 60), 200
    drawn = np.zeros(400)
    probability = np.zeros(400)
    for seed in range(draws):
        sample = drawing.draw(source, 60, seed)
        assert len(sample.drawn) == 60
        for one in sample.drawn:
            drawn[int(one.id[1:])] += 1
    for file in source.files:
        for block in population.blocks(file, source.question):
            for identifier, number in zip(block.ids, design.strata_of(block), strict=True):
                stratum = design.strata[number]
                probability[int(identifier[1:])] = stratum.drawn / stratum.documents
    deviation = (drawn - draws * probability) / np.sqrt(draws * probability * (1 - probability) + 1e-9)
    assert abs(deviation).max() < 4.5
    assert 0.7 < deviation[probability < 1].std() < 1.3


def test_a_draw_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    source = make_population(tmp_path, np.random.default_rng(2).beta(0.3, 1, (500, 2)), files=5)

    def backwards(files: Sequence[RowFile], of_file: OfFile, merge: Merge) -> Result:
        results = [of_file(file) for file in reversed(files)]
        return merge([merge(results[:2]), merge([]), merge(results[2:])])

    assert drawing.draw(source, 80, 3, backwards) == drawing.draw(source, 80, 3)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = make_population(tmp_path, np.random.default_rng(0).random((50, 4)))
    with pytest.raises(UserError, match="at most the 50 documents of the run, found 51"):
        drawing.plan(source, 51)
    with pytest.raises(UserError, match="at least 40, 10 for each label"):
        drawing.plan(source, 39)


def make_world(scores: Scores, truth: NDArray[np.bool_], size: int, groups: int = 1) -> World:
    """Return documents whose model gives the label to high scores; groups take turns."""
    applies = (scores >= min(0.5, 8 * scores.mean())).astype(np.int64)
    return World(np.rint(scores * SCALE).astype(np.int64), truth, applies, np.arange(len(scores)) % groups, size)


@functools.cache
def _scores(mean: float, documents: int = 20_000) -> Scores:
    rng = np.random.default_rng(5)
    alpha = 0.15 if mean < 0.1 else 0.3 * mean  # a rare label is learnt less well
    return np.minimum(rng.beta(alpha, alpha * (1 - mean) / mean, documents), 0.999)


def _world(mean: float, tilt: float, size: int, groups: int = 1) -> World:
    """Return documents whose odds of the label are `tilt` times what their scores say."""
    scores = _scores(mean)
    odds = tilt * scores / (1 - scores + 1e-12)
    truth = np.random.default_rng(6).random(len(scores)) < odds / (1 + odds)
    return make_world(scores, truth, size, groups)


@pytest.mark.parametrize("tilt", [1.0, 0.4, 2.0])
@pytest.mark.parametrize(("mean", "size"), [(0.013, 200), (0.013, 400), (0.3, 200), (0.8, 400)])
def test_intervals_hold_the_truth(mean: float, size: int, tilt: float) -> None:
    world = _world(mean, tilt, size)
    rng = np.random.default_rng(7)
    truth = world.truth.sum()
    precision = world.truth[world.applies == 1].mean()
    recall = world.applies[world.truth].mean()
    hits, values, widths = np.zeros(3), [], []
    audits = 80
    for seed in range(audits):
        found = estimates.estimate(world.audit(rng), seed)
        pairs = ((found.count, truth), (found.precision, precision), (found.recall, recall))
        for place, (interval, value) in enumerate(pairs):
            assert interval or not found.positives  # no recall without a document that has the label
            hits[place] += interval is None or interval.low <= value <= interval.high
        values.append(found.count.value)
        widths.append(found.count.high - found.count.low)
    assert (hits / audits >= 0.88).all(), hits / audits  # 0.95 less three standard errors
    assert abs(np.mean(values) - truth) < 0.1 * np.mean(widths)


def test_an_audit_beats_a_random_sample() -> None:
    world = _world(0.013, 1.5, 400)
    share = world.truth.mean()
    at_random = 2 * 1.96 * np.sqrt(share * (1 - share) / 400)
    rng = np.random.default_rng(8)
    widths = [(found.count.high - found.count.low) / found.documents for found in _estimates(world, rng, 40)]
    assert np.mean(widths) < 0.7 * at_random


def _estimates(world: World, rng: np.random.Generator, audits: int) -> list[estimates.Estimate]:
    return [estimates.estimate(world.audit(rng), seed) for seed in range(audits)]


@pytest.mark.parametrize("size", [400, 800])  # with strata that hold every group, and with strata of each group
@pytest.mark.parametrize("tilt", [1.0, 2.0])
def test_groups_add_up_and_their_intervals_hold_the_truth(tilt: float, size: int) -> None:
    world = _world(0.1, tilt, size, groups=8)
    truth = np.bincount(world.group[world.truth], minlength=8)
    rng = np.random.default_rng(9)
    hits = []
    for seed in range(30):
        labelled = world.audit(rng)
        count = estimates.estimate(labelled, seed).count.value
        groups = estimates.by_group(labelled, count, seed)
        assert sum(group.value for group in groups) == pytest.approx(count)
        hits += [group.low <= value <= group.high for group, value in zip(groups, truth, strict=True)]
    assert np.mean(hits) >= 0.9


@pytest.mark.parametrize("groups", [3, 8])  # with strata of each group, and with strata that hold every group
def test_groups_of_a_rare_label_add_up(groups: int) -> None:
    world = _world(0.003, 1.0, 400, groups)
    rng = np.random.default_rng(3)
    for seed in range(10):
        labelled = world.audit(rng)
        count = estimates.estimate(labelled, seed).count.value
        found = estimates.by_group(labelled, count, seed)
        assert sum(group.value for group in found) == pytest.approx(count, abs=1e-3)
        seen = np.bincount(labelled.group, labelled.truth, groups)
        sizes = np.bincount(world.group)
        for group, least, most in zip(found, seen, sizes, strict=True):
            assert least <= group.low <= group.value <= group.high <= most


def test_files_with_the_same_rows_are_drawn_apart(tmp_path: Path) -> None:
    scores = np.tile(np.random.default_rng(2).beta(0.3, 1, (300, 1)), (2, 1))
    source = make_population(tmp_path, scores)
    twice = replace(source, files=(source.files[0], replace(source.files[0], number=1)))
    drawn = [(one.file, one.row) for one in drawing.draw(twice, 100, 0).drawn]
    assert len({row for _, row in drawn}) > 70


def test_a_sample_of_everything_knows_the_truth() -> None:
    scores = np.random.default_rng(3).random(60)
    truth = np.random.default_rng(4).random(60) < 0.5
    found = estimates.estimate(make_world(scores, truth, 60).audit(np.random.default_rng(0)))
    assert found.count == (truth.sum(), truth.sum(), truth.sum())


@pytest.mark.parametrize("seed", range(5))
def test_no_document_with_the_label(seed: int) -> None:
    found = estimates.estimate(
        make_world(_scores(0.013), np.zeros(20_000, bool), 400).audit(np.random.default_rng(seed))
    )
    assert found.count.low == 0
    assert found.count.value < found.count.high < 200
    assert found.precision
    assert found.precision.low == 0
    assert found.recall is None


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(100) < 0.3
    other = one ^ (rng.random(100) < 0.1)
    assert estimates.agreement(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert estimates.agreement(one, one) == 1
    assert estimates.agreement(np.zeros(5, bool), np.zeros(5, bool)) == 1


def test_one_stratum_gives_the_estimate_of_prediction_powered_inference() -> None:
    """Compare with Angelopoulos et al. (2023), as their package computes it."""
    ppi = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(0)
    scores = rng.beta(1, 3, 5_000)
    truth = rng.random(5_000) < scores
    drawn = rng.choice(5_000, 500, replace=False)
    rest = np.setdiff1d(np.arange(5_000), drawn)
    theirs = ppi.ppi_mean_pointestimate(truth[drawn].astype(float), scores[drawn], scores, lam=1)
    low, high = ppi.ppi_mean_ci(truth[drawn].astype(float), scores[drawn], scores[rest], lam=1, alpha=0.05)
    labelled = Labelled(
        np.array([[[5_000, 0]]]),
        np.array([[[scores.sum(), 0.0]]]),
        np.zeros(500, np.int64),
        np.zeros(500, np.int64),
        np.zeros(500, np.int64),
        scores[drawn],
        truth[drawn].astype(np.float64),
    )
    count = estimates.estimate(labelled).count.over(5_000)
    assert count.value == pytest.approx(float(np.squeeze(theirs)))
    assert count.high - count.low == pytest.approx(
        float(np.squeeze(high - low)), rel=0.15
    )  # theirs has no end of the corpus


def test_strata_within_groups_when_there_is_room(tmp_path: Path) -> None:
    scores = np.random.default_rng(2).beta(0.3, 1, (2_000, 1))
    source = make_population(tmp_path, scores, [str(place % 2) for place in range(2_000)])
    assert {stratum.group for stratum in drawing.plan(source, 160).strata} == {"0", "1"}
    assert {stratum.group for stratum in drawing.plan(source, 150).strata} == {strata.EVERY}

"""Splits are stratified and stay apart, training data leaks nothing, and the data card adds up."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from tests.training.conftest import toy_rows, write_rows
from tests.training.test_data import settings
from training import config_file, data_splits, prepare
from training.data_splits import Prepared
from training.duplicates import Duplicate
from training.examples import SPLITS


def cut(tmp_path: Path, rows: list[dict[str, Any]], labels: dict[str, Any] | None = None, **more: Any) -> Prepared:
    """Prepare rows without files for validation and test, so that these are cut from the rows."""
    write_rows(tmp_path / "rows.jsonl", rows)
    seed = more.pop("seed", 0)
    config = settings(labels, data={"validation": [], "test": [], **more}, training={"seed": seed})
    return data_splits.prepare(config, tmp_path)


def sides(prepared: Prepared) -> dict[str, list[str]]:
    return {name: [*getattr(prepared.splits, name).texts] for name in SPLITS}


def red(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {number}", "label": "red", "id": number, **more} for number in range(count)]


def test_splits_have_their_shares_and_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    found = sides(cut(tmp_path, red(2000)))
    assert {name: len(texts) for name, texts in found.items()} == {"train": 1400, "validation": 300, "test": 300}
    assert len({text for texts in found.values() for text in texts}) == 2000
    backwards = sides(cut(tmp_path, red(2000)[::-1]))
    assert {name: set(texts) for name, texts in backwards.items()} == {n: set(t) for n, t in found.items()}
    assert sides(cut(tmp_path, red(2000), seed=1)) != found


def test_every_label_has_its_share_of_every_split(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    frequencies = {"common": 0.5, "some": 0.1, "rare": 0.02}
    rows = [
        {"text": f"text {number}", "label": [name for name, p in frequencies.items() if chance.random() < p]}
        for number in range(3000)
    ]
    prepared = cut(tmp_path, rows, {"task": "multi_label", "names": list(frequencies)})
    totals = np.sum([part.targets.sum(axis=0) for part in vars(prepared.splits).values()], axis=0)
    for name, share in (("validation", 0.15), ("test", 0.15)):
        found = getattr(prepared.splits, name).targets.sum(axis=0)
        assert np.abs(found - share * totals).max() <= 12  # a random cut errs by the root of 225 and more
        assert abs(found[2] - share * totals[2]) <= 1  # the rarest label is cut by itself
        assert len(getattr(prepared.splits, name)) == pytest.approx(450, abs=1)


def test_equal_texts_and_equal_split_keys_land_on_one_side(tmp_path: Path) -> None:
    labels = {"task": "multi_label", "names": ["red", "green"]}
    twice = [{"text": f"text {n % 300}", "label": ["red"] if n < 300 else []} for n in range(600)]  # all in conflict
    found = cut(tmp_path, twice, labels)
    texts = {name: set(part) for name, part in sides(found).items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]
    assert sum(len(part) for part in vars(found.splits).values()) == 600
    assert found.card["duplicates"] == {
        f"conflict {name}-{name}": len(texts[name]) for name in ("test", "train", "validation")
    }

    authors = [{"text": f"author {n % 40} text {n}", "label": "red", "author": n % 40} for n in range(800)]
    by_author = sides(cut(tmp_path, authors, split_by="author"))
    held = {name: {text.split()[1] for text in part} for name, part in by_author.items()}
    assert sum(map(len, held.values())) == 40
    assert {name: len(part) for name, part in held.items()} == {"train": 28, "validation": 6, "test": 6}

    shared = [
        {"text": f"text {n % 100}", "label": "red", "author": n % 40} for n in range(800)
    ]  # each text has five authors
    forwards, backwards = (sides(cut(tmp_path, rows, split_by="author")) for rows in (shared, shared[::-1]))
    assert {name: set(texts) for name, texts in forwards.items()} == {n: set(t) for n, t in backwards.items()}


def test_shares_are_of_documents_where_keys_have_many(tmp_path: Path) -> None:
    """A hundred authors wrote half of the texts, and two the other half."""
    rows = [{"text": f"text {n}", "label": "red", "author": n if n < 100 else 100 + n % 2} for n in range(200)]
    rows += [{"text": f"more {n}", "label": "green", "author": f"a{n % 70}"} for n in range(700)]
    for seed in range(8):
        parts = sides(cut(tmp_path, rows, split_by="author", seed=seed))
        assert {name: len(part) for name, part in parts.items()} == {
            "train": pytest.approx(900 * 0.7, abs=60),
            "validation": pytest.approx(900 * 0.15, abs=60),
            "test": pytest.approx(900 * 0.15, abs=60),
        }


def test_the_seed_of_the_data_is_apart_from_that_of_the_training(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", red(200))
    one, same, other = (
        data_splits.prepare(
            settings(data={"validation": [], "test": [], "seed": seed}, training={"seed": of}), tmp_path
        )
        for seed, of in ((1, 1), (1, 2), (2, 1))
    )
    assert sides(one) == sides(same) != sides(other)


def test_no_test_split_is_fine_where_none_is_asked_for(tmp_path: Path) -> None:
    found = sides(cut(tmp_path, red(100), split={"validation": 0.5, "test": 0}))
    assert {name: len(texts) for name, texts in found.items()} == {"train": 50, "validation": 50, "test": 0}


def test_exact_duplicates_are_removed_before_the_cut(tmp_path: Path) -> None:
    prepared = cut(tmp_path, [*red(100), *red(40), {"text": "text  7 ", "label": "red"}])
    assert sum(map(len, sides(prepared).values())) == 100
    assert prepared.splits.train.skipped == {"duplicate": 41}
    assert prepared.splits.test.skipped == {}


def test_a_rare_label_is_learnt_before_it_is_measured(tmp_path: Path) -> None:
    names = [f"label {number}" for number in range(10)]
    rare = [{"text": f"text {n}", "label": name} for n, name in enumerate([*names, *names])]
    often = [{"text": f"often {n}", "label": "often"} for n in range(80)]
    prepared = cut(tmp_path, rare + often, {"task": "multi_class", "names": [*names, "often"]})
    assert {name: len(texts) for name, texts in sides(prepared).items()} == {"train": 70, "validation": 15, "test": 15}
    assert prepared.splits.train.targets.sum(axis=0)[:10].min() == 1
    assert prepared.splits.test.targets.sum(axis=0)[:10].sum() == 3


LONG = "in the beginning there was a rose and the rose was red and the grass below it was green as grass is"


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Prepared]:
    """Return a function that prepares three splits with files. Train nearly holds a document of the other two."""

    def run(**more: Any) -> Prepared:
        write_rows(tmp_path / "train.jsonl", [
            {"text": "a red one", "label": "red"},
            {"text": "a red one", "label": "red"},
            {"text": "a green one", "label": "green"},
            {"text": f"{LONG} indeed", "label": "red"},
            {"text": "one more of these", "label": "green"},
            {"text": "and another of these", "label": "red"},
        ])  # fmt: skip
        write_rows(tmp_path / "validation.jsonl", [{"text": LONG, "label": "red"}, {"text": "v", "label": "green"}] * 2)
        write_rows(tmp_path / "test.jsonl", [{"text": "A green one", "label": "red"}, {"text": LONG, "label": "green"}])
        files = {name: f"{name}.jsonl" for name in SPLITS}
        return data_splits.prepare(settings(data={**files, **more}), tmp_path)

    return run


def test_what_stands_in_validation_or_test_leaves_training_and_is_listed(given: Callable[..., Prepared]) -> None:
    prepared = given()
    assert [*prepared.splits.train.texts] == ["a red one", "one more of these", "and another of these"]
    assert prepared.splits.train.skipped == {"duplicate": 1, "leak": 2}
    assert len(prepared.splits.validation) == 4  # a benchmark stays whole
    near, lower_case = (pair for pair in prepared.duplicates if pair.split == "train")
    expected = Duplicate("near", 19 / 20, "train.jsonl:4", "train", "validation.jsonl:1", "validation")
    assert near == expected or lower_case.id == "train.jsonl:4"
    assert prepared.card["duplicates"] == {
        "conflict validation-test": 1,
        "exact validation-test": 2,
        "exact validation-validation": 2,
        "near train-test": 1,
        "near train-validation": 1,
    }
    repeated = next(pair for pair in prepared.duplicates if pair.split == pair.other_split)
    assert (repeated.id, repeated.other_id) == ("validation.jsonl:1", "validation.jsonl:3")


def test_the_same_text_is_told_from_one_that_differs_in_case(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "So good!", "label": "red"}, {"text": "so good", "label": "red"}])
    write_rows(tmp_path / "held.jsonl", [{"text": "SO GOOD", "label": "red"}, {"text": "so good", "label": "red"}])
    files = {"train": "train.jsonl", "validation": "held.jsonl", "test": [], "split": {"test": 0}}
    pairs = data_splits.prepare(settings(data={**files, "drop_leaks": False}), tmp_path).duplicates
    assert [(pair.kind, pair.id, pair.other_id) for pair in pairs] == [
        ("near", "train.jsonl:1", "held.jsonl:1"),
        ("exact", "train.jsonl:2", "held.jsonl:2"),
    ]


def test_leaks_stay_where_that_is_asked_for(given: Callable[..., Prepared]) -> None:
    kept = given(drop_leaks=False)
    assert len(kept.splits.train) == 5
    assert kept.duplicates == given().duplicates
    assert len(given(near_duplicate=1.0).splits.train) == 4  # only texts that differ in case alone


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", red(5))
    write_rows(tmp_path / "held.jsonl", [{"text": "grass", "label": "green"}])
    files = {"train": "train.jsonl", "validation": "train.jsonl", "test": "held.jsonl"}
    with pytest.raises(UserError, match=re.escape("labels ['green'] occur in validation or test: expected them in")):
        data_splits.prepare(settings(data={**files, "drop_leaks": False}), tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"text": "", "label": "red"}])
    with pytest.raises(UserError, match="data.train: expected at least one row with a text and a label, found none"):
        data_splits.prepare(settings(), tmp_path)
    with pytest.raises(UserError, match="data.validation: expected at least one row"):
        cut(tmp_path, red(2))


def test_subsampling_and_undersampling_touch_the_training_split_alone(tmp_path: Path) -> None:
    rows = red(800) + [{"text": f"other {number}", "label": "green"} for number in range(200)]
    whole = cut(tmp_path, rows)
    half = cut(tmp_path, rows, subsample=0.5)
    assert len(half.splits.train) == 350
    assert half.splits.train.skipped == {"subsampled": 350}
    assert set(half.splits.train.texts) < set(whole.splits.train.texts)
    even = cut(tmp_path, rows, undersample=1.5)
    assert even.splits.train.targets.sum(axis=0).tolist() == [210, 140]
    assert even.splits.train.skipped == {"undersampled": 350}
    for sampled in (half, even):
        assert [*sampled.splits.test.texts] == [*whole.splits.test.texts]
    assert cut(tmp_path, rows, undersample=100).splits.train.sha256() == whole.splits.train.sha256()
    assert cut(tmp_path, rows, undersample=1.5).splits.train.sha256() == even.splits.train.sha256()


def test_undersampling_takes_documents_without_a_label_for_a_class(tmp_path: Path) -> None:
    labels = {"task": "multi_label", "names": ["red", "green"]}
    rows = [{"text": f"t {n}", "label": ["red", "green"] if n % 10 == 0 else []} for n in range(1000)]
    found = cut(tmp_path, rows, labels, undersample=2).splits.train
    assert found.targets.any(axis=1).sum() == 70
    assert len(found) == 210
    few = [{"text": f"t {n}", "label": ["red"] if n % 10 else []} for n in range(1000)]
    found = cut(tmp_path, few, labels, undersample=0.05).splits.train
    assert found.targets.any(axis=1).sum() == 630  # labelled documents stay, however many there are
    assert len(found) == 630 + 31


def test_weak_negatives_are_mixed_into_training_only(tmp_path: Path) -> None:
    binary = {"task": "binary", "names": ["other", "red"]}
    rows = [{"text": f"text {number}", "label": "red" if number % 2 else "other"} for number in range(200)]
    write_rows(tmp_path / "weak.jsonl", [{"text": f"weak {n}"} for n in range(90)] + [{"text": "text 3"}, {"text": ""}])
    prepared = cut(tmp_path, rows, binary, weak_negatives={"files": "weak.jsonl", "share": 0.3})
    train = prepared.splits.train
    weak = [i for i, name in enumerate(train.ids) if name.startswith("weak.jsonl:")]
    assert len(weak) == 60  # 140 of the 200 are labelled
    assert len(train) == 200
    assert train.targets[weak].tolist() == [[1, 0]] * 60
    assert train.texts.count("text 3") <= 1
    assert not any("weak" in text for text in [*prepared.splits.validation.texts, *prepared.splits.test.texts])
    with pytest.raises(UserError, match=r"expected 210 distinct texts for a share of 0.6, found 90"):
        cut(tmp_path, rows, binary, weak_negatives={"files": "weak.jsonl", "share": 0.6})
    write_rows(tmp_path / "other.jsonl", [{"title": "weak"}])
    with pytest.raises(UserError, match=r"weak_negatives.files: expected columns \['text'\], found \['title'\]"):
        cut(tmp_path, rows, binary, weak_negatives={"files": "other.jsonl", "share": 0.3})
    with pytest.raises(
        UserError, match="data.weak_negatives: expected a binary or multi_label task, found multi_class"
    ):
        cut(tmp_path, red(9), weak_negatives={"files": "weak.jsonl", "share": 0.3})


def test_no_labelled_text_is_a_weak_negative_even_where_sampling_left_it_out(tmp_path: Path) -> None:
    binary = {"task": "binary", "names": ["other", "red"]}
    rows = [{"text": f"text {number}", "label": "red" if number % 2 else "other"} for number in range(200)]
    write_rows(tmp_path / "weak.jsonl", rows + [{"text": f"weak {number}"} for number in range(30)])
    weak = {"files": "weak.jsonl", "share": 0.3}
    train = cut(tmp_path, rows, binary, subsample=0.5, weak_negatives=weak).splits.train
    assert (
        sum(text.startswith("weak") for text in train.texts) == 30
    )  # the other 70 of the 100 are half the labelled ones
    assert len(train) == 100


@pytest.fixture
def command(tmp_path: Path, base: Path, write_config: Callable[..., Path]) -> Callable[..., int]:
    """Return a function that runs the command on the toy problem and returns the exit code."""

    def run(*flags: str, rows: list[dict[str, Any]] | None = None) -> int:
        write_rows(tmp_path / "rows.jsonl", rows or toy_rows())
        config = write_config(
            data='train = "rows.jsonl"',
            labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
            text="max_tokens = 16",
            model=f'base = "{base}"',
        )
        return prepare.main([str(config), "--data_dir", str(tmp_path), "--output", str(tmp_path / "out"), *flags])

    return run


def test_the_card_adds_up_and_the_files_read_back(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    out = tmp_path / "out"
    names = ["card.json", "card.md", "duplicates.jsonl", "test.parquet", "train.parquet", "validation.parquet"]
    assert sorted(path.name for path in out.iterdir()) == names
    card = json.loads((out / "card.json").read_bytes())
    page = (out / "card.md").read_text()
    for split in SPLITS:
        rows = pq.read_table(out / f"{split}.parquet").to_pylist()
        counts = card["splits"][split]
        assert counts["documents"] == len(rows)
        assert counts["without_label"] == sum(not row["labels"] for row in rows)
        for label, found in counts["labels"].items():
            held = [row["labels"] for row in rows if label in row["labels"]]
            assert found["documents"] == len(held)
            assert found["share"] == pytest.approx(len(held) / len(rows), abs=1e-6)
            assert found["with_others"] == pytest.approx(np.mean([len(row) > 1 for row in held]), abs=1e-6)
            assert f"{found['share']:.1%}" in page
        assert counts["tokens"]["p5"] <= counts["tokens"]["p50"] <= counts["tokens"]["p100"] < 60
        assert 0 < counts["tokens"]["truncated"] < 1
    leaks = card["splits"]["train"]["skipped"]["leak"]
    assert sum(card["splits"][split]["documents"] for split in SPLITS) + leaks == 240
    printed = capsys.readouterr().out
    assert re.search(rf"all documents\W+{168 - leaks}\W+36\W+36", printed)
    assert f"train: {leaks} rows left out: leak" in printed

    config = config_file.load_config(tmp_path / "config.toml")
    again, fresh = data_splits.read(out, config), data_splits.prepare(config, tmp_path)
    for split in SPLITS:
        assert getattr(again.splits, split).sha256() == getattr(fresh.splits, split).sha256()
        assert getattr(again.splits, split).ids == getattr(fresh.splits, split).ids
    assert again.schema == fresh.schema
    other = config_file.load_config(tmp_path / "config.toml", ["training.seed=3"])
    with pytest.raises(UserError, match="was made with other settings"):
        data_splits.read(out, other)
    with pytest.raises(UserError, match="found no card.json"):
        data_splits.read(tmp_path, config)


def test_a_directory_of_an_earlier_version_is_read(tmp_path: Path, command: Callable[..., int]) -> None:
    assert command() == 0
    out, config = tmp_path / "out", config_file.load_config(tmp_path / "config.toml")
    prepared = data_splits.read(out, config)
    assert prepared.duplicates
    card = json.loads((out / "card.json").read_bytes())
    card["twins"] = card.pop("duplicates")
    (out / "card.json").write_text(json.dumps(card))
    (out / "duplicates.jsonl").rename(out / "twins.jsonl")
    earlier = data_splits.read(out, config)
    assert earlier.duplicates == prepared.duplicates
    assert earlier.card == prepared.card


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("card.json", b"{"),
        ("card.json", b"[]"),
        ("card.json", b"{}"),
        ("test.parquet", b"PAR1"),
        ("duplicates.jsonl", None),
    ],
)
def test_a_damaged_directory_is_refused(
    tmp_path: Path, command: Callable[..., int], name: str, content: bytes | None
) -> None:
    assert command() == 0
    path = tmp_path / "out" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="expected the files that training.prepare writes, found some damaged"):
        data_splits.read(tmp_path / "out", config_file.load_config(tmp_path / "config.toml"))


def test_splits_that_were_changed_by_hand_are_refused(tmp_path: Path, command: Callable[..., int]) -> None:
    assert command() == 0
    path = tmp_path / "out" / "test.parquet"
    pq.write_table(pq.read_table(path)[1:], path)
    with pytest.raises(UserError, match="out: test no longer hold what card.json says: prepare again"):
        data_splits.read(tmp_path / "out", config_file.load_config(tmp_path / "config.toml"))


def test_what_is_there_is_replaced_only_on_request(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    before = (tmp_path / "out" / "train.parquet").read_bytes()
    assert command(rows=toy_rows(60)) == 2
    assert "is there already: name another directory, or add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.parquet").read_bytes() == before
    assert command("--overwrite", rows=toy_rows(60)) == 0
    assert (tmp_path / "out" / "train.parquet").read_bytes() != before
    (tmp_path / "out" / "card.json").unlink()
    assert command("--overwrite") == 2
    assert "only what training.prepare wrote is ever replaced" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []

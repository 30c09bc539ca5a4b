"""From labelled files to a trained model: configuration, label encodings, splits, thresholds, and the whole way."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import trained_model
from models.errors import UserError
from models.labels import LabelSchema, Task
from tests.tiny import tiny_base
from training import data, demo_corpus, evaluate, train
from training.config import TrainConfig, load_config

CONFIGS = sorted((Path(train.__file__).parent / "configs").glob("*.toml"))
COLOURS = {"red": "red rose in the grass", "green": "green grass in the sky", "blue": "blue sky and a rose"}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, lambda c: c)
    path.write_bytes(compress(content))
    return path


def config_of(**sections: dict[str, Any]) -> TrainConfig:
    base = {
        "data": {"train": "train.jsonl"},
        "labels": {"task": "multi_class", "names": list(COLOURS)},
        "model": {"base": "b"},
    }
    return TrainConfig.model_validate({**base, **sections})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path).model.base


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=1", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ("training.epochs=0", "training.epochs"),
        ("labels.task=many", "labels.task"),
        ("model.base=", "model.base"),
        ("text.cleaning=['shout']", "unknown cleaning steps"),
        ("training", "--set expects section.key=value"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(CONFIGS[0], [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


CELLS: list[tuple[dict[str, Any], object, list[int]]] = [
    ({"task": "multi_class", "names": ["a", "b", "c"]}, "b", [0, 1, 0]),
    ({"task": "multi_class", "names": ["a", "b", "c"]}, 2, [0, 0, 1]),
    ({"task": "binary", "names": ["no", "yes"]}, True, [0, 1]),
    ({"task": "binary", "names": ["no", "yes"]}, "0", [1, 0]),
    ({"task": "binary", "names": ["no", "yes"]}, "yes", [0, 1]),
    ({"task": "multi_label", "names": ["a", "b", "c"]}, ["a", "c"], [1, 0, 1]),
    ({"task": "multi_label", "names": ["a", "b", "c"]}, [], [0, 0, 0]),
    ({"task": "multi_label", "names": ["a", "b", "c"], "delimiter": ","}, "0,2", [1, 0, 1]),
    ({"task": "multi_label", "names": ["a", "b", "c"], "delimiter": ";"}, "b; c", [0, 1, 1]),
    ({"task": "multi_label", "groups": {"AI": ["cs.AI", "cs.L*"], "V": ["cs.CV"]}}, ["cs.LG", "math.GT"], [1, 0]),
    ({"task": "multi_label", "groups": {"AI": ["cs.AI", "cs.CV"], "V": ["cs.CV"]}}, ["cs.CV"], [1, 1]),
    ({"task": "binary", "groups": {"cyber": ["cs.CR"]}}, ["cs.CR"], [0, 1]),
    ({"task": "binary", "groups": {"cyber": ["cs.CR"]}}, ["cs.AI"], [1, 0]),
]


@pytest.mark.parametrize(("labels", "cell", "target"), CELLS)
def test_label_encodings(tmp_path: Path, labels: dict[str, Any], cell: object, target: list[int]) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "x", "label": cell}])
    write_rows(tmp_path / "validation.jsonl", [{"text": "y", "label": cell}])
    config = config_of(
        data={"train": "train.jsonl", "validation": "validation.jsonl", "test": "train.jsonl"}, labels=labels
    )
    _, splits = data.load(config, tmp_path)
    assert splits.train.targets.tolist() == [target]


@pytest.mark.parametrize("cell", ["d", 3, "", None])
def test_an_unknown_label_is_one_sentence(tmp_path: Path, cell: object) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "x", "label": "red"}, {"text": "x", "label": cell}])
    with pytest.raises(UserError, match=r"column 'label': .*found"):
        data.load(config_of(data={"train": "train.jsonl", "validation": "train.jsonl"}), tmp_path)


@pytest.mark.parametrize(
    "name", ["train.jsonl", "train.jsonl.gz", "train.ndjson.xz", "train.csv", "train.tsv", "train.parquet"]
)
def test_formats_give_the_same_examples(tmp_path: Path, name: str) -> None:
    import pandas as pd

    rows = [{"text": f'a "quoted" text {i}', "label": "red"} for i in range(5)]
    if name.endswith((".csv", ".tsv")):
        lines = [["text", "label"], *(list(row.values()) for row in rows)]
        comma = name.endswith(".csv")
        cells = [['"' + c.replace('"', '""') + '"' if comma else c for c in line] for line in lines]
        (tmp_path / name).write_text("".join(("," if comma else "\t").join(line) + "\n" for line in cells))
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(tmp_path / name)
    else:
        write_rows(tmp_path / name, rows)
    _, splits = data.load(config_of(data={"train": name, "validation": name}), tmp_path)
    assert splits.train.texts == [row["text"] for row in rows]


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": t, "label": "red"} for t in ("x", None, " ", "y")])
    _, splits = data.load(config_of(data={"train": "train.jsonl", "validation": "train.jsonl"}), tmp_path)
    assert splits.train.texts == ["x", "y"]
    assert splits.train.skipped == {"no_text": 1, "empty_text": 1}


def test_splits_are_the_same_each_time_and_keep_groups_together(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": f"{i}", "label": "red", "author": f"{i % 50}"} for i in range(500)])
    config = config_of(data={"train": "train.jsonl", "split": {"validation": 0.2, "test": 0.2}, "split_by": "author"})
    (_, first), (_, second) = data.load(config, tmp_path), data.load(config, tmp_path)
    parts = [{int(t) % 50 for t in s.texts} for s in (first.train, first.validation, first.test)]
    assert first.test.texts == second.test.texts
    assert sum(map(len, parts)) == len(parts[0] | parts[1] | parts[2]) == 50
    assert all(len(part) >= 3 for part in parts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x"}], "expected columns ['label']"),
        ([{"label": "red", "body": "x"}], "expected columns ['text']"),
        ([{"text": " ", "label": "red"}], "expected at least one row with a text"),
    ],
)
def test_unusable_files_are_one_sentence(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(UserError) as error:
        data.load(config_of(data={"train": "train.jsonl", "validation": "train.jsonl"}), tmp_path)
    assert message in str(error.value)


def test_thresholds_are_each_labels_best_and_rare_labels_share_one() -> None:
    labels = LabelSchema(task=Task.MULTI_LABEL, names=("common", "rare"))
    targets, probs = np.zeros((200, 2)), np.full((200, 2), 0.1)
    targets[:50, 0], probs[:50, 0] = 1, 0.3
    targets[:3, 1], probs[:3, 1] = 1, 0.9
    common, rare = evaluate.choose_thresholds(probs, targets, labels)
    assert 0.1 < common < 0.3
    assert rare == common  # three positives are too few for a threshold of their own
    assert evaluate.measure(probs, targets, labels, (common, rare))["macro_f1"] == 1.0


def test_metrics_against_a_count_by_hand() -> None:
    labels = LabelSchema(task=Task.BINARY, names=("no", "yes"))
    probs = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]])
    targets = np.array([[0, 1], [1, 0], [1, 0], [0, 1]])
    found = evaluate.measure(probs, targets, labels, (0.5,))
    assert found["labels"]["yes"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    assert (found["f1"], found["accuracy"], found["documents"]) == (0.8, 0.75, 4)


TASKS: dict[str, tuple[dict[str, Any], Any]] = {
    "multi_class": ({"names": list(COLOURS)}, lambda names: names[0]),
    "binary": ({"names": ["other", "red"]}, lambda names: int(names[0] == "red")),
    "multi_label": ({"names": list(COLOURS)}, lambda names: names),
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    tiny_base(tmp_path / "base", COLOURS.values())
    return tmp_path


def toy_config(folder: Path, task: str) -> Path:
    labels, cell = TASKS[task]
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        names = rng.choice(
            list(COLOURS), size=1 + int(task == "multi_label" and rng.random() < 0.4), replace=False
        ).tolist()
        rows.append({"text": " ".join(COLOURS[name].split()[0] + " rose" for name in names), "label": cell(names)})
    write_rows(folder / "all.jsonl", rows)
    names = json.dumps(labels["names"])
    path = folder / f"{task}.toml"
    path.write_text(
        f'[data]\ntrain = "all.jsonl"\nvalidation = "all.jsonl"\ntest = "all.jsonl"\n'
        f'[labels]\ntask = "{task}"\nnames = {names}\n[text]\nmax_tokens = 16\n'
        f'[model]\nbase = "{folder / "base"}"\npooling = "mean"\n'
        "[training]\nepochs = 4\nbatch_size = 16\nlearning_rate = 1e-3\nhead_learning_rate = 1e-2\n"
    )
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")
@pytest.mark.parametrize("task", TASKS)
def test_training_learns_and_writes_a_model_that_loads(
    toy: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(toy_config(toy, task)), "--data_dir", str(toy)]
    assert train.main([*flags, "--output", str(toy / "m1")]) == 0
    assert f"{toy}/m1" in capsys.readouterr().out
    first = trained_model.load(toy / "m1").manifest
    assert first.metrics["test"]["macro_f1"] > 0.9
    assert first.metrics["test"]["documents"] == 300
    assert sum(first.training["label_counts"].values()) >= 300
    assert first.training["config"]["labels"]["task"] == task

    assert train.main([*flags, "--output", str(toy / "m2")]) == 0
    assert trained_model.read_manifest(toy / "m2").metrics == first.metrics

    before = trained_model.fingerprint(toy / "m1")
    assert train.main([*flags, "--output", str(toy / "m1")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert trained_model.fingerprint(toy / "m1") == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "model.base=/nowhere/base"], "model.base '/nowhere/base' cannot be loaded"),
        (["--set", "model.base=package:nothing_here/model"], "in the installed package 'nothing_here', found none"),
        (["--set", "data.train=nothing.jsonl"], "expected files at"),
        (["--set", "text.max_tokens=500"], "has 128 positions"),
        (["--out", "x"], "see --help"),
    ],
)
def test_wrong_use_exits_2(toy: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    config = str(toy_config(toy, "binary"))
    assert train.main([config, "--data_dir", str(toy), "--output", str(toy / "m"), *flags]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert not (toy / "m").exists()


def test_the_built_in_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(f"word{i}" for i in range(30))
    for package in demo_corpus.PACKAGES:
        for module in range(40):
            path = tmp_path / "site" / package / f"m{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'"""{package} {module} {words}"""\ndef f():\n    """too short"""\nraise SystemExit\n')
    (tmp_path / "site" / "torch" / "broken.py").write_text("def (")
    demo_corpus.write(tmp_path / "site", tmp_path / "out")
    rows = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").open()]
        for name in ("train", "validation", "test", "corpus")
    }
    ids = [row["id"] for name in ("train", "validation", "test") for row in rows[name]]
    assert len(ids) == len(set(ids)) == 40 * len(demo_corpus.PACKAGES)
    assert {row["package"] for row in rows["test"]} == set(demo_corpus.PACKAGES)
    assert all("package" not in row for row in rows["corpus"])
    with pytest.raises(UserError, match="run `make install`"):
        demo_corpus.write(tmp_path / "empty", tmp_path / "out2")

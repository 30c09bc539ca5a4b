"""A configuration is read with its defaults, and each mistake in it is one clear sentence."""

import re
from pathlib import Path

import pytest

from models.errors import UserError
from models.labels import LabelSchema, Task
from training.config_file import load_config, with_values

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
GOOD = """
[data]
train = "train.jsonl"
[labels]
task = "multi_label"
names = ["red", "green"]
[model]
base = "tiny"
"""


def config_file(tmp_path: Path, content: str = GOOD) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(content)
    return path


def test_a_short_configuration_gets_defaults(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path))
    assert config.data.train == ("train.jsonl",)
    assert config.data.split.validation == config.data.split.test == 0.15
    assert config.text.fields == ("text",)
    assert config.labels.schema_in(tmp_path).names == ("red", "green")


def test_overrides_replace_and_add_values_of_every_kind(tmp_path: Path) -> None:
    overrides = [
        "training.epochs=1",
        "model.base=org/name",
        'labels.names=["a", "b", "c"]',
        "data.split.test=0",
        "training.class_weights=true",
        "text.separator= = ",
    ]
    config = load_config(config_file(tmp_path), overrides)
    assert config.training.epochs == 1
    assert config.model.base == "org/name"
    assert config.labels.names == ("a", "b", "c")
    assert (config.data.split.validation, config.data.split.test) == (0.15, 0)
    assert config.training.class_weights is True
    assert config.text.separator == " = "


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epoch=1", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (
            "training.metric=f1",
            "training.metric 'f1' measures the positive label of a binary task; for multi_label use 'macro_f1'.",
        ),
        ("training.one_vs_rest=1.5", "training.one_vs_rest: "),
        ("training.evaluate_every=0", "training.evaluate_every"),
        ("data.weak_negatives={files = 'x', share = 1.0}", "data.weak_negatives.share: Input should be less than 1"),
        ("labels.columns=['a']", "as names, names_file, groups or columns; found ['names', 'columns']"),
        ("trainin.epochs=1", "unknown key 'trainin'; did you mean 'training'?"),
        ("text.max_token=9", "unknown key 'text.max_token'; did you mean 'max_tokens'?"),
        ("data.split.dev=0.1", "unknown key 'data.split.dev'; valid keys are validation, test."),
        ("training.epochs=0", "training.epochs: Input should be greater than 0, found 0."),
        ("training.seed=-1", "training.seed: Input should be greater than or equal to 0, found -1."),
        (
            "training.precision=fp8",
            "training.precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16', found 'fp8'.",
        ),
        ("model.pooling=max", "model.pooling: Input should be 'stock', 'first' or 'mean', found 'max'."),
        ("labels.task=multilabel", "labels.task: Input should be 'binary', 'multi_class' or 'multi_label'"),
        ("labels.names_file=names.txt", "found ['names', 'names_file']"),
        ('labels.names=["red", "red"]', "label names must be distinct"),
        ("labels.names=[]", "give the labels once, as names, names_file, groups or columns; found none."),
        ('text.cleaning=["lower"]', "unknown cleaning steps ['lower']"),
        ("data.split={validation = 0.5, test = 0.5}", "must be below 1"),
        ("data.split.validation=0", "give validation files or a split.validation above 0"),
        ("data.train=[]", "data.train"),
        ("training", "--set expects section.key=value, such as training.epochs=1; found 'training'."),
        ("data.train.x=1", "'train' is a value, not a section"),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path: Path, override: str, sentence: str) -> None:
    path = config_file(tmp_path)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load_config(path, [override])
    assert "\n" not in str(caught.value)
    assert "For further information" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("search={trialz = 3, space.'training.epochs' = [1]}", "unknown key 'search.trialz'; did you mean 'trials'?"),
        ("search.space.a={low = 1, high = 2, logg = true}", "unknown key 'search.space.a.logg'; did you mean 'log'?"),
        ("search.space.a={low = 1, hihg = 2}", "unknown key 'search.space.a.hihg'; did you mean 'high'?"),
        ("search.space.a=3", "search.space.a: expected a table { low, high, log } or a list of values, found 3."),
        ("search.space.a=[]", "search.space.a: expected a table { low, high, log } or a list of values, found []."),
        ("search.space.a=[[1]]", "search.space.a: expected a table { low, high, log } or a list of values, found"),
        (
            "data.weak_negatives={fils = 'x', share = 0.1}",
            "unknown key 'data.weak_negatives.fils'; did you mean 'files'?",
        ),
        ("data.label_files.trian='x'", "unknown key 'data.label_files.trian'; did you mean 'train'?"),
        ("training.class_weights=[1]", "training.class_weights: expected true, false or a table of label = weight"),
    ],
)
def test_a_mistake_in_an_optional_section_is_one_sentence_too(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load_config(config_file(tmp_path), [override])
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(config_file(tmp_path), ["training.epoch=1", "model.pool=mean"])
    assert [line.partition(": ")[2] for line in str(caught.value).splitlines()] == [
        "unknown key 'model.pool'; did you mean 'pooling'?",
        "unknown key 'training.epoch'; did you mean 'epochs'?",
    ]


def test_a_missing_section_a_missing_file_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'model' is missing; add it"):
        load_config(config_file(tmp_path, GOOD.partition("[model]")[0]))
    with pytest.raises(UserError, match="expected a TOML configuration, found no file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match=r"config\.toml is not valid TOML"):
        load_config(config_file(tmp_path, "[data\n"))


def test_names_come_from_a_file_below_the_data_directory(tmp_path: Path) -> None:
    content = GOOD.replace('names = ["red", "green"]', 'names_file = "names.txt"')
    labels = load_config(config_file(tmp_path, content)).labels
    with pytest.raises(UserError, match=r"labels\.names_file: expected .*names\.txt, found none; check --data_dir"):
        labels.schema_in(tmp_path)
    (tmp_path / "names.txt").write_text("red\ngreen\n\n")
    assert labels.schema_in(tmp_path).names == ("red", "green")
    (tmp_path / "names.txt").write_text("red\nred\n")
    with pytest.raises(UserError, match=r"names\.txt: label names must be distinct") as caught:
        labels.schema_in(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ('task = "binary"\ngroups.cyber = "cs.CR"', ("not_cyber", "cyber")),
        ('task = "binary"\nnames = ["other", "cyber"]\ngroups.cyber = "cs.CR"', ("other", "cyber")),
        ('task = "multi_label"\ngroups.b = ["x"]\ngroups.a = ["y"]', ("b", "a")),
    ],
)
def test_groups_name_the_labels(tmp_path: Path, labels: str, names: tuple[str, ...]) -> None:
    content = f'[data]\ntrain = "t.jsonl"\n[labels]\n{labels}\n[model]\nbase = "tiny"\n'
    schema = load_config(config_file(tmp_path, content)).labels.schema_in(tmp_path)
    assert schema.names == names


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ('task = "binary"\ngroups.a = "x"\ngroups.b = "y"', "a binary task takes one group"),
        ('task = "binary"\nnames = ["cyber", "other"]\ngroups.cyber = "cs.CR"', "positive = 'cyber', the group"),
        ('task = "multi_label"\nnames = ["a"]\ngroups.a = "x"', "give the labels once"),
        ('task = "multi_class"\ngroups.a = "x"', "needs at least 2 label names"),
    ],
)
def test_groups_that_contradict_the_task(tmp_path: Path, labels: str, words: str) -> None:
    content = f'[data]\ntrain = "t.jsonl"\n[labels]\n{labels}\n[model]\nbase = "tiny"\n'
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load_config(config_file(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.labels.task in Task
    assert config.training.seed == 0


def test_a_column_for_each_label_and_binary_views_of_it(tmp_path: Path) -> None:
    columns = ["labels.names=[]", 'labels.columns=["hired", "lost_job"]']
    labels = load_config(config_file(tmp_path), columns).labels
    schema = labels.schema_in(tmp_path)
    assert schema.names == ("hired", "lost_job")
    binary = labels.one_vs_rest(schema, "lost_job")
    assert (binary.task, binary.column, binary.columns) == (Task.BINARY, "lost_job", ())
    assert binary.schema_in(tmp_path).names == ("not_lost_job", "lost_job")


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        ([], ("green", "1")),
        (["labels.names=[]", 'labels.groups={red = "r.*", green = ["g.?", "x"]}'], ("g.?", "x")),
        (['labels.names=["red", "[x]*"]'], ("[[]x][*]", "1")),
    ],
)
def test_a_binary_view_reads_names_numbers_and_codes(
    tmp_path: Path, overrides: list[str], groups: tuple[str, ...]
) -> None:
    labels = load_config(config_file(tmp_path), overrides).labels
    schema = labels.schema_in(tmp_path)
    binary = labels.one_vs_rest(schema, schema.names[1])
    assert binary.groups == {schema.names[1]: groups}
    assert binary.schema_in(tmp_path) == LabelSchema(
        task=Task.BINARY, names=(f"not_{schema.names[1]}", schema.names[1])
    )


def test_other_values_for_some_keys(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path), ["search.space={x = [1]}", "training.epochs=2", "labels.delimiter=;"])
    found = with_values(config, {"training.learning_rate": 1e-3, "model.base": "other"}, source="trial 1")
    assert (found.training.learning_rate, found.training.epochs, found.model.base) == (1e-3, 2, "other")
    assert found.labels == config.labels
    assert found.search is None
    with pytest.raises(UserError, match=r"^trial 1: unknown key 'training.rate'"):
        with_values(config, {"training.rate": 1}, source="trial 1")


def test_the_template_is_right_also_where_it_is_commented_out(tmp_path: Path) -> None:
    content = (CONFIGS / "own_labels.toml").read_text().split("\n", 1)[1]
    lines = [line for line in content.splitlines() if not re.match(r"\s+#", line)]
    whole = "\n".join(re.sub(r"^# ", "", line) for line in lines)
    config = load_config(config_file(tmp_path, whole))
    assert config.search
    assert config.data.weak_negatives
    assert config.data.undersample == 3
    assert config.training.early_stopping == 2

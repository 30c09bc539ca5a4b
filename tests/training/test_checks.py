"""Each check finds what it looks for, and nothing in a world where all is well."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.decision import Decision
from models.labels import LabelSchema, Task
from models.text import TextRecipe
from models.trained_model import Manifest
from training import checks
from training.checks import CHECKS
from training.evidence import Evidence
from training.examples import Examples
from training.measurement import Measurement, measure_split

LABELS = LabelSchema(task=Task.MULTI_LABEL, names=("red", "green", "{blue}"))
CODES = {check.__name__: severity for severity, of_severity in CHECKS.items() for check in of_severity}


@dataclass
class World:
    """Logits that are calibrated, and the truth, of two splits; a test makes one thing wrong."""

    seed: int = 0
    documents: int = 3_000
    decision: Decision = Decision(thresholds=(0.5, 0.5, 0.5))
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng(self.seed)
        self.logits = {split: self.drawn() for split in ("validation", "test")}
        self.targets = {
            split: (self.chance.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
            for split, logits in self.logits.items()
        }

    def drawn(self) -> np.ndarray:
        return self.chance.normal(-1, 3, size=(self.documents, len(LABELS.names)))

    def cut(self, split: str, documents: int) -> None:
        self.logits[split], self.targets[split] = self.logits[split][:documents], self.targets[split][:documents]

    def few(self, split: str, documents: int) -> None:
        """Leave the last label to some documents of a split."""
        target = self.targets[split][:, 2]
        target[np.flatnonzero(target)[documents:]] = 0
        self.logits[split][:, 2] = 12 * target - 6  # so that the scores fit, and the label is given

    def card(self, **content: Any) -> None:
        self.training["card"] = content

    def measured(self) -> tuple[Manifest, list[Measurement]]:
        found = []
        for split, targets in self.targets.items():
            examples = Examples.of(map(str, range(len(targets))), targets, list(map(str, range(len(targets)))))
            found.append(measure_split(split, examples, self.logits[split], LABELS, self.decision))
        metrics = {one.split: one.metrics for one in found}
        training = {"documents": 1_000, **self.training}
        manifest = Manifest(
            labels=LABELS, text=TextRecipe(), decision=self.decision, training=training, metrics=metrics
        )
        return manifest, found


def codes(world: World) -> set[str]:
    return {finding.code for finding in checks.run(*world.measured()).findings}


@pytest.mark.parametrize("seed", range(5))
def test_a_world_where_all_is_well_passes_every_check(seed: int) -> None:
    """Chance alone is no finding."""
    world = World(seed=seed)
    world.training["label_counts"] = dict.fromkeys(LABELS.names, 500)
    world.training["unknown_counts"] = dict.fromkeys(LABELS.names, 3)
    world.card(duplicates={"exact train-test": 4})
    world.training["history"] = [{"eval_loss": 0.5, "eval_macro_f1": 0.6}, {"eval_loss": 0.4, "eval_macro_f1": 0.6}]
    world.training["config"] = {"data": {"drop_leaks": True}, "training": {"metric": "macro_f1"}}
    assert codes(world) == set()


def duplicates(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.card(duplicates={name: 4})
        world.training["config"] = {"data": {"drop_leaks": False}}

    return change


def learnt(key: str, count: int) -> Callable[[World], None]:
    return lambda world: world.training.update({key: {"red": count}})


def history(**values: list[float]) -> Callable[[World], None]:
    entries = [
        {"eval_loss": 1.0} | dict(zip(values, of_epoch, strict=True)) for of_epoch in zip(*values.values(), strict=True)
    ]
    return lambda world: world.training.update(history=entries)


def same_label(world: World) -> None:
    for split in world.targets:
        world.targets[split][:, 1], world.logits[split][:, 1] = world.targets[split][:, 0], world.logits[split][:, 0]


def guesses(world: World) -> None:
    world.logits["test"][:, 0] = world.chance.permutation(world.logits["test"][:, 0])


def worse_on_test(world: World) -> None:
    noise = world.chance.normal(scale=4, size=world.logits["test"].shape)
    world.logits["test"] = (world.logits["test"] + noise) / 2


def undersampled(world: World) -> None:
    """As if the model had been trained with a twentieth of the negatives."""
    world.logits["test"] = world.logits["test"] + 3


def drifted(world: World) -> None:
    rare = world.chance.random(world.documents) < 0.5
    rare &= world.targets["test"][:, 0] == 1
    world.targets["test"], world.logits["test"] = world.targets["test"][~rare], world.logits["test"][~rare]


def decided(**values: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.decision = world.decision.model_copy(update=values)

    return change


def precision_asked(world: World) -> None:
    world.training["config"] = {"decision": {"objective": "precision >= 0.95"}}


CASES: list[tuple[str, Callable[[World], None]]] = [
    ("leak", duplicates("exact train-test")),
    ("leak", duplicates("near train-validation")),
    ("held_out_overlap", duplicates("near validation-test")),
    ("repeated_documents", duplicates("exact test-test")),
    ("contrary_labels", duplicates("conflict train-test")),
    ("few_to_learn", learnt("label_counts", 19)),
    ("mostly_unknown", learnt("unknown_counts", 501)),
    ("few_to_decide", lambda world: world.few("validation", 19)),
    ("few_to_measure", lambda world: world.few("test", 29)),
    ("none_to_measure", lambda world: world.few("test", 0)),
    ("small_split", lambda world: world.cut("test", 199)),
    ("share_drift", drifted),
    ("same_label", same_label),
    ("no_better_than_chance", guesses),
    ("never_predicted", decided(thresholds=(0.5, 0.5, 1.0))),
    ("biased_count", undersampled),
    ("threshold_at_edge", decided(thresholds=(0.5, 0.5, 0.981))),
    ("threshold_does_not_hold", decided(thresholds=(0.5, 0.5, 0.95))),
    ("bound_missed", precision_asked),
    ("miscalibrated", undersampled),
    ("calibration_at_bound", decided(temperature=(1.0, 1.0, 20.0))),
    ("falls_on_test", worse_on_test),
    ("overfitted", history(eval_loss=[0.5, 0.4, 0.45])),
    ("still_learning", history(eval_macro_f1=[0.5, 0.6, 0.62])),
]


@pytest.mark.parametrize(("code", "change"), CASES)
def test_a_check_finds_what_it_looks_for(code: str, change: Callable[[World], None]) -> None:
    world = World()
    change(world)
    (finding,) = [finding for finding in checks.run(*world.measured()).findings if finding.code == code]
    assert finding.severity == CODES[code]
    assert finding.link == f"docs/reference/checks.md#{code}"
    assert "{" not in finding.sentence.replace("{blue}", "")
    assert all(name in finding.sentence for name in finding.labels)


def test_a_model_is_measured_on_what_it_was_trained_on() -> None:
    world = World()
    manifest, found = world.measured()
    manifest.training["data_sha256"] = found[-1].metrics["data_sha256"]
    (finding,) = [one for one in checks.run(manifest, found).findings if one.code == "leak"]
    assert finding.sentence == "test is the data that the model was trained on"


def test_what_the_data_card_says_of_other_splits_is_not_said_of_a_file() -> None:
    world = World()
    duplicates("exact test-test")(world)
    manifest, found = world.measured()
    other = World(seed=1).measured()[1][-1:]
    assert [one.code for one in checks.run(manifest, found).findings] == ["repeated_documents"]
    assert checks.run(manifest, other).findings == []


def test_a_check_that_fails_is_said_to_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Evidence) -> list[Any]:
        raise ZeroDivisionError("not today")

    world = World()
    world.cut("test", 199)
    monkeypatch.setitem(CHECKS, "error", (broken, *CHECKS["error"]))
    checked = checks.run(*world.measured())
    assert "small_split" in {finding.code for finding in checked.findings}
    assert set(checked.codes) == CODES.keys()
    assert "the check broken could not be run (ZeroDivisionError: not today)" in capsys.readouterr().err


def test_every_check_has_a_case_and_says_what_to_do() -> None:
    assert {code for code, _ in CASES} == CODES.keys()
    assert len(CODES) >= 15
    for of_severity in CHECKS.values():
        for check in of_severity:
            first, _, advice = (check.__doc__ or "").partition("\n\n")
            assert first.endswith(".")
            assert advice.strip()


@pytest.mark.parametrize("code", ["leak", "overfitted", "share_drift", "falls_on_test", "few_to_decide"])
def test_a_file_that_is_measured_alone_has_no_findings_of_other_splits(code: str) -> None:
    manifest, (_, test) = World().measured()
    (check,) = [check for of_severity in CHECKS.values() for check in of_severity if check.__name__ == code]
    assert list(check(Evidence(manifest, [test]))) == []


def test_programs_can_read_the_report(tmp_path: Path) -> None:
    world = World()
    world.few("test", 29)
    manifest, found = world.measured()
    checked = checks.run(manifest, found)
    checks.write(tmp_path / "evaluation", manifest, found, checked)
    content = json.loads((tmp_path / "evaluation" / "report.json").read_bytes())
    assert content["version"] == 1
    assert content["reported"] == "test"
    assert content["splits"] == {one.split: one.metrics for one in found}
    assert set(content["checked"]) == CODES.keys()
    assert [check["code"] for check in content["checks"]] == [finding.code for finding in checked.findings]
    blue = content["labels"]["{blue}"]
    assert blue["support"] == 29
    assert blue["threshold"] == 0.5
    assert (blue["temperature"], blue["bias"]) == (1.0, 0.0)
    assert blue["intervals"]["f1"][0] <= blue["f1"] <= blue["intervals"]["f1"][1]
    assert {"precision", "recall", "roc_auc", "calibration_error"} <= blue.keys()


def test_errors_and_warnings_are_printed_and_many_labels_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        checks.Finding("leak", "error", "2 documents are there twice", [], "page#leak"),
        checks.Finding("overfitted", "notice", "the loss rose", [], "page#overfitted"),
    ]
    checks.show(found)
    assert capsys.readouterr().out == "error: 2 documents are there twice (leak).\n"
    assert checks._named(list("abcdefg")) == "a, b, c, d, e and 2 more"

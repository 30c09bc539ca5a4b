"""Finds labels that look wrong, by the scores of models that never saw their documents (confident learning).

Northcutt et al., Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021, for each label by itself.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models import page
from models.decision import Floats, probabilities
from models.errors import UserError
from models.labels import LabelSchema, Task
from training import base_model, fit, measurement, metrics, sampling
from training.config import TrainConfig
from training.data_splits import Prepared
from training.examples import Examples, concatenate
from training.label_tables import write_csv

SHEET, PAGE, IDENTITY = "suspects.csv", "suspects.html", "suspects.json"
TEMPLATE = Path(__file__).parent / "templates" / PAGE
MOST_SHOWN = 200  # suspects on the page
POOR_AUC = 0.7  # ROC AUC below which a model hardly knows a label
LONGEST = 600  # characters of a text on the page


@dataclass(frozen=True)
class Suspect:
    """A label that looks wrong."""

    id: str
    label: str
    given: bool  # whether the data says that the label applies
    score: float  # probability by a model that did not learn from the document
    expected: float  # mean probability of the documents that the data treats as the model would treat this one
    instead: str  # the most probable label of a document that has one label; empty otherwise
    text: str


def find(prepared: Prepared, config: TrainConfig, output: Path, folds: int) -> list[Suspect]:
    """Return the suspect labels of all documents of all splits, the most suspicious first.

    Raises:
        UserError: the folder holds the scores of other data or another configuration, or there are too few documents.
    """
    examples = concatenate([part for _, part in prepared.splits.items()])
    fold_of = sampling.folds(examples, folds, config.data_seed)
    _claim(output, examples, config, folds)
    probs = np.empty(examples.targets.shape, np.float32)
    for fold in range(folds):
        scores = output / f"fold-{fold}.npy"
        members = np.flatnonzero(fold_of == fold)
        if not scores.exists():
            splits = sampling.of_fold(examples, fold_of, fold)
            _score(replace(prepared, splits=splits), config, scores)
        probs[members] = probabilities(np.load(scores), prepared.schema.task)
        print(f"fold {fold + 1} of {folds}: {len(members):,} documents scored")
    _warn_of_guesses(examples, probs, prepared.schema)
    return suspects(examples, probs, prepared.schema)


def _warn_of_guesses(examples: Examples, probs: Floats, schema: LabelSchema) -> None:
    """Say for which labels the scores are little better than chance, so that their suspects mean little."""
    ranked = metrics.ranking(probs, examples.targets, schema)["labels"]
    poor = [f"{name} ({found['roc_auc']:.2f})" for name, found in ranked.items() if (found["roc_auc"] or 1) < POOR_AUC]
    if poor:
        print(
            f"notice: the models hardly know {', '.join(poor)} (ROC AUC; 0.5 is chance), so the suspects of these "
            "labels mean little; train longer or with a better base model."
        )


def suspects(examples: Examples, probs: Floats, schema: LabelSchema) -> list[Suspect]:
    """Return the labels that contradict the scores (documents, labels), the most suspicious first.

    A label's score is high if it reaches the mean of the documents that have the label, and low if it does not exceed
    the mean of those that do not have it. Of a document with one label, only the given one is suspect.
    """
    found: list[tuple[float, Suspect]] = []
    for place, name in enumerate(schema.names):
        yes, no = examples.targets[:, place] == 1, examples.targets[:, place] == 0
        if not yes.any() or not no.any():
            continue
        scores = probs[:, place]
        high, low = float(scores[yes].mean()), float(scores[no].mean())
        if high <= low:  # the model knows nothing of this label
            continue
        if schema.task is not Task.MULTI_LABEL:
            yes &= probs.argmax(axis=1) != place
        wrong = [(yes & (scores <= low), True, low)]
        if schema.task is Task.MULTI_LABEL:
            wrong.append((no & (scores >= high), False, high))
        for rows, given, expected in wrong:
            for row in np.flatnonzero(rows).tolist():
                doubt = float((high - scores[row] if given else scores[row] - low) / (high - low))
                instead = "" if schema.task is Task.MULTI_LABEL else schema.names[int(probs[row].argmax())]
                numbers = round(float(scores[row]), 6), round(expected, 6)
                found.append((doubt, Suspect(examples.ids[row], name, given, *numbers, instead, examples.texts[row])))
    return [suspect for _, suspect in sorted(found, key=lambda one: -one[0])]


def _claim(output: Path, examples: Examples, config: TrainConfig, folds: int) -> None:
    settings = config.model_dump_json(exclude={"search"}) + examples.sha256() + f"{folds} stratified"
    identity = {"identity": hashlib.sha256(settings.encode()).hexdigest()}
    path = output / IDENTITY
    if output.exists() and any(output.iterdir()):
        if not path.is_file() or json.loads(path.read_bytes()) != identity:
            raise UserError(f"--output {output} holds something else, or scores of other data: name another folder.")
        return
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(identity) + "\n", encoding="utf-8")


def _score(prepared: Prepared, config: TrainConfig, path: Path) -> None:
    """Train a model, and write its logits of the test split."""
    torch.manual_seed(config.training.seed)
    network = base_model.start(config, prepared.schema)
    checkpoints = path.with_suffix(".checkpoints")
    fit.fit(network, prepared, config, checkpoints)
    texts = prepared.splits.test.texts
    logits = measurement.score(network.module, network.tokenizer, texts, config.text)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, logits)
    partial.replace(path)
    shutil.rmtree(checkpoints)


def write(found: Sequence[Suspect], output: Path) -> None:
    """Write the sheet of all suspects, and the page of the most suspicious ones."""
    header = ("id", "label", "given", "score", "expected", "instead", "text")
    write_csv(output / SHEET, header, _rows(found))
    shown = [{"suspect": one, "text": page.shortened(one.text, LONGEST)} for one in found[:MOST_SHOWN]]
    content = page.render(TEMPLATE, name=output.name, shown=shown, total=len(found))
    (output / PAGE).write_text(content, encoding="utf-8")


def _rows(found: Sequence[Suspect]) -> Iterator[Sequence[object]]:
    for one in found:
        yield one.id, one.label, "yes" if one.given else "no", one.score, one.expected, one.instead, one.text

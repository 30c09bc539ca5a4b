"""Draws an audit into a folder, and estimates counts from it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.audits import audit_folder, drawing, estimates, findings, population, sheets, texts, worth
from inference.audits.audit_folder import Audit, AuditDocument, Purpose
from inference.audits.drawing import Drawn, Fold, Sample
from inference.audits.estimates import Labelled
from inference.audits.population import SCALE, Population
from inference.audits.sheets import Paper
from inference.audits.strata import Design
from inference.runs import drift
from inference.scoring import model_files
from models.decision import thresholds_of
from models.errors import ModelError, UserError
from models.labels import Task
from models.trained_model import Manifest


@dataclass(frozen=True)
class Request:
    """What is asked of a draw."""

    purpose: Purpose
    size: int
    seed: int
    fields: tuple[str, ...]  # input fields that coders see; none for those that the model read
    formats: tuple[str, ...]  # formats of the sheet


def draw(source: Population, request: Request, output: str, fold: Fold) -> tuple[Audit, list[str]]:
    """Draw a sample, and write it with its sheets into a new folder. Return the audit and the files for coders.

    Raises:
        UserError: the folder holds an audit, the size does not fit, a label is unknown, or a text cannot be shown.
        SourceError: the input has changed since it was labelled, or cannot be read.
    """
    audit_folder.refuse_used(output)
    if f"{output}/".startswith(f"{source.source}/") or f"{os.path.abspath(output)}/".startswith(f"{source.source}/"):
        raise UserError(f"--output {output}: expected a folder outside of the run, found one in it; name another.")
    asked = source.question
    model = next(model for model in source.labels.models if model["name"] == asked.model)
    manifest = _manifest(model, source.labels.options)
    recipe = texts.recipe_of(source, manifest, request.fields)
    if request.purpose == "training":
        drawn, shown = worth.choose(source, request.size, _thresholds(source, model, manifest), recipe, fold)
        sample = Sample(Design((), ()), drawn, {})
    else:
        sample = drawing.draw(source, request.size, request.seed, fold)
        shown = [sheets.shown(text) for text in texts.of_drawn(source, sample.drawn, recipe)]
    name = audit_folder.name_of(source.identity, asked.model, asked.labels, asked.by, *vars(request).values())
    order = np.random.default_rng(request.seed).permutation(len(shown)).tolist()
    papers = [Paper(f"{name}-{number:0{len(str(len(order)))}}", shown[place]) for number, place in enumerate(order, 1)]
    audit = Audit(
        format_version=audit_folder.FORMAT_VERSION,
        name=name,
        purpose=request.purpose,
        source=source.source,
        predicted=source.predicted,
        run=source.labels.description.get("run"),
        population=source.identity,
        model=model,
        precision=source.labels.options["precision"],
        labels=list(asked.labels),
        all_labels=list(source.all_labels),
        exclusive=manifest is not None and manifest.labels.task is not Task.MULTI_LABEL,
        by=asked.by,
        fields=list(recipe.fields),
        as_read=not request.fields,
        seed=request.seed,
        weights=list(sample.design.weights),
        strata=list(sample.design.strata),
        cells=sample.cells,
        documents=[_document(paper, sample.drawn[place]) for paper, place in zip(papers, order, strict=True)],
    )
    return audit, audit_folder.write(audit, papers, output, request.formats)


def _document(paper: Paper, one: Drawn) -> AuditDocument:
    return AuditDocument(
        row=paper.row,
        id=one.id,
        file=one.file,
        place=one.row,
        stratum=one.stratum,
        group=one.group,
        scores=one.scores,
        applies=one.applies,
        text_sha256=audit_folder.text_hash(paper.text),
    )


def _thresholds(source: Population, model: dict[str, str], manifest: Manifest | None) -> list[float]:
    """Return the score from which each audited label applies; 0.5 where the highest score decides."""
    if manifest is None:
        raise UserError(f"{model['path']}: expected the model of the run, whose thresholds count, found none.")
    thresholds = thresholds_of(manifest.labels, manifest.decision)
    if manifest.labels.task is Task.BINARY:
        negative, positive = manifest.labels.names
        thresholds[negative] = 1 - thresholds[positive]
    return [thresholds.get(label, 0.5) for label in source.question.labels]


def _manifest(model: dict[str, str], options: dict[str, Any]) -> Manifest | None:
    """Return the manifest of the model that labelled the run; None if it is gone, or another is in its place."""
    try:
        if model_files.fingerprint(model["path"], options["precision"]) == model["sha256"]:
            return drift.manifest_of(model["path"])
    except (ModelError, OSError):
        pass
    return None


def half_widths(design: Design, labels: Sequence[str]) -> dict[str, float]:
    """Return half the width, in documents, that each label's interval is expected to have."""
    documents, drawn = (np.array([getattr(one, name) for one in design.strata]) for name in ("documents", "drawn"))
    variances = np.array([one.variances for one in design.strata])
    return {
        label: estimates.expected_half_width(documents, drawn, variances[:, place])
        for place, label in enumerate(labels)
    }


def population_of(audit: Audit) -> Population:
    """Return the population that an audit was drawn from.

    Raises:
        UserError: the run is gone, or its rows are no longer those of the draw.
    """
    source = population.find(audit.source, audit.model["name"], audit.labels, audit.by)
    if source.identity != audit.population:
        raise UserError(f"{audit.source}: expected the rows that the audit was drawn from, found others; draw again.")
    return source


def estimate(audit: Audit, truth: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what `estimates.json` holds, from whether each document of the sample has each label.

    Raises:
        UserError: the documents were chosen for training.
    """
    if audit.purpose != "estimate":
        raise UserError(
            f"{audit.name}: expected documents that were drawn by chance, found those chosen for training; draw an "
            "audit without --for training."
        )
    manifest = _manifest(audit.model, {"precision": audit.precision})
    return {
        "format_version": audit_folder.FORMAT_VERSION,
        "audit": audit.name,
        "run": audit.run,
        "predicted": audit.predicted,
        "model": audit.model["name"],
        "by": audit.by,
        "drawn": len(audit.documents),
        "labels": {
            label: _of_label(audit, labelled_of(audit, truth, place), label, manifest)
            for place, label in enumerate(audit.labels)
        },
    }


def training_rows(audit: Audit, papers: Sequence[Paper], truth: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """Yield the labelled documents as rows for `data.more` of a training.

    Raises:
        UserError: coders saw other fields than the model reads.
    """
    if not audit.as_read:
        raise UserError(
            f"{audit.name}: expected documents with the fields that the model reads, found those with "
            f"{', '.join(audit.fields)} alone; draw an audit without --fields."
        )
    ids = {one.row: one.id for one in audit.documents}
    other_of_two = audit.exclusive and len(audit.all_labels) == 2 and len(audit.labels) == 1
    for paper, has in zip(papers, truth, strict=True):
        labels = [label for label, yes in zip(audit.labels, has, strict=True) if yes]
        asked = audit.labels
        if other_of_two:  # a document that is not the one is the other
            asked = audit.all_labels
            labels = labels or [label for label in asked if label != audit.labels[0]]
        yield {"id": ids[paper.row], "text": paper.text, "labels": labels, "asked": asked}


def labelled_of(audit: Audit, truth: NDArray[np.bool_], place: int) -> Labelled:
    """Return one label of the sample, as the estimators take it."""
    groups = {group: number for number, group in enumerate(audit.groups)}
    documents, expected = audit_folder.frame(audit, place)
    return Labelled(
        documents=documents,
        expected=expected,
        stratum=np.array([one.stratum for one in audit.documents]),
        group=np.array([groups[one.group] for one in audit.documents]),
        applies=np.array([int(one.applies[place]) for one in audit.documents]),
        score=np.array([one.scores[place] / SCALE for one in audit.documents]),
        truth=truth[:, place].astype(np.float64),
    )


def _of_label(audit: Audit, labelled: Labelled, label: str, manifest: Manifest | None) -> dict[str, Any]:
    found = estimates.estimate(labelled, audit.seed)
    of_groups = estimates.by_group(labelled, found.count.value, audit.seed) if audit.by else []
    documents, naive = labelled.documents.sum(axis=(0, 2)).tolist(), labelled.documents[:, :, 1].sum(axis=0).tolist()
    return {
        "documents": found.documents,
        "naive": found.naive,
        "count": found.count._asdict(),
        "share": found.count.over(found.documents)._asdict(),
        "precision": found.precision._asdict() if found.precision else None,
        "recall": found.recall._asdict() if found.recall else None,
        "positives": found.positives,
        "groups": [
            {
                "group": audit_folder.group_name(group),
                "documents": documents[number],
                "naive": naive[number],
                "count": of_groups[number]._asdict(),
            }
            for number, group in enumerate(audit.groups if audit.by else ())
        ],
        "notes": findings.notes(found, labelled, label, manifest),
    }

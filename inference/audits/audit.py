"""Draws an audit into a folder, and estimates counts from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.audits import audit_folder, drawing, estimates, findings, population, sheets, texts
from inference.audits.audit_folder import Audit, AuditDocument
from inference.audits.drawing import Fold
from inference.audits.estimates import Labelled
from inference.audits.population import SCALE, Population
from inference.audits.sheets import Paper
from inference.audits.strata import Design
from inference.runs import drift
from models.errors import UserError
from models.labels import Task
from models.trained_model import Manifest


@dataclass(frozen=True)
class Request:
    """What is asked of a draw."""

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
    recipe = texts.recipe_of(source, request.fields)
    sample = drawing.draw(source, request.size, request.seed, fold)
    found = [sheets.shown(text) for text in texts.of_drawn(source, sample.drawn, recipe)]
    asked = source.question
    name = audit_folder.name_of(source.identity, asked.model, asked.labels, asked.by, request.size, request.seed)
    order = np.random.default_rng(request.seed).permutation(len(found)).tolist()
    papers = [Paper(f"{name}-{number:0{len(str(len(order)))}}", found[place]) for number, place in enumerate(order, 1)]
    drawn = [sample.drawn[place] for place in order]
    model = next(model for model in source.labels.models if model["name"] == asked.model)
    manifest = drift.manifest_of(model["path"])
    audit = Audit(
        format_version=audit_folder.FORMAT_VERSION,
        name=name,
        source=source.source,
        run=source.labels.description.get("run"),
        population=source.identity,
        model=model,
        labels=list(asked.labels),
        exclusive=manifest is not None and manifest.labels.task is not Task.MULTI_LABEL,
        by=asked.by,
        fields=list(recipe.fields),
        seed=request.seed,
        weights=list(sample.design.weights),
        strata=list(sample.design.strata),
        cells=sample.cells,
        documents=[
            AuditDocument(
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
            for paper, one in zip(papers, drawn, strict=True)
        ],
    )
    return audit, audit_folder.write(audit, papers, output, request.formats)


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
    """Return what `estimates.json` holds, from whether each document of the sample has each label."""
    manifest = drift.manifest_of(audit.model["path"])
    return {
        "format_version": audit_folder.FORMAT_VERSION,
        "audit": audit.name,
        "run": audit.run,
        "model": audit.model["name"],
        "by": audit.by,
        "drawn": len(audit.documents),
        "labels": {
            label: _of_label(audit, labelled_of(audit, truth, place), label, manifest)
            for place, label in enumerate(audit.labels)
        },
    }


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

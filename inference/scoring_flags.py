"""Checks the flags that decide labels and scores, and the models that they name. It needs neither Beam nor torch."""

import argparse

from inference.corpus import kept_fields, storage
from inference.scoring import model_files, runtimes
from inference.scoring.options import PrecisionChoice, ScoringOptions
from models import names, trained_model
from models.errors import UserError


def check(flags: argparse.Namespace, *, here: bool = True, scores: bool = True) -> tuple[ScoringOptions, list[str]]:
    """Check models, device and fields. Return the options, and a sentence for each problem.

    If the models are not on this machine (`here` is false), local models are not checked. If other machines score
    (`scores` is false), this machine's devices are not checked.
    """
    problems = []
    precision: PrecisionChoice = flags.precision if here else "auto"  # a launch looks for the int8 variant itself
    for directory in dict.fromkeys(model for model in flags.model if here or storage.is_remote(model)):
        try:
            model_files.check(model_files.local(directory), precision, flags.max_tokens)
        except UserError as error:
            problems.append(str(error))
    try:
        if scores:
            runtimes.choose(flags.runtime, flags.precision, flags.device)
    except UserError as error:
        problems.append(str(error))
    if unknown := kept_fields.problem(flags.keep_fields):
        problems.append(unknown)
    if repeated := names.repeated(columns(flags)):
        problems.append(
            "expected names for id, --keep_fields and the models' folders that differ in more than case, found "
            f"{', '.join(repeated)}; rename a folder or drop a field."
        )
    options = ScoringOptions(
        models=tuple(flags.model),
        runtime=flags.runtime,
        precision=flags.precision,
        device=flags.device,
        max_tokens=flags.max_tokens,
        text_fields=flags.text_fields,
        scores=flags.scores,
        threads=flags.threads,
    )
    return options, problems


def columns(flags: argparse.Namespace) -> list[str]:
    """Return the columns of the predictions: the id, the kept fields, and one for each model."""
    return ["id", *kept_fields.names(flags.keep_fields), *map(trained_model.model_name, flags.model)]

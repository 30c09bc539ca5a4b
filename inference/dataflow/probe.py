"""Scores the probe texts, so that the versions, models and scores of an image can be compared with this machine's."""

from importlib import metadata
from typing import Any

from inference.corpus.records import Document
from inference.dataflow import contents
from inference.dataflow.images import python_version
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.reference import PROBE_TEXTS
from inference.scoring.scorer import Scorer
from models import trained_model
from models.errors import UserError

COMPARED = ("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "numpy")


def probe(options: ScoringOptions) -> dict[str, Any]:
    """Return the versions, the models' fingerprints, and by model the score of each label for each probe text.

    Raises:
        UserError: a model cannot be loaded, or cannot label a probe text.
    """
    scorer = Scorer(options)
    directories = model_files.all_local(options.models)
    manifests = [trained_model.read_manifest(directory) for directory in directories]
    recipes = len(text_recipes(options, manifests))
    documents = [Document(i, str(i), (text,) * recipes, {}, b"") for i, text in enumerate(PROBE_TEXTS)]
    predictions, failures, _ = scorer.score(documents)
    if failures:
        raise UserError(f"a probe text could not be labelled: {failures[0].detail}")
    return {
        "python": python_version(),
        "runtime": str(scorer.runtime),
        "labels": contents.labels(),
        "versions": {name: metadata.version(name) for name in COMPARED},
        "fingerprints": model_files.fingerprints(directories),
        "scores": {
            name: [dict(prediction.by_model[name].scores) for prediction in predictions] for name in scorer.weights
        },
    }

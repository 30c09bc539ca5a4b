"""Labels fixed texts, so that an image and this machine can be compared: same versions, same models, same scores."""

from importlib import metadata
from typing import Any

from inference.corpus.records import Document
from inference.dataflow.images import python_version
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions, text_recipes
from inference.scoring.runtimes import PROBES
from inference.scoring.scorer import Scorer
from models import trained_model
from models.errors import UserError

COMPARED = ("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "numpy")


def probe(options: ScoringOptions) -> dict[str, Any]:
    """Versions, and for each model its SHA-256 and the scores of the probe texts: label by label, text by text.

    Raises:
        UserError: a model that cannot be loaded, or cannot label a probe text.
    """
    scorer = Scorer(options)
    names = [trained_model.model_name(directory) for directory in options.models]
    manifests = [trained_model.read_manifest(directory) for directory in model_files.all_local(options.models)]
    recipes = len(text_recipes(options, manifests))
    documents = [Document(i, str(i), (text,) * recipes, {}, b"") for i, text in enumerate(PROBES)]
    predictions, failures, _ = scorer.score(documents)
    if failures:
        raise UserError(f"a probe text could not be labelled: {failures[0].detail}")
    return {
        "python": python_version(),
        "runtime": str(scorer.runtime),
        "versions": {name: metadata.version(name) for name in COMPARED},
        "models": {
            name: {
                "sha256": trained_model.fingerprint(directory),
                "scores": [dict(prediction.by_model[name].scores) for prediction in predictions],
            }
            for name, directory in zip(names, model_files.all_local(options.models), strict=True)
        },
    }

"""Loads models, labels fixed texts and prints what came out, with the versions at work.

    python -m inference.probe /models/*

Run inside an image and outside of it, it shows whether both do the same.
"""

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import orjson

from inference import command_line
from inference.images import python_version
from inference.records import Document
from inference.runtimes import PROBES
from inference.scorer import Scorer, ScoringOptions, text_recipes
from models import trained_model
from models.errors import UserError, exit_code

COMPARED = ("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "numpy")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints JSON. Returns 0 done, 2 a model that cannot be used."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> command_line.Parser:
    """The parser of `inference.probe`."""
    parser = command_line.Parser(prog="python -m inference.probe", description=__doc__)
    parser.add_argument("model", nargs="+", metavar="DIR", help="trained models")
    parser.add_argument("--runtime", default="auto", help="(auto)")
    parser.add_argument("--precision", default="auto", help="(auto)")
    return parser


def _run(argv: Sequence[str]) -> None:
    flags = make_parser().parse_args(argv)
    options = ScoringOptions(tuple(flags.model), flags.runtime, flags.precision, scores="all")
    sys.stdout.buffer.write(orjson.dumps(probe(options), option=orjson.OPT_INDENT_2) + b"\n")


def probe(options: ScoringOptions) -> dict[str, Any]:
    """Versions, and for each model its SHA-256 and the scores of the probe texts: label by label, text by text.

    Raises:
        UserError: a model that cannot be loaded, or cannot label a probe text.
    """
    scorer = Scorer(options)
    names = [trained_model.model_name(directory) for directory in options.models]
    manifests = [trained_model.read_manifest(directory) for directory in options.directories()]
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
            for name, directory in zip(names, options.directories(), strict=True)
        },
    }


if __name__ == "__main__":
    sys.exit(main())

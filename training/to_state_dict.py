"""Turn a Hugging Face sequence-classification checkpoint into a trained model, so that the pipeline can use it.

    python -m training.to_state_dict cardiffnlp/twitter-roberta-base-irony --output models/trained/irony

The model is written only if it gives the logits of the checkpoint.
"""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from models.arguments import Parser
from models.errors import UserError, exit_code
from models.labels import Task
from models.text import TextRecipe
from training import output_folder
from training.config import message

LONGEST = 512  # tokens that a model reads at most by default; what lies beyond rarely changes a label


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint. Return 0 when done, 2 after wrong use."""
    return exit_code(lambda: _run(argv))


def make_parser() -> Parser:
    """Return the parser of `training.to_state_dict`."""
    parser = Parser("python -m training.to_state_dict", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or hub name of the checkpoint")
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--output", type=output_folder.folder, required=True, metavar="DIR", help="directory of the trained model"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already there")
    parser.add_argument(
        "--task", choices=[task.value for task in Task], help="task of the labels (default: what the checkpoint says)"
    )
    parser.add_argument(
        "--names", metavar="A,B", help="label names in the order of the outputs (default: the checkpoint's)"
    )
    parser.add_argument(
        "--text_fields", default="text", metavar="A,B", help="fields of a record to read (default: text)"
    )
    parser.add_argument(
        "--cleaning", default="nfc,whitespace", metavar="A,B", help="cleaning steps (default: nfc,whitespace)"
    )
    parser.add_argument(
        "--max_tokens",
        type=int,
        metavar="N",
        help=f"number of tokens to read of a text (default: all that the checkpoint can, up to {LONGEST})",
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    flags = make_parser().parse(argv)
    recipe = _recipe(flags)
    output_folder.check_free(flags.output, flags.overwrite)

    from training import import_classifier

    request = import_classifier.Request(
        checkpoint=flags.checkpoint,
        revision=flags.revision,
        task=Task(flags.task) if flags.task else None,
        names=_parts(flags.names) if flags.names else None,
        recipe=recipe,
        any_length=flags.max_tokens is None,
    )
    import_classifier.convert(request, flags.output)


def _recipe(flags: argparse.Namespace) -> TextRecipe:
    try:
        return TextRecipe(
            fields=_parts(flags.text_fields),
            cleaning=_parts(flags.cleaning),
            max_tokens=LONGEST if flags.max_tokens is None else flags.max_tokens,
        )
    except ValidationError as error:
        flag = str(error.errors()[0]["loc"][0]).replace("fields", "text_fields")
        raise UserError(f"--{flag}: {message(error.errors()[0])}.") from None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


if __name__ == "__main__":
    sys.exit(main())

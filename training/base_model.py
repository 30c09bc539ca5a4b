"""Finds the pretrained encoder that a training starts from."""

import importlib.util
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from models.errors import UserError
from training.config import ModelConfig


def folder(model: ModelConfig) -> str:
    """Where the base model is loaded from: `package:NAME/FOLDER` becomes a folder of the installed package.

    Raises:
        UserError: the package or the folder is not there.
    """
    if model.base.startswith(("/", "./", "../")) and not Path(model.base).is_dir():
        raise UserError(f"model.base: expected a folder {model.base}, found none; check the path.")
    if not model.base.startswith("package:"):
        return model.base
    package, _, inside = model.base.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / inside if spec and spec.submodule_search_locations else None
    if path is None or not path.is_dir():
        raise UserError(f"model.base: expected a folder {inside!r} in the installed package {package!r}, found none.")
    return str(path)


def tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The base model's tokenizer.

    Raises:
        UserError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(folder(model), revision=model.revision)
    except (OSError, ValueError) as error:
        raise unusable(model, error) from None


def unusable(model: ModelConfig, error: Exception) -> UserError:
    """One sentence for what transformers said of the base model."""
    reason = " ".join(str(error).split())[:200]
    return UserError(f"model.base {model.base!r} cannot be loaded as a transformers encoder: {reason}")

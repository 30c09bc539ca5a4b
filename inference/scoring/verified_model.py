"""A trained model whose files are checked, and whose network is loaded only if something needs it."""

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import trained_model

if TYPE_CHECKING:
    from models.weights import TrainedModel


WIDTHS = ("hidden_size", "dim", "d_model")  # names of the width in configurations of transformers


class VerifiedModel:
    """A trained model's directory with files that are as they were saved."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Compare every file with the manifest.

        Raises:
            ModelError: a file is missing, has changed or does not fit.
        """
        self.directory = str(directory)
        self.manifest = trained_model.verify(directory)
        self.name = trained_model.model_name(directory)

    @functools.cached_property
    def width(self) -> int:
        """The width of the network: the numbers of a token's state. It is 0 if config.json does not say."""
        config = _config(self.directory)
        return next((int(config[name]) for name in WIDTHS if name in config), 0)

    @functools.cached_property
    def trained(self) -> "TrainedModel":
        """The model with its network and its tokenizer, for which torch and transformers are imported.

        Raises:
            ModelError: the weights do not fit the architecture.
        """
        from models import weights

        return weights.load(self.directory)


def architecture(directory: str) -> str:
    """Return the name that transformers has for a model's architecture. It is empty if config.json does not say."""
    return str(_config(directory).get("model_type", ""))


def _config(directory: str) -> dict[str, Any]:
    """Return what config.json holds; nothing if it cannot be read, which the check of a model's files refuses."""
    try:
        config: dict[str, Any] = json.loads((Path(directory) / trained_model.CONFIG).read_bytes())
    except (OSError, ValueError):
        return {}
    return config

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
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((Path(self.directory) / trained_model.CONFIG).read_bytes())
        return config

    @property
    def width(self) -> int:
        """The width of the network: the numbers of a token's state. It is 0 if config.json does not say."""
        return next((int(self._config[name]) for name in WIDTHS if name in self._config), 0)

    @property
    def architecture(self) -> str:
        """The name that transformers has for the architecture. It is empty if config.json does not say."""
        return str(self._config.get("model_type", ""))

    @functools.cached_property
    def trained(self) -> "TrainedModel":
        """The model with its network and its tokenizer, for which torch and transformers are imported.

        Raises:
            ModelError: the weights do not fit the architecture.
        """
        from models import weights

        return weights.load(self.directory)

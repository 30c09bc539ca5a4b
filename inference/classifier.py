"""Labels texts in memory, for Python code and notebooks."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.corpus.records import Document
from inference.scoring import model_files
from inference.scoring.options import DeviceChoice, PrecisionChoice, RuntimeChoice, ScoringOptions
from inference.scoring.predictions import Predictions
from inference.scoring.scorer import Scorer
from models import trained_model
from models.text import TextError

Text = str | Mapping[str, Any]  # a text, or a record with the fields that the model reads


class Classifier:
    """A trained model that labels texts in this process, with the labels and scores that a run would give.

    classifier = Classifier("models/trained/demo")
    classifier.label(["Return the indices of the maximum values along an axis."])  # [("numpy",)]
    """

    def __init__(
        self,
        model: str,
        *,
        runtime: RuntimeChoice = "auto",
        precision: PrecisionChoice = "auto",
        device: DeviceChoice = "auto",
        threads: int = 0,
    ) -> None:
        """Load a model from its directory, which may be remote; `threads` 0 means one for each core.

        Raises:
            ModelError: the directory holds no trained model, or a file of it has changed.
            UserError: the runtime or the device is not there.
        """
        options = ScoringOptions((str(model),), runtime, precision, device, scores="all", threads=threads)
        self._manifest = trained_model.read_manifest(model_files.local(str(model)))
        self._scorer = Scorer(options)
        self._name = trained_model.model_name(model)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order of the columns of `score`."""
        return self._manifest.labels.names

    def label(self, texts: Iterable[Text]) -> list[tuple[str, ...]]:
        """Return the labels of each text.

        Raises:
            TextError: a text is empty, or a record lacks the model's fields.
            RuntimeError: the model cannot score a text.
            ScoringError: the device, the memory or the model failed, and none of the texts did.
        """
        return [prediction.by_model[self._name].labels for prediction in self._predict(texts)]

    def score(self, texts: Iterable[Text]) -> NDArray[np.float64]:
        """Return calibrated probabilities (texts, labels), rounded to six places as in a run.

        Raises:
            TextError: a text is empty, or a record lacks the model's fields.
            RuntimeError: the model cannot score a text.
            ScoringError: the device, the memory or the model failed, and none of the texts did.
        """
        blocks = [probs for probs, _ in self._predict(texts).by_model[self._name].all_decided()]
        return np.concatenate([np.empty((0, len(self.labels))), *blocks])

    def _predict(self, texts: Iterable[Text]) -> Predictions:
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, found one text: write [text].")
        documents = [
            Document(place, str(place), (self._text(place, text),), {}, b"") for place, text in enumerate(texts)
        ]
        predictions, failures, _ = self._scorer.score(documents)
        if failures:
            raise RuntimeError(f"texts[{failures[0].line}] cannot be scored: {failures[0].detail}")
        return predictions

    def _text(self, place: int, text: Text) -> str:
        recipe = self._manifest.text
        record = {recipe.fields[0]: text} if isinstance(text, str) else text
        try:
            return recipe.join(record)
        except TextError as error:
            raise TextError(error.reason, f"texts[{place}]: {error}") from None

"""Declares the options of a run that decide its labels and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.text import TextRecipe
from models.trained_model import Manifest

RuntimeName = Literal["torch", "compile", "openvino", "onnxruntime"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
RuntimeChoice = Literal["auto", "torch", "compile", "openvino", "onnxruntime"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16", "int8"]
DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ScoringOptions:
    """The models of a run and the options of their scoring."""

    models: tuple[str, ...]  # directories, local or remote
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"
    device: DeviceChoice = "auto"
    max_tokens: int | None = None  # most tokens of a text to read; None for each model's own number
    text_fields: tuple[str, ...] = ()  # fields to read; empty for each model's own
    scores: str = "predicted"  # scores to write: predicted, all, or top:K
    threads: int = 0  # 0 for one thread a core
    sha256: tuple[str, ...] = ()  # fingerprint that each model must have when it is loaded; empty for any

    def recipe_of(self, manifest: Manifest) -> TextRecipe:
        """Return the model's text recipe with the overrides of this run."""
        changes: dict[str, Any] = {}
        if self.text_fields:
            changes["fields"] = self.text_fields
        if self.max_tokens:
            changes["max_tokens"] = self.max_tokens
        return manifest.text.model_copy(update=changes)


def text_recipes(options: ScoringOptions, manifests: Sequence[Manifest]) -> tuple[TextRecipe, ...]:
    """Return the distinct text recipes of a run; recipes for the same text count as one."""
    return tuple(dict.fromkeys(text_only(options.recipe_of(manifest)) for manifest in manifests))


def text_only(recipe: TextRecipe) -> TextRecipe:
    """Return the recipe without what is read of a text, so that recipes for the same text are equal."""
    return recipe.model_copy(update={"max_tokens": 3, "long": "head", "windows": 1})

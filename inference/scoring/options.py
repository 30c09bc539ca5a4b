"""How documents are scored: the choices of a run that decide which labels and scores come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.text import TextRecipe
from models.trained_model import Manifest

RuntimeName = Literal["torch", "compile", "openvino", "onnxruntime"]
Precision = Literal["fp32", "bf16", "int8"]
RuntimeChoice = Literal["auto", "torch", "compile", "openvino", "onnxruntime"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "int8"]
DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ScoringOptions:
    """The models of a run and how they score. `threads` 0 means one for each core."""

    models: tuple[str, ...]  # directories, also in Cloud Storage
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"
    device: DeviceChoice = "auto"
    max_tokens: int | None = None  # instead of each model's own
    text_fields: tuple[str, ...] = ()  # instead of each model's own
    scores: str = "predicted"  # predicted, all, or top:K
    threads: int = 0

    def recipe_of(self, manifest: Manifest) -> TextRecipe:
        """Return the model's text recipe with the overrides of this run."""
        changes: dict[str, Any] = {}
        if self.text_fields:
            changes["fields"] = self.text_fields
        if self.max_tokens:
            changes["max_tokens"] = self.max_tokens
        return manifest.text.model_copy(update=changes)


def text_recipes(options: ScoringOptions, manifests: Sequence[Manifest]) -> tuple[TextRecipe, ...]:
    """Return the distinct recipes of a run; two that differ in `max_tokens` alone make the same text."""
    return tuple(dict.fromkeys(text_only(options.recipe_of(manifest)) for manifest in manifests))


def text_only(recipe: TextRecipe) -> TextRecipe:
    """Return the recipe with the smallest `max_tokens`, so that recipes of the same text are equal."""
    return recipe.model_copy(update={"max_tokens": 3})

"""Keeps what torch in fp32 gives the probe texts, so that a start compares a runtime with it and does without torch.

Each start computes the probe texts anew on its machine. What is kept is the other side of the comparison, which follows
from the state dict, the tokenizer and the versions of torch, transformers and tokenizers. If one of them is another,
torch computes it again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numpy.typing import NDArray

from inference.scoring import conversion_folder, conversions
from inference.scoring.conversion_folder import REFERENCE, TOKENIZER, ChangedError, Checked
from inference.scoring.tokens import Tokens
from inference.scoring.verified_model import VerifiedModel
from models import tokenizing, trained_model
from models.errors import ModelError
from models.tokenizing import Tokenizer
from models.trained_model import Manifest

if TYPE_CHECKING:
    from models.weights import TrainedModel

PROBE_TEXTS = (
    "We present a method that needs less memory.",
    "Yes!",
    "In this paper the stability of slender columns under periodic loads is studied by experiment and by simulation; "
    "the results agree to within three percent, and the remaining gap is explained by friction at the supports.",
    "so happy for you, congratulations",
)


@dataclass(frozen=True)
class Reference:
    """The probe texts of a model and what torch gives them."""

    tokenizer: Tokenizer
    ids: NDArray[np.int64]  # token ids of the probe texts (texts, tokens)
    mask: NDArray[np.int64]  # 0 for padding (texts, tokens)
    logits: NDArray[np.float32]  # torch's logits in fp32 (texts, labels)


def of(model: VerifiedModel) -> Reference:
    """Return the kept reference of a model, or that which torch computes now.

    Raises:
        ModelError: the model cannot be loaded, or gives scores that are not finite.
    """
    found: list[Reference] = []

    def make(folder: Path) -> None:
        found.append(_compute(model.trained, folder, model.manifest))

    def check(checked: Checked) -> None:
        found.append(_read(checked, model.manifest))

    with conversions.kept(model, conversion_folder.reference(model.manifest), make, check):
        reference = found[-1]
        if not np.isfinite(reference.logits).all():
            raise ModelError(
                f"Model {model.directory!r} gives scores that are not finite numbers; train or export it again."
            )
    return reference


def _compute(trained: "TrainedModel", folder: Path, manifest: Manifest) -> Reference:
    """Compute the reference with torch, and write it to an empty folder."""
    from inference.scoring import torch_runtime

    tokenizer = tokenizing.of(trained.tokenizer)
    ids, mask = encoded(tokenizer, manifest.text.max_tokens)
    logits = torch_runtime.padded(trained.network, "cpu", 0)(ids, mask)
    assert isinstance(logits, np.ndarray)
    content = {
        "tokenizer": trained_model.tokenizer_fingerprint(manifest),
        "ids": ids.tolist(),
        "mask": mask.tolist(),
        "logits": logits.tolist(),
    }
    (folder / REFERENCE).write_text(json.dumps(content) + "\n", encoding="utf-8")
    if copy := tokenizer.to_bytes():
        (folder / TOKENIZER).write_bytes(copy)
    return Reference(tokenizer, ids, mask, logits)


def _read(checked: Checked, manifest: Manifest) -> Reference:
    """Return a kept reference.

    Raises:
        ChangedError: it has no copy of the tokenizer, which takes transformers then, or belongs to another tokenizer.
    """
    if TOKENIZER not in checked.files:
        raise ChangedError("no copy of its tokenizer")
    try:
        content = orjson.loads(checked.files[REFERENCE])
        tokenizer = tokenizing.from_bytes(checked.files[TOKENIZER])
        logits = np.array(content["logits"], np.float32)
    except Exception as error:  # tokenizers raises plain exceptions
        raise ChangedError(f"no readable reference ({' '.join(str(error).split())[:100]})") from None
    ids, mask = encoded(tokenizer, manifest.text.max_tokens)
    if (
        content["tokenizer"] != trained_model.tokenizer_fingerprint(manifest)
        or content["ids"] != ids.tolist()
        or content["mask"] != mask.tolist()
    ):
        raise ChangedError("a reference of another tokenizer or of other probe texts")
    return Reference(tokenizer, ids, mask, logits)


def encoded(tokenizer: Tokenizer, max_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of the probe texts (texts, tokens)."""
    tokens = Tokens.of(tokenizer.ids(list(PROBE_TEXTS), max_tokens))
    ids, mask = tokens.padded(int(tokens.lengths.max()), tokenizer.pad_id)
    return ids, np.ones_like(ids) if mask is None else mask

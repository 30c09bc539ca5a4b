"""Keeps what torch in fp32 gives the probe texts, so that a start compares a runtime with it and does without torch.

Each start computes the probe texts anew on its machine. What is kept is the other side of the comparison, which follows
from the state dict, the tokenizer and the versions of torch, transformers and tokenizers. If one of them is another,
torch computes it again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.scoring import conversion_folder, conversions
from inference.scoring.conversion_folder import REFERENCE, TOKENIZER, ChangedError, Checked
from inference.scoring.logits import to_numpy
from inference.scoring.verified_model import VerifiedModel
from models import tokenizing, trained_model
from models.errors import ModelError
from models.tokenizing import Tokenizer
from models.tokens import Tokens

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
    read: list[Reference] = []
    with conversions.kept(
        model,
        conversion_folder.reference(model.manifest),
        lambda folder: _compute(model, folder),
        lambda checked: read.append(_read(checked, model)),
    ) as checked:
        found = read[0] if read else _read(checked, model)
        if not np.isfinite(found.logits).all():
            raise ModelError(
                f"Model {model.directory!r} gives scores that are not finite numbers; train or export it again."
            )
    return found


def _compute(model: VerifiedModel, folder: Path) -> None:
    """Compute the reference with torch, and write it to an empty folder.

    It gets a copy of the tokenizer unless parts of that are written in Python, or the copy gives other token ids.
    """
    from inference.scoring import torch_runtime

    tokenizer, max_tokens = tokenizing.of(model.trained.tokenizer), model.manifest.text.max_tokens
    ids, mask = encoded(tokenizer, max_tokens)
    logits = to_numpy(torch_runtime.padded(model.trained.network, "cpu", 0)(ids, mask))
    content = {
        "tokenizer": trained_model.tokenizer_fingerprint(model.manifest),
        "ids": ids.tolist(),
        "mask": mask.tolist(),
        "logits": logits.tolist(),
    }
    (folder / REFERENCE).write_text(json.dumps(content) + "\n", encoding="utf-8")
    copy = tokenizer.to_bytes()
    if copy and np.array_equal(encoded(tokenizing.from_bytes(copy), max_tokens)[0], ids):
        (folder / TOKENIZER).write_bytes(copy)


def _read(checked: Checked, model: VerifiedModel) -> Reference:
    """Return a kept reference. Without a copy of the tokenizer, transformers loads it.

    Raises:
        ChangedError: it is damaged, or belongs to another tokenizer or to other probe texts.
    """
    try:
        content = json.loads(checked.files[REFERENCE])
        copy = checked.files.get(TOKENIZER)
        tokenizer = tokenizing.from_bytes(copy) if copy else tokenizing.of(model.trained.tokenizer)
        logits = np.array(content["logits"], np.float32)
        ids, mask = encoded(tokenizer, model.manifest.text.max_tokens)
        same = content["ids"] == ids.tolist() and content["mask"] == mask.tolist() and len(logits) == len(ids)
        known = content["tokenizer"] == trained_model.tokenizer_fingerprint(model.manifest)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises plain exceptions
        raise ChangedError(f"no readable reference ({' '.join(str(error).split())[:100]})") from None
    if not (same and known):
        raise ChangedError("a reference of another tokenizer or of other probe texts")
    return Reference(tokenizer, ids, mask, logits)


def encoded(tokenizer: Tokenizer, max_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of the probe texts (texts, tokens)."""
    tokens = Tokens.of(tokenizer.ids(list(PROBE_TEXTS), max_tokens))
    ids, mask = tokens.padded(int(tokens.lengths.max()), tokenizer.pad_id)
    return ids, np.ones_like(ids) if mask is None else mask

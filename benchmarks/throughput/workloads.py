"""Writes documents and a model in the form that each contestant reads."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification

from benchmarks.cost.run import comments
from inference.corpus.files import find_files
from inference.corpus.slices import all_lines
from models import weights
from models.labels import Task


def read(data: str) -> Iterator[dict[str, Any]]:
    """Return rows of files that labelbeam reads, or of GoEmotions' comments."""
    if data.endswith(".tsv"):
        return iter(comments(Path(data)))
    return (json.loads(line.data) for file in find_files([data]) for line in all_lines(file) if line.data.strip())


def prepare(
    work: Path, rows: Iterable[dict[str, Any]], model: Path, fields: Sequence[str] | None, max_tokens: int | None
) -> dict[str, Any]:
    """Write documents and weights in the form that each contestant reads. Return the work to compute.

    Texts are joined by line ends and not cleaned, since the rivals do not clean.
    """
    loaded = weights.load(model)
    fields, max_tokens = fields or loaded.manifest.text.fields, max_tokens or loaded.manifest.text.max_tokens
    parts = [{field: str(row.get(field) or "") for field in fields} for row in rows]
    texts = ["\n".join(part.values()) for part in parts]
    (work / "texts.json").write_text(json.dumps(texts))
    with (work / "corpus.jsonl").open("w") as corpus:
        corpus.writelines(json.dumps({"id": f"d{number}", **part}) + "\n" for number, part in enumerate(parts))

    network: Any = loaded.network
    config = (network.model if hasattr(network, "model") else network.encoder).config
    update = {"fields": tuple(fields), "separator": "\n", "max_tokens": max_tokens, "cleaning": ()}
    recipe = loaded.manifest.text.model_copy(update=update)
    decision = loaded.manifest.decision.model_copy(update={"temperature": 1.0, "bias": ()})
    manifest = loaded.manifest.model_copy(update={"text": recipe, "decision": decision})
    weights.save(work / "model", network, config, loaded.tokenizer, manifest)
    if (model / "runtimes").is_dir():
        shutil.copytree(model / "runtimes", work / "model" / "runtimes")
    stock = manifest.pooling == "stock"
    _save_checkpoint(work / "checkpoint", network.model if stock else None, config, loaded.tokenizer, max_tokens)

    encoded = loaded.tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    lengths = np.array([len(ids) for ids in encoded])
    return {
        "documents": len(texts),
        "mean_tokens": round(float(lengths.mean()), 1),
        "tokens": int(lengths.sum()),
        "gflop": round(flop(config, lengths) / 1e9),
        "labels": len(manifest.labels.names),
        "labels_compared": stock and manifest.labels.task is Task.MULTI_LABEL,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _save_checkpoint(folder: Path, network: Any, config: Any, tokenizer: Any, max_tokens: int) -> None:
    """Write what transformers loads; without a network, one of the same encoder with a head and weights by chance."""
    config.problem_type = "multi_label_classification"
    (network or AutoModelForSequenceClassification.from_config(config)).save_pretrained(folder)
    tokenizer.model_max_length = max_tokens  # where rivals truncate
    tokenizer.save_pretrained(folder)


def flop(config: Any, lengths: np.ndarray) -> float:
    """Return the floating-point operations of a BERT encoder's matrix products, on useful tokens alone."""
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", 4 * hidden)
    dense = 2 * (4 * hidden**2 + 2 * hidden * inner) * lengths.sum()
    attention = 4 * hidden * (lengths.astype(float) ** 2).sum()
    return float(config.num_hidden_layers * (dense + attention))

"""Says whether more labels would help, from models that learnt from a quarter, a half and all of the documents."""

import json
from collections.abc import Sequence
from pathlib import Path

from models import trained_model
from training import label_tables, paired, terminal

FILE = "learning_curve.json"


def write(output: Path, models: Sequence[Path]) -> None:
    """Write macro-F1 and the F1 of each label by size, with the gain from half to all, and print them.

    The gain is tested on the same documents by a paired bootstrap, as `labelbeam compare_models` does.
    """
    manifests = [trained_model.read_manifest(model) for model in models]
    split = "test" if "test" in manifests[0].metrics else "validation"
    metrics = [manifest.metrics[split] for manifest in manifests]
    scores = [
        label_tables.read_scores(model / label_tables.FOLDER, split, manifest.labels)
        for model, manifest in zip(models, manifests, strict=True)
    ]
    *_, half, everything = scores
    gain, _ = paired.differences([half.predicted, everything.predicted], half.targets, half.groups)
    documents = [manifest.training["documents"] for manifest in manifests]
    macro_f1 = [values["macro_f1"] for values in metrics]
    labels = {name: [values["labels"][name]["f1"] for values in metrics] for name in manifests[0].labels.names}
    content = {
        "split": split,
        "models": [model.name for model in models],
        "documents": documents,
        "macro_f1": macro_f1,
        "labels": labels,
        "gain": {"difference": gain.difference, "low": gain.low, "high": gain.high, "p": gain.p},
    }
    (output / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    table = terminal.new_table(f"{split}: F1 by the number of training documents")
    table.add_column("label")
    for count in documents:
        table.add_column(f"{count:,}", justify="right")
    for name, row in (*labels.items(), ("macro-F1", macro_f1)):
        table.add_row(name, *(f"{value:.3f}" for value in row))
    terminal.print_table(table)
    print(f"From half to all documents, macro-F1 {_verdict(gain, split)}")
    print(f"the numbers: {output / FILE}")


def _verdict(gain: paired.Difference, split: str = "test") -> str:
    interval = f"{gain.difference:+.3f} (95 % {gain.low:+.3f} to {gain.high:+.3f})"
    if gain.low > 0:
        return f"rose by {interval}: more labels would probably help."
    if gain.high < 0:
        return f"fell by {interval}."
    return (
        f"changed by {interval}, which the choice of the {split} documents may explain: more labels may bring little."
    )

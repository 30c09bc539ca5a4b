"""Reads a finished run into pandas, for Python code and notebooks. All of it is in memory at once."""

import warnings

import pandas as pd

from inference.corpus import kept_fields
from inference.runs import run_folder, sink
from inference.runs.receipts import Receipt

FAILURE_COLUMNS = ("file", "line", "id", "reason", "detail", "raw")


def read_predictions(run: str) -> pd.DataFrame:
    """Return the predictions of a finished run, in the order of the input.

    Columns: `id`, the kept fields, and for each model `MODEL_labels` (a list of labels) and `MODEL_scores` (a dict from
    label to probability, with the scores that the run wrote).

    Raises:
        UserError: the folder holds no finished run, or a receipt of it is damaged or missing, or a file has changed.
    """
    description = run_folder.require(str(run), finished=True)
    models = [model["name"] for model in description["models"]]
    columns = [
        "id",
        *kept_fields.types(description["options"]["keep_fields"]),
        *(f"{m}_{kind}" for m in models for kind in ("labels", "scores")),
    ]
    rows = []
    for receipt in _in_input_order(str(run)):
        for row in sink.read_slice(receipt, str(run)):
            for model in models:
                labelling = row.pop(model)
                row[f"{model}_labels"] = labelling["labels"]
                row[f"{model}_scores"] = {score["label"]: score["score"] for score in labelling["scores"]}
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def read_failures(run: str) -> pd.DataFrame:
    """Return the failures of a finished run, in the order of the input: file, line, id, reason, detail, raw line.

    Raises:
        UserError: the folder holds no finished run, or a receipt of it is damaged or missing, or a file has changed.
    """
    failed = (receipt for receipt in _in_input_order(str(run)) if receipt.failed)
    rows = [row for receipt in failed for row in sink.read_failures(receipt, str(run))]
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


def _in_input_order(run: str) -> list[Receipt]:
    """Return the receipts of a finished run. Warn of files that none of them names."""
    read = run_folder.finished_receipts(run)
    unnamed = list(sink.unnamed_files(run, (path for receipt in read for path in receipt.sha256)))
    if unnamed:
        warnings.warn(
            f"{run}: {len(unnamed)} files, such as {unnamed[0]}, belong to no receipt and were not read; `labelbeam "
            f"verify {run}` names them.",
            stacklevel=3,
        )
    return sorted(read, key=lambda receipt: receipt.number)

"""Writes an unbiased outcome for every document of a run, for regressions in R or pandas.

The outcome of a label is its score p, and p + (y - p) / pi for a document that was drawn with probability pi and found
to be y. Egami, Hinck, Stewart and Wei (2023, arXiv 2306.04746) show that a regression on it is unbiased.
"""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inference.audits import population
from inference.audits.audit_folder import Audit
from inference.audits.population import SCALE, Population
from inference.corpus import storage
from models.errors import UserError


def write(audit: Audit, source: Population, truth: NDArray[np.bool_], path: str) -> int:
    """Write id, group, whether it was drawn, and score and outcome of each label. Return the number of rows.

    Raises:
        UserError: the name ends in neither .csv nor .parquet, the file exists, or the run is no longer the audit's.
    """
    if not path.endswith((".csv", ".parquet")):
        raise UserError(f"--outcomes {path}: expected a name that ends in .csv or .parquet; name another.")
    if storage.exists(path):
        raise UserError(f"--outcomes {path}: expected a new file, found one; name another.")
    with storage.new_file(path) as file:
        tables = _tables(audit, source, truth)
        return _write_csv(tables, file) if path.endswith(".csv") else _write_parquet(tables, file)


def _tables(audit: Audit, source: Population, truth: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    drawn = {(one.file, one.place): number for number, one in enumerate(audit.documents)}
    for file in source.files:
        for block in population.blocks(file, source.question):
            outcomes = block.scores / SCALE
            places = [drawn.get((file.number, block.first + row), -1) for row in range(len(block.ids))]
            for row, number in enumerate(places):
                if number >= 0:
                    weight = 1 / audit.probability(audit.documents[number])
                    outcomes[row] += (truth[number] - outcomes[row]) * weight
            yield {
                "id": block.ids,
                **({"group": block.groups} if audit.by else {}),
                "drawn": [number >= 0 for number in places],
                **{f"{label}_score": block.scores[:, place] / SCALE for place, label in enumerate(audit.labels)},
                **{f"{label}_outcome": outcomes[:, place] for place, label in enumerate(audit.labels)},
            }


def _write_parquet(tables: Iterator[dict[str, Any]], file: IO[bytes]) -> int:
    writer, rows = None, 0
    for table in map(pa.table, tables):
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    if writer:
        writer.close()
    return rows


def _write_csv(tables: Iterator[dict[str, Any]], file: IO[bytes]) -> int:
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer, rows = csv.writer(text), 0
    for table in tables:
        if not rows:
            writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
        rows += len(table["id"])
    text.detach()
    return rows

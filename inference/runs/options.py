"""What a worker needs to know of a run."""

from dataclasses import dataclass
from typing import Literal

from inference.scoring.options import ScoringOptions
from models import trained_model

FileFormat = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class RunOptions:
    """Everything a worker needs to know of the run, except the list of files, which it reads from `run.json`."""

    output: str
    slice_bytes: int
    scoring: ScoringOptions
    id_field: str = "id"  # empty: the id is made of file and line number
    keep_fields: tuple[str, ...] = ()
    file_format: FileFormat = "jsonl"
    limit: int | None = None
    redact_failures: bool = False  # write nothing of the texts into failures/

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models' names, in the order of the output's columns."""
        return tuple(trained_model.model_name(directory) for directory in self.scoring.models)

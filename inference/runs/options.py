"""Defines the options of a run that travel to the workers."""

from dataclasses import dataclass
from typing import Literal

from inference.scoring.options import ScoringOptions
from models import trained_model

RESUME = "Finished slices are kept: the same command resumes after them."  # said when a run has stopped

FileFormat = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that a worker needs. A worker reads the list of files from `run.json`."""

    output: str  # folder of the run
    slice_bytes: int  # size at which files are cut into slices, in decompressed bytes
    scoring: ScoringOptions  # models, and the options that they score with
    id_field: str = "id"  # field with the id; empty for ids made of file and line number
    keep_fields: tuple[str, ...] = ()  # input fields that are copied into the rows
    file_format: FileFormat = "jsonl"  # format of the predictions
    limit: int | None = None  # number of input lines to read; None for all
    redact_failures: bool = False  # whether failures are written without any part of the texts
    retry_failures: str = ""  # reason of the failures to score again, `all` for every reason, empty for none
    run: str = ""  # identity of the run, known once its folder is claimed
    launch: str = ""  # what tells a launch of a process from its others; empty if its workers are elsewhere
    lease: str = ""  # token of the lease on a remote folder; empty for other folders

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the models' names, in the order of the output's columns."""
        return tuple(trained_model.model_name(directory) for directory in self.scoring.models)

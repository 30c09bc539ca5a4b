"""Makes the passes of a draw as Beam pipelines, for runs that one process would read too slowly."""

from collections.abc import Sequence

import apache_beam as beam
import orjson
from apache_beam.options.pipeline_options import PipelineOptions

from inference.audits.drawing import Merge, OfFile, Result
from inference.audits.population import RowFile
from inference.corpus import storage
from inference.runs.step_errors import own_error
from models.errors import UserError


class Passes:
    """Makes each pass with one Beam pipeline, which hands its result over in a file."""

    def __init__(self, options: PipelineOptions, folder: str) -> None:
        """Take the options of Beam and a folder that the workers can write."""
        self._options = options
        self._path = storage.join(folder, "pass.json")

    def __call__(self, files: Sequence[RowFile], of_file: OfFile, merge: Merge) -> Result:
        """Make a pass.

        Raises:
            UserError: a worker found a mistake of the user, such as a file that has changed.
        """
        try:
            with beam.Pipeline(options=self._options) as pipeline:
                results = (
                    pipeline
                    | "Files" >> beam.Create(files)
                    | "Spread" >> beam.Reshuffle()
                    | "OfFile" >> beam.Map(of_file)
                    | "Merge" >> beam.CombineGlobally(merge)
                )
                _ = results | "HandOver" >> beam.Map(_write, self._path)
        except Exception as error:  # each runner raises errors of its own types
            if mistake := own_error(error):
                raise UserError(mistake[1]) from None
            raise
        content: Result = orjson.loads(storage.read_file(self._path))
        folder, _, name = self._path.rpartition("/")
        storage.delete(folder, [name])
        return content


def _write(result: Result, path: str) -> None:
    storage.write_file(path, orjson.dumps(result))

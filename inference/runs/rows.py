"""Writes the predictions of a slice as JSON lines or Parquet, a block of documents at a time."""

from typing import IO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from inference.corpus import records
from inference.runs.options import RunOptions
from inference.scoring.predictions import Block, Labellings, Lists, Predictions


def write(predictions: Predictions, options: RunOptions, file: IO[bytes]) -> None:
    """Write a row for each prediction, in order, in the format of the run. A block becomes a Parquet row group."""
    if options.file_format == "jsonl":
        for prediction in predictions:  # `writelines` of a spooled file would hold all rows in memory
            file.write(orjson.dumps(prediction.row()) + b"\n")
        return
    schema = records.predictions_schema(options.keep_fields, options.model_names)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for block in predictions.blocks():
            writer.write_table(_table(block, options, schema))


def _table(block: Block, options: RunOptions, schema: pa.Schema) -> pa.Table:
    kept = [[records.arrow_text(fields[name]) for fields in block.kept_fields] for name in options.keep_fields]
    columns = [pa.array(column, pa.string()) for column in [block.ids, *kept]]
    models = [_labelling_column(block.by_model[name]) for name in options.model_names]
    return pa.Table.from_arrays([*columns, *models], schema=schema)


def _labelling_column(labellings: Labellings) -> pa.StructArray:
    names = pa.array(labellings.names, pa.string())
    scores = pa.StructArray.from_arrays(
        [names.take(pa.array(labellings.scored.indices)), pa.array(labellings.scores)], ["label", "score"]
    )
    labels = names.take(pa.array(labellings.labels.indices))
    lists = [_list_column(labellings.labels, labels), _list_column(labellings.scored, scores)]
    return pa.StructArray.from_arrays(lists, ["labels", "scores"])


def _list_column(lists: Lists, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), values)

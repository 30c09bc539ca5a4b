"""Writes the predictions of a slice as JSON lines or Parquet, a block of documents at a time."""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from inference.corpus import kept_fields, records
from inference.runs.options import FileFormat, RunOptions
from inference.scoring.predictions import Block, Labellings, Lists, Predictions


def write(predictions: Predictions, options: RunOptions, file: IO[bytes]) -> None:
    """Write a row for each prediction, in order, in the format of the run. A block becomes a Parquet row group."""
    if options.file_format == "jsonl":
        for row in json_lines(predictions):  # `writelines` of a spooled file would hold all rows in memory
            file.write(row)
        return
    schema = records.predictions_schema(options.keep_fields, options.model_names)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for block in predictions.blocks():
            writer.write_table(_table(block, options, schema))


def json_lines(predictions: Predictions) -> Iterator[bytes]:
    """Yield the row of each prediction: the id, the kept fields, and an object for each model."""
    for block in predictions.blocks():
        keys = [b"," + orjson.dumps(model) + b":" for model in block.by_model]
        by_document = zip(*map(_json_objects, block.by_model.values()), strict=True)
        for identifier, kept, objects in zip(block.ids, block.kept_fields, by_document, strict=True):
            models = b"".join(itertools.chain.from_iterable(zip(keys, objects, strict=True)))
            yield orjson.dumps({"id": identifier, **kept})[:-1] + models + b"}\n"


def _json_objects(labellings: Labellings) -> Iterator[bytes]:
    """Yield the labels and scores of each document as JSON. An object for each score would take most of the time."""
    # A copy is as small as its content, while what orjson returns keeps its whole buffer.
    names = np.array([bytes(memoryview(orjson.dumps(name))) for name in labellings.names], object)
    openings = b'},{"label":' + names + b',"score":'
    labels = names[labellings.labels.indices].tolist()
    label_bounds = itertools.pairwise(labellings.labels.offsets.tolist())
    score_bounds = itertools.pairwise(labellings.scored.offsets.tolist())
    for (first, last), (begin, end) in zip(label_bounds, score_bounds, strict=True):
        parts = [b""] * (2 * (end - begin))  # the opening of each score, and the score
        if parts:
            scores = orjson.dumps(labellings.scores[begin:end], option=orjson.OPT_SERIALIZE_NUMPY)
            parts[::2] = openings[labellings.scored.indices[begin:end]].tolist()
            parts[1::2] = scores[1:-1].split(b",")
            parts.append(b"}")
        yield b'{"labels":[' + b",".join(labels[first:last]) + b'],"scores":[' + b"".join(parts)[2:] + b"]}"


def merge(parts: Sequence[tuple[Sequence[int], bytes]], file_format: FileFormat, file: IO[bytes]) -> None:
    """Write the rows of several files in the order of their lines.

    Args:
        parts: For each file, the line number of each row, and the content.
        file_format: The format of all files.
        file: The file to write.
    """
    order = np.argsort(np.concatenate([np.array(lines, np.int64) for lines, _ in parts]), kind="stable")
    if file_format == "jsonl":
        all_rows = [row for _, content in parts for row in content.splitlines(keepends=True)]
        file.writelines(all_rows[index] for index in order)
        return
    table = pa.concat_tables([pq.read_table(io.BytesIO(content)) for _, content in parts])
    pq.write_table(table.take(order), file, compression="zstd")


def _table(block: Block, options: RunOptions, schema: pa.Schema) -> pa.Table:
    kept = [
        kept_fields.column([fields[name] for fields in block.kept_fields], kind)
        for name, kind in kept_fields.types(options.keep_fields).items()
    ]
    models = [_labelling_column(block.by_model[name]) for name in options.model_names]
    return pa.Table.from_arrays([pa.array(block.ids, pa.string()), *kept, *models], schema=schema)


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

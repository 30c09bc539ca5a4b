"""Compares the rows of two runs: matches documents by their ids, and counts the labels and scores that differ."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import orjson

from inference.corpus import storage
from inference.runs import receipts, run_folder, sink
from inference.runs.receipts import Receipt
from inference.scoring import tally
from models.errors import UserError

LARGEST = 10  # number of score changes to show, the largest first

Pairs = dict[str, str]  # names of models in the first run, and the models to compare them with in the second
Row = dict[str, Any]


def pair_models(before: str, after: str, requested: Pairs) -> Pairs:
    """Return the pairs of models to compare: the requested ones, or all models with the same name in both runs.

    Raises:
        UserError: a folder holds no finished run, or a run does not have a requested model.
    """
    descriptions = [run_folder.require(run, finished=True) for run in (before, after)]
    names = [[model["name"] for model in description["models"]] for description in descriptions]
    pairs = requested or {name: name for name in names[0] if name in names[1]}
    if not pairs:
        raise UserError(
            f"expected runs with models of the same name, found {', '.join(names[0])} and {', '.join(names[1])}; pair "
            "them with --models A=B."
        )
    for run, requested_names, run_names in ((before, pairs.keys(), names[0]), (after, pairs.values(), names[1])):
        for name in requested_names:
            if name not in run_names:
                raise UserError(f"--models: expected a model of {run}, found {name}; it has {', '.join(run_names)}.")
    return pairs


def build(p: beam.Pipeline, runs: tuple[str, str], pairs: Pairs, output: str) -> None:
    """Add the steps that join the rows of both runs by id, and that write the counts and the largest changes."""
    sides = {
        side: p
        | f"Run{side}" >> beam.Create([run])
        | f"Receipts{side}" >> beam.FlatMap(_receipts)
        | f"Spread{side}" >> beam.Reshuffle()
        | f"Read{side}" >> beam.FlatMapTuple(_rows_by_id)
        for side, run in zip(("before", "after"), runs, strict=True)
    }
    joined = sides | "ById" >> beam.CoGroupByKey()
    counted = joined | "Count" >> beam.MapTuple(lambda _, sides: count(sides, pairs))
    changed = joined | "Changes" >> beam.FlatMapTuple(lambda identifier, sides: changes(identifier, sides, pairs))
    largest = changed | "Largest" >> beam.combiners.Top.Of(LARGEST, key=_size)
    (
        counted
        | "Add" >> beam.CombineGlobally(tally.add)
        | "Together"
        >> beam.Map(lambda counts, changes: {**counts, "largest": changes}, beam.pvalue.AsSingleton(largest))
        | "Write" >> beam.Map(_write, output)
    )


def _receipts(run: str) -> Iterator[tuple[Receipt, str]]:
    for _, receipt in receipts.read_all(run, run_folder.require(run)["run"]):
        if receipt:
            yield receipt.small(), run


def _rows_by_id(receipt: Receipt, run: str) -> Iterator[tuple[str, Row]]:
    for row in sink.read_slice(receipt, run):
        yield row["id"], row


def count(sides: dict[str, Iterable[Row]], pairs: Pairs) -> dict[str, Any]:
    """Return what one id adds to the counts. An id that is not unique in a run is only counted as ambiguous."""
    before, after = list(sides["before"]), list(sides["after"])
    if len(before) > 1 or len(after) > 1:
        return {"ambiguous": 1}
    if not (before and after):
        return {"only_before" if before else "only_after": 1}
    models: dict[str, Any] = {}
    for name, other in pairs.items():
        old, new = set(before[0][name]["labels"]), set(after[0][other]["labels"])
        models[name] = {
            "changed": int(old != new),
            "kept": dict.fromkeys(sorted(old & new), 1),
            "lost": dict.fromkeys(sorted(old - new), 1),
            "gained": dict.fromkeys(sorted(new - old), 1),
        }
    return {"both": 1, "models": models}


def changes(identifier: str, sides: dict[str, Iterable[Row]], pairs: Pairs) -> Iterator[Row]:
    """Yield every score of an id that both runs wrote and that differs."""
    before, after = list(sides["before"]), list(sides["after"])
    if len(before) != 1 or len(after) != 1:
        return
    for name, other in pairs.items():
        scores = {score["label"]: score["score"] for score in before[0][name]["scores"]}
        for score in after[0][other]["scores"]:
            label, new = score["label"], score["score"]
            if label in scores and scores[label] != new:
                yield {"id": identifier, "model": name, "label": label, "before": scores[label], "after": new}


def _write(comparison: dict[str, Any], output: str) -> None:
    storage.write_file(output, orjson.dumps(comparison, option=orjson.OPT_INDENT_2))


def _size(change: Row) -> tuple[float, str, str, str]:
    return abs(change["after"] - change["before"]), change["id"], change["model"], change["label"]

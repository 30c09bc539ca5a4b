"""Compares the rows of two runs: documents meet by their ids, and what differs is counted."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import orjson

from inference.corpus import storage
from inference.runs import run_folder, sink
from inference.scoring import tally
from models.errors import UserError

LARGEST = 10  # changes of a score that are shown

Pairs = dict[str, str]  # model of the first run: model of the second
Row = dict[str, Any]


def pair_models(before: str, after: str, wanted: Pairs) -> Pairs:
    """Return which model of the first run is compared with which of the second: as wanted, or those of the same name.

    Raises:
        UserError: a folder holds no finished run, or a run has no such model.
    """
    runs = [run_folder.require(folder, finished=True) for folder in (before, after)]
    names = [[model["name"] for model in run["models"]] for run in runs]
    pairs = wanted or {name: name for name in names[0] if name in names[1]}
    if not pairs:
        raise UserError(
            f"the runs have no model of the same name, {', '.join(names[0])} and {', '.join(names[1])}: pair them with "
            "--models A=B."
        )
    for place, model in [(0, name) for name in pairs] + [(1, name) for name in pairs.values()]:
        if model not in names[place]:
            raise UserError(
                f"--models: {(before, after)[place]} has no model {model}, it has {', '.join(names[place])}."
            )
    return pairs


def build(p: beam.Pipeline, runs: tuple[str, str], pairs: Pairs, output: str) -> None:
    """Adds the steps: rows of both runs meet by their ids; counts and the largest changes are written."""
    sides = {
        side: p
        | f"Run{side}" >> beam.Create([run])
        | f"Files{side}" >> beam.FlatMap(sink.prediction_paths)
        | f"Spread{side}" >> beam.Reshuffle()
        | f"Read{side}" >> beam.FlatMap(sink.rows_by_id)
        for side, run in zip(("before", "after"), runs, strict=True)
    }
    met = sides | "ById" >> beam.CoGroupByKey()
    counted = met | "Count" >> beam.MapTuple(lambda _, sides: count(sides, pairs))
    changed = met | "Changes" >> beam.FlatMapTuple(lambda identifier, sides: changes(identifier, sides, pairs))
    largest = changed | "Largest" >> beam.combiners.Top.Of(LARGEST, key=_size)
    (
        counted
        | "Add" >> beam.CombineGlobally(tally.add)
        | "Together" >> beam.Map(lambda found, largest: {**found, "largest": largest}, beam.pvalue.AsSingleton(largest))
        | "Write" >> beam.Map(lambda found: storage.write_file(output, orjson.dumps(found, option=orjson.OPT_INDENT_2)))
    )


def count(sides: dict[str, Iterable[Row]], pairs: Pairs) -> dict[str, Any]:
    """What one id adds to the totals. Ids that stand twice in a run are counted apart, and not compared."""
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
    """Every score that both runs wrote and that differs."""
    before, after = list(sides["before"]), list(sides["after"])
    if len(before) != 1 or len(after) != 1:
        return
    for name, other in pairs.items():
        scores = {score["label"]: score["score"] for score in before[0][name]["scores"]}
        for score in after[0][other]["scores"]:
            label, new = score["label"], score["score"]
            if label in scores and scores[label] != new:
                yield {"id": identifier, "model": name, "label": label, "before": scores[label], "after": new}


def _size(change: Row) -> tuple[float, str, str, str]:
    return abs(change["after"] - change["before"]), change["id"], change["model"], change["label"]

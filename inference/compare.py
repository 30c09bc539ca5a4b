"""Compares two runs over the same documents: what another model, runtime or threshold would change.

    python -m inference.compare runs/old runs/new
    python -m inference.compare runs/old runs/new --models ai_v1=ai_v2

Documents meet by their ids. Scores are compared where both runs wrote them: label with --scores all.
Every flag of Apache Beam can follow; on another machine's workers give --output a path that they can write.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import orjson
from rich.console import Console
from rich.table import Table

from inference import command_line, run_folder, sink, storage, tally
from models.errors import UserError, exit_code

LARGEST = 10  # changes of a score that are shown

Pairs = dict[str, str]  # model of the first run: model of the second
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Compares and prints. Returns 0 done, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> command_line.Parser:
    """The parser of `inference.compare`."""
    parser = command_line.Parser(prog="python -m inference.compare", description=__doc__)
    parser.add_argument("before", metavar="RUN_A", help="folder of a run")
    parser.add_argument("after", metavar="RUN_B", help="folder of another")
    parser.add_argument("--models", type=_pair, action="append", default=[], metavar="A=B", help="(those of one name)")
    parser.add_argument("--output", metavar="FILE", help="JSON with all numbers")
    command_line.add_json(parser)
    return parser


def _pair(text: str) -> tuple[str, str]:
    before, equals, after = text.partition("=")
    if not (before and equals and after):
        raise argparse.ArgumentTypeError(f"expected A=B, a model of each run, found {text!r}")
    return before, after


def _run(argv: Sequence[str]) -> None:
    flags, options, problems = make_parser().parse_with_beam(argv)
    command_line.refuse(problems)
    pairs = _pairs(flags.before, flags.after, dict(flags.models))
    with tempfile.TemporaryDirectory() as folder:
        output = flags.output or str(Path(folder) / "compare.json")
        with beam.Pipeline(options=options) as p:
            build(p, (flags.before, flags.after), pairs, output)
        found = orjson.loads(storage.read_file(output))
    if flags.json:
        command_line.print_json(found)
    else:
        show(found, pairs, Console())


def _pairs(before: str, after: str, wanted: Pairs) -> Pairs:
    runs = [run_folder.require(folder, finished=True) for folder in (before, after)]
    names = [[model["name"] for model in run["models"]] for run in runs]
    pairs = wanted or {name: name for name in names[0] if name in names[1]}
    if not pairs:
        raise UserError(
            f"the runs have no model of one name, {', '.join(names[0])} and {', '.join(names[1])}: pair them with "
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


def show(found: dict[str, Any], pairs: Pairs, console: Console) -> None:
    """Prints how many documents changed, which labels, and the largest changes of a score."""
    both = found.get("both", 0)
    console.print(
        f"{both:,} documents in both runs, {found.get('only_before', 0):,} in the first only, "
        f"{found.get('only_after', 0):,} in the second only"
        + (f"; {found['ambiguous']:,} ids stand twice and are not compared" if "ambiguous" in found else ""),
        highlight=False,
        soft_wrap=True,
    )
    for name, other in pairs.items():
        model = found.get("models", {}).get(name, {"changed": 0})
        changed = model["changed"]
        console.print(
            f"model {name if name == other else f'{name} and {other}'}: {changed:,} documents have other labels "
            f"({changed / max(both, 1):.2%})",
            highlight=False,
            soft_wrap=True,
        )
        console.print(_table(model))
    if found["largest"]:
        console.print("largest changes of a score:")
        table = Table()
        for column in ("id", "model", "label", "before", "after"):
            table.add_column(column, justify="right" if column in ("before", "after") else "left")
        for change in found["largest"]:
            scores = (f"{change['before']:.3f}", f"{change['after']:.3f}")
            table.add_row(change["id"], change["model"], change["label"], *scores)
        console.print(table)


def _table(model: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("label")
    for column in ("before", "after", "lost", "gained"):
        table.add_column(column, justify="right")
    kept, lost, gained = (model.get(kind, {}) for kind in ("kept", "lost", "gained"))
    for label in sorted({*kept, *lost, *gained}, key=lambda label: -lost.get(label, 0) - gained.get(label, 0)):
        stays, goes, comes = (counts.get(label, 0) for counts in (kept, lost, gained))
        table.add_row(label, *(f"{number:,}" for number in (stays + goes, stays + comes, goes, comes)))
    return table


if __name__ == "__main__":
    sys.exit(main())

"""Computes the figures of the documentation from the result files in benchmarks/**/results.

A figure has a name, such as `papers.ours`, and a fixed format. `python -m docs.generate --figures` lists them all.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CONFIGURATIONS = ("arxiv_cyber", "arxiv_subjects", "goemotions", "tweets_irony", "tweets_offensive")
FEW_LABELS = 4  # configurations with more have no figures for single labels

OURS, OURS_INT8 = "labelbeam, openvino", "labelbeam, openvino int8"
END_TO_END = "labelbeam, openvino, file to file"
RIVAL, RIVAL_INT8 = "OpenVINO, sorted", "OpenVINO int8, sorted"
SPEEDS = {  # contestants whose documents per second are figures, by name
    "ours": OURS,
    "ours_int8": OURS_INT8,
    "end_to_end": END_TO_END,
    "best_rival": RIVAL,
    "torch_bf16": "torch bf16, sorted",
    "torch_fp32": "torch fp32, sorted",
    "cross_encoder": "CrossEncoder bf16",
    "one_by_one": "one by one, torch fp32",
    "pipeline": "transformers.pipeline",
    "beam_batch_one": "Beam RunInference, batch 1",
}
DENSE = 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # weights in the dense layers of MiniLM-L6
Figures = Iterator[tuple[str, str]]


def result(name: str) -> Any:
    """Return the content of a result file, such as `throughput/papers`."""
    folder, _, stem = name.partition("/")
    return json.loads((BENCHMARKS / folder / "results" / f"{stem}.json").read_bytes())


@cache
def figures() -> dict[str, str]:
    """Return every figure by its name."""
    groups: dict[str, Callable[[], Figures]] = {
        "papers": papers,
        "comments": comments,
        "papers_bf16": papers_bf16,
        "without_bf16": without_bf16,
        "kernels": kernels,
        "tiles": tiles,
        "workers": workers,
        "models": models,
        "size": size,
        "gpu": gpu,
        "step": step,
        "cost": cost,
        "kills": kills,
        "leases": leases,
        "zombies": zombies,
        "devices": devices,
        "storages": storages,
        "clocks": clocks,
        "bits": bits,
        "drill": drill,
        "fuzz": fuzz,
        "startup": startup,
        "first": first,
        "batches": batches,
    }
    found = {f"{group}.{name}": value for group, of in groups.items() for name, value in of()}
    return found | {f"{name}.{key}": value for name in CONFIGURATIONS for key, value in quality(name)}


def quality(name: str) -> Figures:
    """Yield the scores of a configuration, and what it was trained on."""
    found = result(f"quality/{name}")
    model, baseline = found["model"], found["baseline"]
    yield "macro_f1", _interval(model["macro_f1"], model["intervals"]["macro_f1"])
    yield "baseline", f"{baseline['macro_f1']:.3f}"
    yield "documents", f"{found['documents']['train']:,}"
    yield "test_documents", f"{found['documents']['test']:,}"
    yield "minutes", f"{model['seconds'] / 60:.0f}"
    for label, values in model["labels"].items() if len(model["labels"]) <= FEW_LABELS else ():
        yield f"{label}.f1", _interval(values["f1"], model["intervals"]["labels"][label]["f1"])
        yield f"{label}.average_precision", f"{values['average_precision']:.3f}"
        yield f"{label}.baseline_average_precision", f"{baseline['labels'][label]['average_precision']:.3f}"


def _interval(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def papers() -> Figures:
    """Yield speeds on papers, with bf16 in hardware."""
    found = result("throughput/papers")
    work, of = found["workload"], found["contestants"]
    speed = {name: row["docs_per_second"] for name, row in of.items()}
    yield from ((name, f"{speed[contestant]:.0f}") for name, contestant in SPEEDS.items())
    yield from ((f"{name}_same_labels", f"{of[row].get('same_labels', 1):.2%}") for name, row in SPEEDS.items())
    yield "documents", f"{work['documents']:,}"
    yield "tokens", f"{work['mean_tokens']:.0f}"
    yield "contestants", str(len(of))
    yield "limit", f"{found['matrix_gflops']['bf16']:,.0f}"
    yield "other_labels", f"{work['documents'] * (1 - of[OURS]['same_labels']):.0f}"
    yield "largest_difference", f"{of[OURS]['largest_difference']:.3f}"
    yield "speedup_over_rival", f"{speed[OURS] / speed[RIVAL]:.2f}"
    by_round = [ours / theirs for ours, theirs in zip(of[OURS]["range"], of[RIVAL]["range"], strict=True)]
    yield "speedup_over_rival_by_round", " and ".join(f"{ratio:.2f}" for ratio in by_round)
    yield "int8_speedup_over_rival_int8", f"{speed[OURS_INT8] / speed[RIVAL_INT8]:.2f}"
    yield "int8_speedup_over_rivals", f"{speed[OURS_INT8] / speed[RIVAL]:.2f}"
    yield "speedup_over_pipeline", f"{speed[OURS] / speed['transformers.pipeline']:.1f}"
    yield "speedup_over_beam", f"{speed[END_TO_END] / speed['Beam RunInference, batch 1']:.1f}"
    yield "torch_bf16_speedup", f"{speed['torch bf16, sorted'] / speed['torch fp32, sorted']:.1f}"
    steady = work["documents"] / of[END_TO_END]["steady_seconds"]
    yield "steady", f"{steady:.0f}"
    yield "steady_over_loop", f"{steady / speed[OURS]:.2f}"
    yield "steady_over_rival", f"{steady / speed[RIVAL]:.2f}"
    yield "seconds", f"{of[END_TO_END]['seconds']:.0f}"
    yield "startup", f"{of[END_TO_END]['until_first_slice_seconds']:.0f}"
    yield "matrix_share", f"{of[OURS]['share_of_matrix_rate']:.0%}"
    yield "useful_gflops", f"{work['gflop'] / of[OURS]['seconds']:.0f}"
    for name, row in (("padding", of[OURS]), ("slice_padding", of[END_TO_END])):
        yield name, f"{1 - row['tokens'] / row['padded_tokens']:.1%}"


def comments() -> Figures:
    """Yield speeds on short comments."""
    found = result("throughput/comments")
    work, of = found["workload"], found["contestants"]
    yield "documents", f"{work['documents']:,}"
    yield "tokens", f"{work['mean_tokens']:.0f}"
    yield "ours", _range(of[OURS])
    yield "best_rival", _range(of[RIVAL])
    steady = work["documents"] / of[END_TO_END]["steady_seconds"]
    yield "steady", f"{steady:,.0f}"
    yield "steady_over_loop", f"{steady / of[OURS]['docs_per_second']:.2f}"
    many = {name: row["docs_per_second"] for name, row in result("throughput/comments_200k")["contestants"].items()}
    yield "many", f"{many[END_TO_END]:.0f}"
    yield "many_loop", f"{many[OURS]:.0f}"
    yield "many_over_loop", f"{many[END_TO_END] / many[OURS]:.2f}"


def _range(row: dict[str, Any]) -> str:
    low, high = row["range"]
    return f"{row['docs_per_second']:,.0f} ({low:,.0f} to {high:,.0f})"


def gpu() -> Figures:
    """Yield speeds on a GPU."""
    found = result("throughput/gpu")
    loops, runs = found["loops"], found["file_to_file"]
    rivals = ("torch bf16, sorted", "sentence-transformers encode", "transformers.pipeline")
    ours, before = ({w: of[name]["range"] for w, of in loops.items()} for name in ("labelbeam", "labelbeam before"))
    best = {workload: max(of[name]["range"][1] for name in rivals) for workload, of in loops.items()}
    yield "before", found["before"][:7]
    yield "card", found["hardware"]["gpu"]
    yield "cores", str(found["hardware"]["cores"])
    yield "matrix", f"{statistics.mean(found['matrix_tflops']):.0f}"
    yield "papers", f"{found['workloads'][0]['documents']:,}"
    yield "comments", f"{found['workloads'][1]['documents']:,}"
    yield (
        "speedup",
        _ends(
            loops[w]["labelbeam"]["docs_per_second"] / loops[w]["labelbeam before"]["docs_per_second"] for w in loops
        ),
    )
    yield "first_pass", f"{max(high / low for low, high in before.values()):.1f}"
    yield "speedup_of_best_passes", _ends(ours[w][1] / before[w][1] for w in loops)
    yield "speedup_over_rivals", _ends(ours[w][0] / best[w] for w in loops)
    yield "of_128_tokens", f"{loops['BERT-base, papers of 128 tokens']['labelbeam']['docs_per_second']:,.0f}"
    yield (
        "runs",
        _ends(
            way["labelbeam"]["steady_docs_per_second"] / way["labelbeam before"]["steady_docs_per_second"]
            for way in runs.values()
        ),
    )
    yield "base_run", f"{runs['BERT-base, papers']['labelbeam']['steady_docs_per_second']:,.0f}"
    yield "base_busy", f"{runs['BERT-base, papers']['labelbeam']['gpu_busy']:.0%}"
    yield "comments_busy", f"{runs['MiniLM-L6, comments']['labelbeam']['gpu_busy']:.0%}"


def _ends(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{found[0]:.1f} to {found[-1]:.1f}"


def papers_bf16() -> Figures:
    """Yield speeds on papers, with AVX512-BF16 and without AMX."""
    of = result("throughput/papers_bf16_without_amx")["contestants"]
    beam = of["Beam RunInference, batch 1"]
    rates = [row["matrix_gflops"] for row in of.values()]
    yield "rates", f"{min(rates):.0f} and {max(rates):.0f}"
    yield "beam_share", f"{beam['share_of_matrix_rate']:.0%}"
    yield "steady_of_beam", f"{of[END_TO_END]['steady_seconds'] / beam['seconds']:.2f}"


def without_bf16() -> Figures:
    """Yield speeds on papers, on a processor without bf16."""
    found = result("throughput/papers_without_bf16")
    of = found["contestants"]
    rates = [row["matrix_gflops"] for row in of.values()]
    speed = {name: row["docs_per_second"] for name, row in of.items()}
    yield "documents", f"{found['workload']['documents']:,}"
    yield "rates", f"{min(rates):.0f} and {max(rates):.0f}"
    yield "ours", f"{speed[OURS]:.1f}"
    yield "ours_int8", f"{speed[OURS_INT8]:.1f}"
    yield "best_rival", f"{speed['torch.compile fp32, sorted']:.1f}"
    yield "best_rival_int8", f"{speed[RIVAL_INT8]:.1f}"
    yield "speedup_over_rival", f"{speed[OURS] / speed['torch.compile fp32, sorted']:.2f}"
    yield "int8_speedup", f"{speed[OURS_INT8] / speed[OURS]:.1f}"
    yield "matrix_share", f"{of[OURS]['share_of_matrix_rate']:.0%}"
    yield "torch_matrix_share", f"{of['labelbeam, torch']['share_of_matrix_rate']:.0%}"


def kernels() -> Figures:
    """Yield where one core spends its time in a batch."""
    found = result("throughput/scaling_kernels")["found"]
    dense, attention = found["milliseconds"]["FullyConnected"], found["milliseconds"]["Subgraph"]
    rate = statistics.median(row["one"] for row in result("throughput/scaling_cores")["found"])
    texts, tokens = found["batch"]
    yield "texts", str(texts)
    yield "tokens", str(tokens)
    yield "all", f"{found['all']:.0f}"
    yield "dense", f"{dense:.0f}"
    yield "attention", f"{attention:.0f}"
    yield "dense_share", f"{2 * DENSE * texts * tokens / 1e6 / dense / rate:.0%}"


def tiles() -> Figures:
    """Yield what a tile that is not filled costs."""
    (row,) = (row for row in result("throughput/scaling_tiles")["found"] if row["tokens"] == 240)
    yield "unfilled", f"{row['+15'] / row['+16'] - 1:.0%}"


def workers() -> Figures:
    """Yield the speed of two processes beside that of one."""
    rows = result("throughput/scaling_workers")["found"]
    one, two = ([r["steady_docs_per_second"] for r in rows if (r["processes"], r["threads"]) == (n, 1)] for n in (1, 2))
    ratios = [f"{b / a:.2f}" for a, b in zip(one, two, strict=True)]
    yield "speedup", f"{', '.join(ratios[:-1])} and {ratios[-1]}"
    cores = sorted(row["ratio"] for row in result("throughput/scaling_cores")["found"])
    yield "cores", f"{cores[0]:.1f} to {cores[-1]:.1f}"


def models() -> Figures:
    """Yield what five models in one run take, in parts of five runs."""
    ratios = result("throughput/scaling_models")["found"]["ratios"]
    yield "five_at_once", f"{ratios['five_at_once / five_runs']:.2f}"
    yield "five_labels", f"{ratios['five_labels_in_one_model / five_runs']:.2f}"


def size() -> Figures:
    """Yield what a corpus a hundred times as large takes."""
    small, large = result("throughput/scaling_size")["found"]
    yield "small_documents", f"{small['documents']:,}"
    yield "large_documents", f"{large['documents']:,}"
    yield "small_mib", str(small["peak_memory_mib"])
    yield "large_mib", str(large["peak_memory_mib"])
    yield "memory_ratio", f"{large['peak_memory_mib'] / small['peak_memory_mib']:.2f}"
    yield "speed_ratio", f"{large['last_tenth'] / large['first_tenth']:.2f}"


def step() -> Figures:
    """Yield the time of an update on long texts, with and without attention dropout."""
    last = result("training/step")["rows"][-1]
    yield "tokens", str(last["tokens"])
    yield "own", f"{last['own']['median']:.1f}"
    yield "none", f"{last['none']['median']:.1f}"


def cost() -> Figures:
    """Yield how far estimates were from what was measured."""
    found = result("cost/cost")["found"]
    yield "worst", f"{max(abs(row['off'][0]) for row in found.values()):.0%}"
    yield "worst_after", f"{max(abs(row['off'][1]) for row in found.values()):.0%}"


def kills() -> Figures:
    """Yield how often a run was killed, and when."""
    found = result("faults/kills")
    killed = [attempt for attempt in found["attempts"] if attempt["killed"]]
    yield "kills", str(len(killed))
    yield "of_workers", str(sum(attempt["worker"] for attempt in killed))
    yield "runs", str(found["tries"])
    yield "slices", str(found["slices"])
    yield "rows", f"{found['rows'][0]['rows']:,}"
    yield "wrong", str(found["wrong"])
    yield "late", str(sum(attempt["finished_after"] > found["slices"] / 2 for attempt in killed))


def leases() -> Figures:
    """Yield how often a command lost its lease, and how soon it ended."""
    found = result("faults/leases")
    yield "tries", str(found["tries"])
    yield "wrong", str(found["wrong"])
    yield "whole", str(sum(row["lease_seconds"] == 120 for row in found["rows"]))
    yield "slowest", f"{max(row['first_ended_after'] for row in found['rows']):.0f}"


def devices() -> Figures:
    """Yield how many bad devices were tried, and how many were not noticed."""
    found = result("faults/devices")
    yield "tries", str(found["tries"])
    yield "noticed", str(sum(row["detected"] for row in found["rows"]))
    yield "wrong", str(found["wrong"])


def storages() -> Figures:
    """Yield how many runs had a bad storage, and how many requests that hit."""
    found = result("faults/storages")
    yield "tries", str(found["tries"])
    yield "hit", f"{sum(row['requests_hit'] for row in found['rows']):,}"
    yield "resumed", str(sum(len(row["exits"]) > 1 for row in found["rows"]))
    yield "wrong", str(found["wrong"])


def clocks() -> Figures:
    """Yield how many pairs of commands had clocks that differ, and by how much at most."""
    found = result("faults/clocks")
    yield "tries", str(found["tries"])
    yield "hours", str(max(abs(one - other) for one, other in (row["hours_ahead"] for row in found["rows"])))
    yield "wrong", str(found["wrong"])


def bits() -> Figures:
    """Yield how many bits of how many kinds of files were flipped, and what came of it."""
    rows = result("faults/bits")["rows"]
    outcomes = [(outcome, count) for row in rows for outcome, count in row["outcomes"].items()]
    yield "kinds", str(len(rows))
    yield "flips", f"{sum(row['flips'] for row in rows):,}"
    for name in ("refused", "verified", "done again", "harmless", "undetected"):
        yield name.replace(" ", "_"), f"{sum(count for outcome, count in outcomes if outcome.startswith(name)):,}"
    yield "wrong", str(sum(row["wrong"] for row in rows))


def drill() -> Figures:
    """Yield what a run of a million documents went through, and how its rows compare with an undisturbed run's."""
    found = result("faults/drill")
    events = [row["event"] for row in found["rows"][:-1]]
    yield "documents", f"{found['documents']:,}"
    yield "slices", str(found["slices"])
    yield "workers_killed", str(events.count("a worker is killed"))
    yield "commands_killed", str(events.count("the command is killed, its workers are not"))
    yield "differ", str(found["rows"][-1]["rows_that_differ"])
    yield "undisturbed", str(found["seconds"][0])
    yield "disturbed", str(found["seconds"][1])


def zombies() -> Figures:
    """Yield how often workers outlived their launcher, and for how long."""
    found = result("faults/zombies")
    yield "tries", str(found["tries"])
    yield "wrong", str(found["wrong"])
    yield "slowest", f"{max(row['seconds_of_orphans'] for row in found['rows']):.0f}"


def startup() -> Figures:
    """Yield how long a command takes to print its help or to refuse a mistake."""
    rows = result("startup/startup")["rows"]
    yield "slowest", f"{max(row['now']['highest'] for row in rows):.2f}"
    before = sorted(row["before"]["median"] for row in rows)
    yield "before", f"{before[0]:.1f} to {before[-1]:.1f}"


def first() -> Figures:
    """Yield how soon ten documents are labelled, and in how much memory."""
    rows = {(row["case"], row["clone"]): row for row in result("startup/first")["rows"]}
    for name, case in {"run": "labelbeam run", "beam": "labelbeam label", "worker": "labelbeam worker"}.items():
        yield name, f"{rows[case, 'now']['seconds']:.1f}"
        yield f"{name}_before", f"{rows[case, 'before']['seconds']:.1f}"
    yield "slice", f"{rows['labelbeam label', 'now']['first_slice']:.1f}"
    yield "ready", f"{rows['ready', 'now']['seconds']:.1f}"
    yield "memory", f"{max(row['peak_mib'] for (_, clone), row in rows.items() if clone == 'now'):.0f}"


def batches() -> Figures:
    """Yield the size of a batch that was chosen."""
    yield "chosen", str(result("throughput/scaling_batches_without_bf16")["found"][0]["chosen"])


def fuzz() -> Figures:
    """Yield how many inputs were tried."""
    found = result("faults/fuzz")
    yield "inputs", f"{found['number_of_executed_units']:,}"
    yield "mb", str(found["peak_rss_mb"])

"""Shows the result files in benchmarks/**/results as Markdown tables."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.throughput.table import cells as contestant_cells
from docs.audit_tables import audit_example, audit_table
from docs.code_tables import mib, table
from docs.figures import OURS, RIVAL, result
from docs.training_tables import checkpointing_table, long_texts_table, memory_table, quality_table, step_table
from inference.cost.pricing import Prices, Work, bill, load_prices

ENGINES = Path(__file__).with_name("engines.json")  # written by `pytest --record`
CORPORA = {  # corpora of the cost benchmark, as the table calls them, and their documents
    "short": ("short: comments", 15_000),
    "long": ("long: titles and abstracts, of which the model reads 64 tokens", 1_500),
    "mixed": ("mixed: half of each", 8_250),
    "compressed": ("compressed: the mixed one in three `.gz` files", 8_250),
    "two models": ("two models on half of the mixed one; the second, a MiniLM-L6, reads 128 tokens", 4_125),
}


def papers_table(name: str = "throughput/papers") -> Iterator[str]:
    """Yield a row for each contestant, the fastest first."""
    found = result(name)
    fastest_first = sorted(found["contestants"].items(), key=lambda item: -item[1]["docs_per_second"])
    speed = f"docs/s (range of {found['rounds']} rounds)" if found["rounds"] > 1 else "docs/s"
    numbers = (speed, "share of matrix rate", "same labels", "CPU ms a document", "peak memory")
    documents = found["workload"]["documents"]
    rows = ([name, *contestant_cells(row, documents)] for name, row in fastest_first)
    yield from table(("contestant", *numbers), rows, numbers)


def tiles_table() -> Iterator[str]:
    """Yield milliseconds per text by length."""
    rows = result("throughput/scaling_tiles")["found"]
    head = tuple(rows[0])
    cells = ([str(row["tokens"]), *(f"{row[key]:.2f}" for key in head[1:])] for row in rows)
    yield from table(head, cells, head[1:])


def growth_table() -> Iterator[str]:
    """Yield whole runs by number of processes, models and documents."""
    numbers = ("seconds", "docs/s without start-up", "peak memory")
    yield from table(("run", *numbers), _growth_rows(), numbers)


def _growth_rows() -> Iterator[list[str]]:
    ways: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in result("throughput/scaling_workers")["found"]:
        ways.setdefault((row["processes"], row["threads"]), []).append(row)
    for (processes, threads), rows in ways.items():
        each = f", {threads} thread{'s' * (threads > 1)} each" if processes > 1 else f", {threads} threads"
        name = f"{processes} process{'es' * (processes > 1)}{each if threads * processes > 1 else ', 1 thread'}"
        seconds, speeds = ([str(row[key]) for row in rows] for key in ("seconds", "steady_docs_per_second"))
        yield [name, ", ".join(seconds), ", ".join(speeds), mib(max(row["peak_memory_mib"] for row in rows))]
    seconds = result("throughput/scaling_models")["found"]["seconds"]
    yield ["five binary models in one run", f"{seconds['five_at_once']:.1f}", "", ""]
    yield ["the same five models, one run each", f"{seconds['five_runs']:.1f}", "", ""]
    yield ["one model with five labels", f"{seconds['five_labels_in_one_model']:.1f}", "", ""]
    for row in result("throughput/scaling_size")["found"]:
        name = f"{row['documents']:,} short texts, a tiny model"
        yield [name, str(row["seconds"]), f"{row['steady_docs_per_second']:,.0f}", mib(row["peak_memory_mib"])]


def papers_bf16_table() -> Iterator[str]:
    """Yield a row for each contestant on a processor with AVX512-BF16 and without AMX."""
    yield from papers_table("throughput/papers_bf16_without_amx")


def papers_avx2_table() -> Iterator[str]:
    """Yield a row for each contestant on a processor without AVX-512."""
    yield from papers_table("throughput/papers_avx2")


def wide_table() -> Iterator[str]:
    """Yield measured speeds on one and two cores, and extrapolated ones on more."""
    rows = [
        [
            f"{row['texts']}, {row['tokens']} tokens",
            *(f"{speed:,.0f}" for speed in row["measured"].values()),
            f"{row['one_process_at_most']:,}",
            *(f"{row['extrapolated'][c]:,} ({row['processes'][c]})" for c in row["extrapolated"]),
        ]
        for row in result("throughput/wide_without_bf16")["found"]
    ]
    measured = ("1 core, measured", "2 cores, measured", "a process at most")
    wide = tuple(f"{cores}, extrapolated" for cores in ("4 cores", "16 cores", "64 cores"))
    yield from table(("texts", *measured, *wide), rows, (*measured, *wide))


def lengths_avx2_table() -> Iterator[str]:
    """Yield speeds by length on a processor without AVX-512."""
    yield from lengths_table("throughput/scaling_lengths_without_bf16")


def lengths_bf16_table() -> Iterator[str]:
    """Yield speeds by length on a processor with AVX512-BF16 and without AMX."""
    yield from lengths_table("throughput/scaling_lengths_bf16")


def lengths_table(name: str = "throughput/scaling_lengths") -> Iterator[str]:
    """Yield speeds by length, and their shares of the matrix rate."""
    rows = []
    for row in result(name)["found"]:
        cells = [f"{row['tokens']}"]
        for contestant in (OURS, RIVAL):
            share = row["gflop"] / row["documents"] * row[contestant] / row["matrix_gflops"]
            cells += [f"{row[contestant]:,.0f}", f"{share:.0%}"]
        rows.append(cells)
    numbers = (OURS, "its share", RIVAL, "its share")
    yield from table(("tokens", *numbers), rows, numbers)


def batches_table() -> Iterator[str]:
    """Yield speeds by length and size of a batch."""
    found = result("throughput/scaling_batches_without_bf16")["found"]
    budgets = [key for key in found[0] if key.isdigit()]
    rows = ([str(row["tokens"]), *(f"{row[budget]:,.0f}" for budget in budgets)] for row in found)
    numbers = tuple(f"{budget} tokens a batch" for budget in budgets)
    yield from table(("tokens of a text", *numbers), rows, numbers)


def gpu_table() -> Iterator[str]:
    """Yield the documents a second of each contestant, by workload."""
    found = result("throughput/gpu")["loops"]
    names = tuple(name for name in next(iter(found.values())) if "fp32" not in name)
    rows = ([workload, *(_range(of[name]) for name in names)] for workload, of in found.items())
    yield from table(("docs/s", *names), rows, names)


def _range(row: dict[str, Any]) -> str:
    low, high = row["range"]
    return f"{row['docs_per_second']:,.0f}" + (f" ({low:,.0f} to {high:,.0f})" if low < high else "")


def gpu_share_table() -> Iterator[str]:
    """Yield tokens a second, the share of the matrix rate and the agreement with fp32, by workload."""
    found, rows = result("throughput/gpu"), []
    for workload in found["workloads"]:
        of = found["loops"][workload["name"]]
        cells = [f"{workload['mean_tokens']:.0f}", f"{of['labelbeam']['tokens_per_second'] / 1e6:.2f} million"]
        cells.append(f"{of['labelbeam']['tflops'] / statistics.mean(found['matrix_tflops']):.0%}")
        same = (f"{of[name]['same_labels']:.1%}" for name in ("labelbeam", "torch bf16, sorted"))
        rows.append([workload["name"], *cells, *same])
    numbers = ("tokens of a text", "tokens/s", "share of matrix rate", "same labels as fp32", "same labels, torch bf16")
    yield from table(("labelbeam", *numbers), rows, numbers)


def gpu_runs_table() -> Iterator[str]:
    """Yield whole runs on a GPU."""
    rows = [
        [workload, name, f"{row['steady_docs_per_second']:,.0f}", f"{row['gpu_busy']:.0%}", f"{row['seconds']:.0f}"]
        for workload, ways in result("throughput/gpu")["file_to_file"].items()
        for name, row in ways.items()
    ]
    numbers = ("docs/s without start-up", "GPU busy", "seconds in all")
    yield from table(("workload", "run", *numbers), rows, numbers)


def cost_table() -> Iterator[str]:
    """Yield estimates beside what was measured."""
    rows = []
    for key, row in result("cost/cost")["found"].items():
        name, documents = CORPORA[key]
        (before, after), (off, _) = row["estimated"], row["off"]
        rows.append(
            [name, f"{documents:,}", f"{before:.0f} s", f"{row['measured']:.0f} s", f"{off:+.0%}", f"{after:.0f} s"]
        )
    numbers = ("documents", "estimated before", "measured", "estimate off by", "estimated after")
    yield from table(("corpus", *numbers), rows, numbers)


def dollars_table() -> Iterator[str]:
    """Yield what a million documents cost by machine type, from measured rates alone."""
    papers, comments = result("throughput/papers"), result("throughput/comments")
    without_bf16 = result("throughput/papers_without_bf16")
    measured: dict[str, list[float | None]] = {
        "c3-highcpu-8": [_per_core(papers), _per_core(comments)],
        "n2-standard-8": [_per_core(without_bf16), None],
    }
    prices = load_prices()
    rows = []
    for name in ("c3-highcpu-8", "n2-standard-8", "g2-standard-8", "n1-standard-8+t4", "a2-highgpu-1g"):
        found = measured.get(name, [None, None])
        bills = [_million(prices, name, rate) for rate in found]
        rows.append([f"`{name}`", *bills])
    yield from table(["machine type", "a million papers", "a million comments"], rows)


def _per_core(found: dict[str, Any]) -> float:
    """Return documents per second and core of a run without its start."""
    seconds = found["contestants"]["labelbeam, openvino, file to file"]["steady_seconds"]
    return float(found["workload"]["documents"] / seconds / found["hardware"]["cores"])


def _million(prices: Prices, machine: str, rate: float | None) -> str:
    """Return the bills of a million documents, standard and FlexRS, from documents per second and core."""
    if rate is None:
        return "not measured"
    work = Work(documents=1e6, slices=1_000, processor_seconds=1e6 / rate)
    return ", ".join(f"${bill(prices, machine, 1, work, way).total:.2f}" for way in ("standard", "FlexRS"))


def startup_table() -> Iterator[str]:
    """Yield the seconds of each command that imports nothing heavy, at an earlier commit and now."""
    found = result("startup/startup")
    head = ("typed", "seconds", f"seconds at {found['before']}")
    rows = (
        [f"`{row['module']}`, {row['case']}", f"{row['now']['median']:.2f}", f"{row['before']['median']:.2f}"]
        for row in found["rows"]
    )
    yield from table(head, rows, head[1:])


def first_table() -> Iterator[str]:
    """Yield how soon ten documents are labelled, and in how much memory, at an earlier commit and now."""
    found = result("startup/first")
    by_case: dict[str, dict[str, dict[str, float]]] = {}
    for row in found["rows"]:
        by_case.setdefault(row["case"], {})[row["clone"]] = row
    rows = []
    for case, of in by_case.items():
        name = "a worker of Beam's is ready" if case == "ready" else f"`{case}`"
        for key, unit in (("first_slice", "first slice"), ("seconds", "all")):
            if key in of["now"]:
                what = name if case == "ready" else f"{name}, {unit}"
                times = [f"{of[clone][key]:.1f} s" for clone in ("now", "before")]
                rows.append([what, *times, *(mib(of[clone]["peak_mib"]) for clone in ("now", "before"))])
    before = found["before"]
    yield from table(
        ("what", "now", f"at {before}", "peak memory", f"at {before}"),
        rows,
        ("now", f"at {before}", "peak memory", f"at {before}"),
    )


def shapes_table() -> Iterator[str]:
    """Yield a row for each way to store a text, with an earlier commit beside where it was run."""
    found = result("scale/shapes")
    rows: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for row in found["rows"]:
        rows.setdefault((row["shape"], row["mib"]), {})[row["commit"]] = row
    numbers = ("MiB of text", "seconds", "CPU seconds", "peak memory", f"seconds at {found['before']}", "CPU seconds")
    cells = (
        [shape, str(size), *_run_cells(by["now"]), mib(by["now"]["peak_mib"]), *_run_cells(by.get("before"))]
        for (shape, size), by in rows.items()
    )
    yield from table(("text", *numbers), cells, numbers)


def _run_cells(row: dict[str, float] | None) -> list[str]:
    return [f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}"] if row else ["", ""]


def entry_table() -> Iterator[str]:
    """Yield the CPU seconds of each way to read the slices of a .gz file."""
    numbers = ("CPU s to count", "CPU s to read the slices", "MiB kept")
    rows = (
        [row["way"], f"{row['count_seconds']:.1f}", f"{row['read_seconds']:.1f}", str(row.get("kept_mib", ""))]
        for row in result("scale/entry")["rows"]
    )
    yield from table(("way", *numbers), rows, numbers)


def resume_table() -> Iterator[str]:
    """Yield the seconds until a resume of a large run has its first new slice."""
    rows = (
        [row["what"], *(str(row.get(key, "")) for key in ("first_slice_seconds", "seconds", "requests"))]
        for row in result("scale/resume")["rows"]
    )
    numbers = ("s to the first new slice", "s in all", "requests")
    yield from table(("command", *numbers), rows, numbers)


def simulate_table() -> Iterator[str]:
    """Yield what a launcher does with the receipts of very large runs."""
    numbers = ("slices", "labels", "MB of slices.json", "s to list receipts", "s to write the summary", "peak memory")
    rows = (
        [
            f"{row['documents'] / 1e6:,.0f} million",
            *(f"{row[key]:,}" for key in ("slices", "labels", "list_mib")),
            *(f"{row[key]:.1f}" for key in ("listing_seconds", "summary_seconds")),
            mib(row["peak_mib"]),
        ]
        for row in result("scale/simulate")["rows"]
    )
    yield from table(("documents", *numbers), rows, numbers)


def lines_table() -> Iterator[str]:
    """Yield the CPU time of lines, texts and labels, beside an earlier commit."""
    found = result("scale/texts")
    numbers = ("now", f"at {found['before']}")
    yield from table(("what", *numbers), _line_rows(found["rows"]), numbers)


def _line_rows(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        now, before = row["now"], row["before"]
        match row["case"]:
            case "lengths":
                name = f"10,000 words against 512 tokens, of which {now['max_tokens']} are read"
                yield [name, *(f"{each['ratio']:.2f} times" for each in (now, before))]
            case "integers":
                yield from (
                    [f"a line to parse: {kind}", f"{now[kind]:.1f} µs", f"{before[kind]:.1f} µs"]
                    for kind in now
                    if kind != "peak_mib"
                )
            case "labels":
                name = f"14,000 documents and 1,212 labels: {now['format']}, --scores {now['scores']}"
                yield [name, *(f"{each['seconds']:.1f} s, {mib(each['peak_mib'])}" for each in (now, before))]
            case "metrics":
                yield from (
                    [f"{kind} of 1,212 labels in training", f"{now[kind]:.1f} s", f"{before[kind]:.1f} s"]
                    for kind in ("thresholds", "measure", "ranking", "intervals")
                )


def token_ids_table() -> Iterator[str]:
    """Yield how many texts were cut, and how many of them got other token ids than the whole text."""
    found = result("scale/token_ids")
    numbers = ("texts", "cut", "differences")
    rows = (
        [row["tokenizer"], ", ".join(row["cleaning"])]
        + [f"{count:,}" for count in (found["texts"], row["cut"], row["differences"])]
        for row in found["rows"]
    )
    yield from table(("tokenizer", "cleaning", *numbers), rows, numbers)


def engines_table() -> Iterator[str]:
    """Yield a row for each thing that a test has shown on an engine."""
    records = json.loads(ENGINES.read_text(encoding="utf-8"))
    names = ("engine", "shown", "where", "date", "commit", "command")
    rows = [[str(record[name]) for name in names[:-1]] + [f"`{record['command']}`"] for record in records]
    yield from table(["engine", "what was seen", "where", "when", "commit", "command"], rows)


PARTS = {
    "engines": engines_table,
    "audit": audit_table,
    "audit_example": audit_example,
    "quality": quality_table,
    "long_texts": long_texts_table,
    "step": step_table,
    "memory": memory_table,
    "checkpointing": checkpointing_table,
    "papers": papers_table,
    "papers_bf16": papers_bf16_table,
    "papers_avx2": papers_avx2_table,
    "wide": wide_table,
    "lengths_avx2": lengths_avx2_table,
    "lengths_bf16": lengths_bf16_table,
    "tiles": tiles_table,
    "growth": growth_table,
    "lengths": lengths_table,
    "batches": batches_table,
    "first": first_table,
    "gpu": gpu_table,
    "gpu_share": gpu_share_table,
    "gpu_runs": gpu_runs_table,
    "cost": cost_table,
    "dollars": dollars_table,
    "startup": startup_table,
    "shapes": shapes_table,
    "entry": entry_table,
    "resume": resume_table,
    "simulate": simulate_table,
    "lines": lines_table,
    "token_ids": token_ids_table,
}

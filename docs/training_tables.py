"""Shows the result files of trainings, in benchmarks/quality and benchmarks/training, as Markdown tables."""

from collections.abc import Iterator

from benchmarks.quality.table import rows as quality_rows
from docs.code_tables import mib, table
from docs.figures import CONFIGURATIONS, result


def quality_table() -> Iterator[str]:
    """Yield a row for each configuration, and one for each label if there are few."""
    rows = []
    for name in CONFIGURATIONS:
        found = result(f"quality/{name}")
        trained = [f"{found['documents']['train']:,}", f"{found['model']['seconds'] / 60:.0f} min"]
        for of, values in quality_rows(found):
            rows.append([name, of, *values, *trained] if of == "macro" else ["", of, *values, "", ""])
    numbers = ("at 0.5", "precision", "recall", "baseline's F1", "trained on", "time")
    yield from table(("configuration", "label", "F1 (95% interval)", *numbers), rows, right=numbers)


def long_texts_table() -> Iterator[str]:
    """Yield macro-F1 for each way of reading long texts."""
    rows = (
        [row["name"], "{:.3f} ({:.3f} to {:.3f})".format(row["macro_f1"], *row["interval"])]
        for row in result("quality/long_texts")["rows"]
    )
    yield from table(("what is read", "macro-F1 (95% interval)"), rows)


def memory_table() -> Iterator[str]:
    """Yield the peak memory of a training by its number of papers."""
    rows = [
        [f"{row['papers']:,}", mib(row["prepared"]), mib(row["trained"])] for row in result("training/memory")["rows"]
    ]
    numbers = ("after the preparation", "after tokens and two updates")
    yield from table(("papers", *numbers), rows, numbers)


def step_table() -> Iterator[str]:
    """Yield the seconds of an update by length."""
    rows = (
        [str(row["tokens"]), _seconds(row["own"]), _seconds(row["none"])] for row in result("training/step")["rows"]
    )
    yield from table(("tokens", "the encoder's own dropout, 0.1", "none"), rows)


def _seconds(row: dict[str, float]) -> str:
    return f"{row['median']:.1f} s ({row['lowest']:.1f} to {row['highest']:.1f})"


def checkpointing_table() -> Iterator[str]:
    """Yield memory and time of an update with and without gradient checkpointing, by length."""
    found = {(row["tokens"], row["checkpointing"]): row for row in result("training/checkpointing")["rows"]}
    rows = []
    for tokens in sorted({tokens for tokens, _ in found}):
        without, using = found[tokens, False], found[tokens, True]
        peaks = mib(without["peak_memory_mib"]), mib(using["peak_memory_mib"])
        rows.append([str(tokens), *peaks, f"{without['seconds']:.1f} s", f"{using['seconds']:.1f} s"])
    numbers = ("memory without", "memory with", "an update without", "an update with")
    yield from table(("tokens", *numbers), rows, numbers)

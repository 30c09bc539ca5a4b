"""Draws the report's charts with matplotlib, as SVG that takes its colours from the page, in light and in dark."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len, set_cell_size
from sklearn.metrics import precision_recall_curve

from models.decision import Floats
from models.labels import Task
from models.names import for_terminal
from training import calibrate
from training.measurement import Measurement

# Stand-ins for colours. The SVG's text exchanges them for the page's CSS variables. Everybody can tell blue and orange
# apart.
INK, MUTED, LINE, BLUE, ORANGE = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", BLUE: "--blue", ORANGE: "--orange"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "labelbeam",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
MOST_PANELS = 28  # labels with a precision-recall curve; the most frequent ones come first
MOST_NAMED = 16  # rows of a heat map up to which its cells have room for numbers


def curves(history: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Draw the losses of training and validation, and the chosen metric, over epochs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 2.7), layout="constrained")
        losses, chosen = figure.subplots(1, 2)
        _line(losses, history, "loss", BLUE, "training")
        _line(losses, history, "eval_loss", ORANGE, "validation", marker="o")
        losses.set(title="Loss", xlabel="epoch", ylabel="loss")
        losses.legend()
        if metric != "loss":
            _line(chosen, history, f"eval_{metric}", ORANGE, metric, marker="o")
        _line(chosen, history, "eval_average_precision", BLUE, "average precision", marker="o")
        chosen.set(title="Validation", xlabel="epoch", ylabel="metric")
        chosen.legend()
        return _svg(figure)


def _line(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, color: str, label: str, **style: Any) -> None:
    points = [(row["epoch"], row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, label=label, markersize=4, **style)


def precision_recall(measurement: Measurement, thresholds: Mapping[str, float]) -> str:
    """Draw precision over recall in a panel for each label, with the point at the model's threshold if it has one."""
    known = measurement.examples.known
    documents, support = known.sum(axis=0), measurement.examples.positive.sum(axis=0)

    def draw(axes: Axes, i: int) -> None:
        name = measurement.labels.names[i]
        truth, probs = (of_all[known[:, i], i] for of_all in (measurement.examples.targets, measurement.probs))
        precision, recall, _ = precision_recall_curve(truth, probs)
        axes.step(recall, precision, where="post", color=BLUE, linewidth=1.4)
        axes.axhline(support[i] / documents[i], color=MUTED, linewidth=0.8, linestyle=":")
        if name in thresholds:
            of_label = measurement.metrics["labels"][name]
            axes.plot(of_label["recall"], of_label["precision"], "o", color=ORANGE, markersize=5)
        axes.set_title(_short(name, 26))

    return _panels(measurement, draw, "recall", "precision")


def reliability_by_label(measurement: Measurement) -> str:
    """Draw the share that came true over the mean score of each bin, in a panel for each label with its error."""

    def draw(axes: Axes, i: int) -> None:
        known = measurement.examples.known[:, i]
        means, shares, weights = calibrate.reliability(
            measurement.probs[known, i], measurement.examples.targets[known, i]
        )
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=":")
        axes.plot(means, shares, color=ORANGE, linewidth=1.2)
        axes.scatter(means, shares, s=4 + 60 * np.sqrt(weights), color=ORANGE, alpha=0.7, linewidths=0)
        name = measurement.labels.names[i]
        axes.set_title(f"{_short(name, 20)} {measurement.metrics['labels'][name]['calibration_error']:.3f}")

    return _panels(measurement, draw, "score", "share that came true")


def _panels(measurement: Measurement, draw: Callable[[Axes, int], None], across: str, up: str) -> str:
    """Draw a panel from 0 to 1 for each label that some documents have and others have not, the most frequent first."""
    documents, support = measurement.examples.known.sum(axis=0), measurement.examples.positive.sum(axis=0)
    shown = [i for i in np.argsort(-support, kind="stable")[:MOST_PANELS] if 0 < support[i] < documents[i]]
    columns = min(4, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.9 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(shown) :]:
            axes.axis("off")
        for axes, i in zip(panels.flat, shown, strict=False):
            draw(axes, i)
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        figure.supxlabel(across, fontsize=9, color=MUTED)
        figure.supylabel(up, fontsize=9, color=MUTED)
        return _svg(figure)


def reliability(measurement: Measurement, task: Task) -> str:
    """Draw the share that came true over the mean score of each bin, before and after the calibration.

    The size of a dot stands for the number of documents in the bin.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=":")
        targets = measurement.examples.targets
        for probs, color, label in ((measurement.raw_probs, BLUE, "before"), (measurement.probs, ORANGE, "after")):
            means, shares, weights = calibrate.reliability(*calibrate.outcomes(probs, targets, task))
            axes.plot(means, shares, color=color, label=label, linewidth=1.2)
            axes.scatter(means, shares, s=8 + 160 * np.sqrt(weights), color=color, alpha=0.7, linewidths=0)
        axes.set(xlabel="score", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")
        return _svg(figure)


def heat_map(shares: Floats, counts: Floats, names: Sequence[str]) -> str:
    """Draw a square of cells, each as dark as its share from 0 to 1. With few rows, cells show their counts."""
    side = min(8.6, 2.2 + 0.36 * len(names))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(side, side * 0.92), layout="constrained")
        axes = figure.subplots()
        for row in range(len(names)):
            for column in range(len(names)):
                alpha = float(shares[row, column])
                if alpha >= 0.005:
                    axes.add_patch(mpl.patches.Rectangle((column, row), 1, 1, color=BLUE, alpha=alpha, linewidth=0))
                if len(names) <= MOST_NAMED and counts[row, column]:
                    number = f"{int(counts[row, column]):,}"
                    axes.text(column + 0.5, row + 0.5, number, ha="center", va="center", fontsize=8)
        places = np.arange(len(names)) + 0.5
        short = [_short(name, 22) for name in names]
        axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="predicted", ylabel="true")
        axes.set_xticks(places, short, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(places, short, fontsize=8)
        axes.tick_params(length=0)
        return _svg(figure)


def _short(name: str, most: int) -> str:
    """Return the name in at most this many columns, of which a letter of China, Japan or Korea takes two."""
    name = for_terminal(name)  # a browser can draw control characters as little as a terminal can
    return name if cell_len(name) <= most else f"{set_cell_size(name, most - 1).rstrip()}…"


def _svg(figure: Figure) -> str:
    """Return the figure's <svg> element: transparent, as wide as its place, in the page's colours."""
    file = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the text, with the reader's fonts. Here, fonts without a label's letters change nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing|Matplotlib currently does not support")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg.replace("\n", " "), count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| xlink:(?=href)', " ", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg

"""Every configuration that comes along trains on data of the kind that it was written for."""

import csv
import itertools
import json
import lzma
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import trained_model
from training import train

pytestmark = [pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")]

SHARED = Path(__file__).parents[3] / "shared" / "data"
CONFIGS = Path(__file__).parents[2] / "training" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml") if path.stem not in ("demo", "own_labels"))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled collections are not on this machine")
@pytest.mark.parametrize("name", ["goemotions", "arxiv_subjects"])
def test_the_configurations_run_on_the_data_they_were_written_for(tmp_path: Path, name: str) -> None:
    config = CONFIGS / f"{name}.toml"
    flags = ["--set", "training.max_train_samples=64", "--set", "training.epochs=1"]
    if name == "arxiv_subjects":
        flags += ["--set", "data.split.validation=0.002", "--set", "data.split.test=0.002"]
    command: list[Any] = [config, "--data_dir", published(tmp_path / "data", None), "--output", tmp_path / "m", *flags]
    assert train.main([str(part) for part in command]) == 0
    metrics = json.loads((tmp_path / "m" / "model.json").read_text())["metrics"]
    assert metrics["test"]["documents"] > 50


def published(folder: Path, rows: int | None) -> Path:
    """Make a data folder with the first rows of the labelled collections, under the names that they have upstream."""
    for source in (*SHARED.glob("*/*"), *SHARED.glob("*/*/*")):
        if not source.is_file():
            continue
        path = folder / source.relative_to(SHARED)
        path = (
            path.with_name("emotions.txt")
            if source.parent.name == "goemotions" and source.name == "labels.txt"
            else path
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if rows is None or source.name == "labels.txt":
            path.symlink_to(source)
        elif source.suffix in (".xz", ".tsv", ".txt"):
            opened = lzma.open if source.suffix == ".xz" else open
            with opened(source, "rt", encoding="utf-8") as lines, opened(path, "wt", encoding="utf-8") as kept:
                kept.writelines(_some(lines, rows) if source.suffix == ".tsv" else itertools.islice(lines, rows))
    return folder


def _some(lines: Iterable[str], rows: int) -> Iterator[str]:
    """Yield the first lines, and later ones until each emotion has had eight."""
    seen: Counter[str] = Counter()
    for number, line in enumerate(lines):
        emotions = line.split("\t")[1].split(",")
        if number < rows or any(seen[one] < 8 for one in emotions):
            seen.update(emotions)
            yield line


def sdg_rows(path: Path) -> None:
    """Write generated texts in the form of the OSDG Community Dataset: tabs, votes, and an agreement."""
    chance = random.Random(0)
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["doi", "text_id", "text", "sdg", "labels_negative", "labels_positive", "agreement"])
        for number in range(480):
            goal, no = 1 + number % 16, chance.randrange(4)
            text = f"goal{goal} target{goal} {' '.join(f'word{chance.randrange(999)}' for _ in range(12))}"
            writer.writerow(["10.1/x", f"t{number}", text, goal, no, 8 - no, abs(8 - 2 * no) / 8])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled collections are not on this machine")
@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_trains_on_some_rows_of_its_data(name: str, tmp_path: Path, base: Path) -> None:
    config = CONFIGS / f"{name}.toml"
    data = published(tmp_path / "data", 400)
    sdg_rows(data / "sdg" / "osdg-community-data.csv")
    short = ["training.epochs=1", "training.max_train_samples=400", "text.max_tokens=16", "training.batch_size=16"]
    short += ["data.near_duplicate=1.0", "data.subsample=1.0", "model.pooling=mean", "training.attention_dropout=0.1"]
    if name.startswith("arxiv") or name == "debug":
        short += ["data.split.validation=0.2", "data.split.test=0.2"]
    words = [
        str(config),
        "--data_dir",
        str(data),
        "--output",
        str(tmp_path / "m"),
        "--set",
        f"model.base={base}",
        *short,
    ]
    assert train.main(words) == 0
    manifest = trained_model.verify(tmp_path / "m")
    assert manifest.metrics["test"]["documents"] > 20
    assert (tmp_path / "m" / "report.html").is_file()

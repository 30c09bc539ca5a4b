"""Flips one bit of a file, for every kind of file, and looks whether anybody notices.

    python -m benchmarks.faults.bits

A flip in a model or a conversion is followed by a new run, one in a run by `verify` and by the same command again, and
one in a delta by `collect`. Outcomes:
    refused      the command ended with an exit code and a sentence
    verified     `verify` names the file
    done again   nothing was said, and the file or its slice was made again: the result is right
    harmless     the file means what it meant, such as with other white space
    undetected   the file means something else, and nobody noticed
An undetected flip counts as wrong if a new run then gives other labels with exit code 0. Writes results/bits.json.
"""

import contextlib
import gc
import io
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import stage
from inference import beam_runner, collect, delta, verify
from inference.scoring.conversion_folder import FOLDER
from tests.tiny import tiny_model

DOCUMENTS = 600
FLIPS = 40
FLAGS = ("--slice_mb=0.01", "--threads=1", "--precision=fp32", "--max_failure_rate=0.1", "--runner=FnApiRunner")
RUNTIMES = ("torch", "openvino", "onnxruntime")
Main = Callable[[list[str]], int]
Outcome = tuple[str, bool]  # what happened, and whether it is wrong


def main() -> None:
    """Flip bits in every kind of file."""
    parser = stage.parser(__doc__)
    parser.add_argument("--flips", type=int, default=FLIPS)
    flags = parser.parse_args()
    flips, rows = 1 if flags.smoke else flags.flips, []
    with tempfile.TemporaryDirectory(prefix="bits_") as folder:
        bench = Bench(Path(folder))
        for kind, (path, judge) in bench.kinds().items():
            chance = random.Random(f"{flags.seed} {kind}")
            of_kind = max(flips // 4, 1) if kind.startswith("onnx") else flips  # this conversion takes seconds
            found = [flip(path, chance, judge) for _ in range(of_kind)]
            outcomes = dict(Counter(outcome for _, outcome, _ in found))
            places = sorted({context for context, outcome, _ in found if outcome == "undetected"})
            rows.append({"kind": kind, "flips": of_kind, "outcomes": outcomes, "undetected_at": places})
            rows[-1]["wrong"] = sum(wrong for _, _, wrong in found)
            print(rows[-1], flush=True)
            gc.collect()
    stage.save("bits", flags, rows)


def flip(path: Path, chance: random.Random, judge: Callable[[], Outcome]) -> tuple[str, str, bool]:
    """Flip one bit, and put the file back. Return its surroundings, what happened, and whether it is wrong."""
    good = path.read_bytes()
    place = chance.randrange(len(good))
    flipped = good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1 :]
    path.write_bytes(flipped)
    try:
        outcome, wrong = judge()
        if outcome == "undetected" and means_the_same(good, flipped):
            outcome, wrong = "harmless", wrong
        return repr(flipped[max(place - 40, 0) : place + 10]), outcome, wrong
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(good)


def means_the_same(good: bytes, flipped: bytes) -> bool:
    """Return whether two files hold the same JSON, or the same JSON lines."""
    with contextlib.suppress(ValueError):
        return bool(json.loads(good) == json.loads(flipped))
    return False


def command(main: Main, *arguments: object) -> tuple[int, str]:
    """Run a command in this process. Return its exit code and what it said; -1 and the exception if it raised one."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            return main([str(argument) for argument in arguments]), said.getvalue()
        except Exception as error:  # a traceback is a finding, too
            return -1, f"{type(error).__name__}: {error}"


class Bench:
    """A model with its conversions, a run, a delta and a run on the delta, all undamaged between two flips."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.corpus = stage.write_corpus(work / "corpus.jsonl", DOCUMENTS)
        self.model = tiny_model(work / "colours")
        self.good = {runtime: self.label(work / f"good_{runtime}", runtime) for runtime in RUNTIMES}
        self.run = self.label(work / "run", "torch")
        later = work / "later.jsonl"
        lines = self.corpus.read_bytes().splitlines(keepends=True)
        later.write_bytes(b"".join([*lines[200:], json.dumps({"id": "new", "text": "a red rose"}).encode() + b"\n"]))
        self.delta = work / "delta"
        given = ("--input", later, "--previous", self.run, "--output", self.delta, "--runner=FnApiRunner", "--json")
        code, said = command(delta.main, *given)
        assert code == 0, said
        words = json.loads(said[said.index("{") :])["command"]
        code, said = command(beam_runner.main, *words[3:], "--threads=1", "--max_failure_rate=1")
        assert code == 0, said
        self.of_delta = words[words.index("--output") + 1]
        self.labels = self.collected(work / "labels")

    def label(self, output: Path, runtime: str) -> Path:
        """Label the corpus."""
        code, said = self.try_to_label(output, runtime)
        assert code == 0, said
        return output

    def try_to_label(self, output: Path, runtime: str) -> tuple[int, str]:
        """Label the corpus with a model that may be damaged."""
        given = ("--model", self.model, "--input", self.corpus, "--output", output, "--runtime", runtime)
        return command(beam_runner.main, *given, *FLAGS)

    def kinds(self) -> dict[str, tuple[Path, Callable[[], Outcome]]]:
        """Return a file of each kind, and what judges a flip in it."""
        names = ("model.pth", "config.json", "tokenizer.json", "tokenizer_config.json", "model.json")
        found = {name: (self.model / name, self.new_run("torch")) for name in names}
        found["model.json of a resumed run"] = (self.model / "model.json", self.same_run)
        for folder in sorted((self.model / FOLDER).iterdir()):
            runtime = "openvino" if folder.name.startswith("openvino") else "onnxruntime"
            for path in sorted(folder.iterdir()):
                found[f"{runtime} {path.name}"] = (path, self.new_run(runtime))
        for name in ("run.json", "summary.json", "receipts", "predictions", "failures"):
            path = self.run / name
            found[name] = (path if path.is_file() else min(path.iterdir()), self.looked_at)
        found["delta.json"] = (self.delta / "delta.json", self.collected_again)
        found["kept rows"] = (min((self.delta / "kept").iterdir()), self.collected_again)
        return found

    def new_run(self, runtime: str) -> Callable[[], Outcome]:
        """Return a function that labels the corpus anew and compares."""
        before = self.files(self.model)

        def judge() -> Outcome:
            damaged = self.files(self.model)
            output = self.work / "new"
            shutil.rmtree(output, ignore_errors=True)
            code, said = self.try_to_label(output, runtime)
            if code:
                return ("refused", False) if code in (1, 2) else (f"raised {said[:80]}", True)
            different = stage.compare(str(output), str(self.good[runtime]))["rows_that_differ"] > 0
            made_again = self.files(self.model) != damaged
            shutil.rmtree(self.model / FOLDER)  # as it was before, because a flip is put back
            for path, content in before.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return ("done again" if made_again and not different else "undetected"), different

        return judge

    @staticmethod
    def files(folder: Path) -> dict[Path, bytes]:
        """Return the content of every file below a folder."""
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def same_run(self) -> Outcome:
        """Resume the run with a damaged model."""
        code, _ = self.try_to_label(self.run, "torch")
        return ("refused", False) if code else ("undetected", False)

    def looked_at(self) -> Outcome:
        """Verify the run, repeat its command, and compare."""
        damaged = self.files(self.run)
        found, _ = command(verify.main, self.run)
        code, said = self.try_to_label(self.run, "torch")
        again, _ = command(verify.main, self.run)
        if code < 0 or found < 0 or again < 0:
            return f"raised {said[:80]}", True
        repeated = "refused" if code else "the same command does it again" if again == 0 else "stays"
        different = code == 0 and stage.compare(str(self.run), str(self.good["torch"]))["rows_that_differ"] > 0
        for path in self.files(self.run):
            path.unlink()
        for path, content in damaged.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if found:
            return f"verified; {repeated}", False
        return "undetected", different

    def collected_again(self) -> Outcome:
        """Collect the labels of the delta's corpus, and compare them with those of the undamaged delta."""
        output = self.work / "again"
        shutil.rmtree(output, ignore_errors=True)
        code, said = command(collect.main, self.of_delta, "--output", output)
        if code:
            return ("refused", False) if code in (1, 2) else (f"raised {said[:80]}", True)
        return "undetected", self.rows(output) != self.labels

    def collected(self, output: Path) -> list[bytes]:
        """Collect the labels of the delta's corpus."""
        code, said = command(collect.main, self.of_delta, "--output", output)
        assert code == 0, said
        return self.rows(output)

    @staticmethod
    def rows(output: Path) -> list[bytes]:
        """Return all rows of a collection."""
        files = [*output.glob("predictions/*"), *output.glob("failures/*")]
        return sorted(line for path in files for line in path.read_bytes().splitlines())


if __name__ == "__main__":
    main()

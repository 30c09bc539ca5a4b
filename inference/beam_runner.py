"""Labels a corpus with Apache Beam.

python -m inference.beam_runner --model models/trained/demo --input data/demo/corpus.jsonl --output runs/demo
"""

import logging
import sys
from collections.abc import Sequence

import apache_beam as beam
from rich.console import Console

from inference import config, pipeline, run_folder, summary
from inference.config import Command
from inference.progress import ProgressWatcher
from models.errors import exit_code

GO_ON = "Finished slices are kept: the same command goes on where this one stopped."


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, checks, runs, summarises. Returns 0 done, 1 failed, 2 wrong use, 3 too many failures."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return exit_code(lambda: run(config.parse(sys.argv[1:] if argv is None else argv)))
    except KeyboardInterrupt:
        print(f"\nstopped. {GO_ON}", file=sys.stderr)
        return 1


def run(command: Command) -> int:
    """Runs a checked command and prints its summary."""
    output = command.options.output
    print(f"{command.runtime}: {command.runtime.reason}" if command.runtime else "each worker chooses its runtime")
    with run_folder.claim(command.options, command.run, command.overwrite):
        with ProgressWatcher(output, command.files, command.options.limit) as progress:
            try:
                with beam.Pipeline(options=command.beam) as p:
                    pipeline.build(p, command.options)
            except Exception as error:  # whatever a runner raises; what it says is all that is known
                print(f"{error}\nfailed: {type(error).__name__}. {GO_ON}", file=sys.stderr)
                return 1
        return report(command, progress)


def report(command: Command, progress: ProgressWatcher) -> int:
    """Prints what was done and where it lies; the exit code says whether too much failed."""
    totals = summary.read(command.options.output)
    console = Console()
    summary.show(totals, console)
    seconds = progress.seconds
    console.print(
        f"{progress.documents:,} documents in {seconds:,.0f} s: {progress.documents / seconds:.1f} docs/s, "
        f"start-up included\npredictions, failures and receipts: {command.options.output}",
        highlight=False,
    )
    if totals["failure_rate"] > command.max_failure_rate:
        print(
            f"{totals['failure_rate']:.2%} of the documents failed, more than --max_failure_rate "
            f"{command.max_failure_rate:.2%}: see {command.options.output}/failures",
            file=sys.stderr,
        )
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())

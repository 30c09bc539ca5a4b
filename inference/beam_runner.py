"""Labels a corpus with Apache Beam.

python -m inference.beam_runner --model models/trained/demo --input data/demo/corpus.jsonl --output runs/demo
"""

import logging
import re
import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions
from rich.console import Console

from inference import command_line, config, pipeline, report, run_folder, summary
from inference.config import Command
from inference.progress import ProgressWatcher
from models.errors import UserError, exit_code

# One of our own exceptions at the end of a traceback: its message says it all.
OURS = re.compile(r"^(?:models|inference)\.\w+\.\w+: (.+) \[while running '[^']+'\]$", re.MULTILINE)
INTERRUPTED = "KeyboardInterrupt [while running"  # Ctrl-C, as Beam passes it on from a step
GO_ON = "Finished slices are kept: the same command goes on where this one stopped."


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, checks, runs, summarises. Returns 0 done, 1 failed, 2 wrong use, 3 too many failures."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    flags = list(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: run(config.parse(flags)), GO_ON)


def run(command: Command) -> int:
    """Runs a checked command and prints its summary: for people, or as one JSON object for a machine."""
    if command.loudness == "verbose":
        logging.getLogger().setLevel(logging.INFO)
    else:
        logging.getLogger("apache_beam.runners.common").addFilter(_without_traces)
    console = Console(stderr=command.json, quiet=command.loudness == "quiet")
    if command.plan or command.launch:
        from inference import plan  # what it needs takes a second to load

        offer = plan.show(command, console)
        if offer:
            command.run["estimate"] = {"dollars": offer.bill.total, "low": offer.low, "high": offer.high}
    if command.plan:
        if command.json:
            command_line.print_json(command.run)
        return 0
    runtime = f"{command.runtime}: {command.runtime.reason}" if command.runtime else "each worker chooses its runtime"
    console.print(runtime, highlight=False, soft_wrap=True)
    output = command.options.output
    with run_folder.claim(command.options, command.run, command.overwrite):
        with ProgressWatcher(output, command.files, command.options.limit, command.loudness) as progress:
            ended = _run_pipeline(command, console)
        try:
            return finish(command, progress, console) if ended is None else ended
        except UserError as error:  # the disk may be full: not what the code of wrong use is for
            return _failed(str(error), command)


def _run_pipeline(command: Command, console: Console) -> int | None:
    """Runs the pipeline to its end: None. An exit code where the command ends before, or the pipeline failed."""
    try:
        p = beam.Pipeline(options=command.beam)
        pipeline.build(p, command.options)
        result = p.run()
        if command.launch and result.has_job:  # a flex template's launcher writes the job down, no more
            console.print(job_line(result.job_id(), command), highlight=False, soft_wrap=True)
        if not command.wait:
            return 0
        result.wait_until_finish()
    except KeyboardInterrupt:
        if not command.launch:
            raise
        print("\nno longer watched: a job that was submitted goes on", file=sys.stderr)
        return 1
    except Exception as error:  # whatever a runner raises; what it says is all that is known
        if INTERRUPTED in str(error):
            raise KeyboardInterrupt from None
        # A runner in this process raises what a step raised, one with workers the text of their traceback.
        ours = OURS.search(f"{type(error).__module__}.{type(error).__name__}: {error}")
        return _failed(ours[1] if ours else f"{error}\n{type(error).__name__}.", command)
    return None


def _failed(message: str, command: Command) -> int:
    print(f"failed: {message} {GO_ON}\n{command.run['command']}", file=sys.stderr)
    return 1


def _without_traces(record: logging.LogRecord) -> bool:
    """A filter: drops what Beam logs of Ctrl-C, and of a mistake whose message says it all; the end tells of both."""
    known = isinstance(record.exc_info[1], UserError) if record.exc_info else False
    return not (known or INTERRUPTED in record.getMessage())


def job_line(job_id: str, command: Command) -> str:
    """Where to look at a job on Dataflow, and how to stop it: ending this process does not."""
    cloud = command.beam.view_as(GoogleCloudOptions)
    return (
        f"job {job_id}: https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job_id}?project={cloud.project}\n"
        f"to stop it: gcloud dataflow jobs cancel {job_id} --region {cloud.region} --project {cloud.project}"
    )


def finish(command: Command, progress: ProgressWatcher, console: Console) -> int:
    """Writes the report, prints what was done and where it lies; the exit code says whether too much failed."""
    totals = summary.read(command.options.output)
    if totals is None:
        return _failed("the runner ended without a summary.", command)
    summary.show(totals, console)
    seconds, page = progress.seconds, report.write(command.options.output)
    console.print(
        f"{progress.documents:,} documents in {seconds:,.0f} s: {progress.documents / seconds:.1f} docs/s, "
        f"start-up included\npredictions, failures and receipts: {command.options.output}\n"
        f"report: {page}",
        highlight=False,
        soft_wrap=True,
    )
    if command.json:
        said = {"output": command.options.output, "report": page, "documents": progress.documents, "seconds": seconds}
        command_line.print_json({**said, "summary": totals})
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

"""Runs a checked run: claims the folder, runs the pipeline, and prints the summary for people or as JSON."""

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions
from apache_beam.runners.runner import PipelineState
from rich.console import Console

from inference.checks import CheckedRun
from inference.corpus.records import MANY_DOCUMENTS
from inference.flags import print_json
from inference.runs import drift, pipeline, report_page, run_folder, summary
from inference.runs.options import RESUME
from inference.runs.progress import ProgressWatcher
from inference.runs.run_folder import Claim
from inference.runs.step_errors import own_error
from models.console import PlainConsole
from models.errors import UserError
from models.names import for_terminal

if TYPE_CHECKING:
    from inference.dataflow.spending import Spending

INTERRUPTED = "KeyboardInterrupt [while running"  # start of Beam's message if Ctrl-C interrupted a step


def execute(checked: CheckedRun) -> int:
    """Run the pipeline and return the exit code: 0 done, 1 failed, 3 too many failed documents.

    Raises:
        UserError: another run is at work in the folder, or the job may cost more than --max_cost.
    """
    set_up_logging(checked)
    console = PlainConsole(stderr=checked.json, quiet=checked.verbosity == "quiet")
    if checked.plan or checked.job:
        _plan(checked, console)
    if checked.plan:
        if checked.json:
            print_json(checked.description)
        return 0
    runtime = f"{checked.runtime}: {checked.runtime.reason}" if checked.runtime else "each worker chooses its runtime"
    console.print(f"runner: {checked.beam_options.view_as(StandardOptions).runner}\n{runtime}", soft_wrap=True)
    job, is_active = job_of(checked)
    with run_folder.claim(checked.options, checked.description, checked.overwrite, job, is_active) as claim:
        checked = replace(checked, options=claim.options)
        try:
            return _label(checked, claim, console)
        except UserError as error:  # such as a full disk, which is a failure and not wrong use
            return failed(str(error), checked)
        except KeyboardInterrupt:
            if not claim.lost:
                raise
            return failed(claim.lost, checked, can_resume=False)


def _label(checked: CheckedRun, claim: Claim, console: Console) -> int:
    """Run the pipeline in the claimed folder, and return the exit code."""
    with ProgressWatcher(checked.options, checked.files, checked.verbosity) as progress:
        _warn_of_other_runtimes(checked, progress, console)
        exit_code = _run_pipeline(checked, claim, console)
    if exit_code and checked.job:
        print(progress.state(), file=sys.stderr)
    if claim.lost:  # a runner may swallow the interrupt
        return failed(claim.lost, checked, can_resume=False)
    return conclude(checked, progress.documents, progress.seconds, console) if exit_code is None else exit_code


def job_of(checked: CheckedRun) -> tuple[dict[str, str] | None, Callable[[dict[str, str]], bool]]:
    """Return what names the job in its engine, and a function that asks the engine whether a job still runs."""

    def is_active(job: dict[str, str]) -> bool:
        from inference.dataflow import jobs  # it takes a second to load, which a local run should not wait for

        return jobs.is_active(checked.beam_options, job)

    if not checked.job:
        return None, is_active
    from inference.dataflow import jobs

    return jobs.name_of(checked.beam_options), is_active


def _warn_of_other_runtimes(checked: CheckedRun, progress: ProgressWatcher, console: Console) -> None:
    if not checked.runtime:
        return
    here = _without_threads(str(checked.runtime))
    for other in sorted({_without_threads(runtime) for runtime in progress.earlier_runtimes} - {here}):
        console.print(
            f"warning: finished slices were scored with {other}, and this machine scores with {here}, so their scores "
            "may differ slightly; the summary counts the slices of each.",
            soft_wrap=True,
        )


def _without_threads(runtime: str) -> str:
    return re.sub(r"\d+ threads?$", "a CPU", runtime)


def _plan(checked: CheckedRun, console: Console) -> None:
    from inference import plan  # it takes a second to load, which a local run should not wait for

    plan.show_settings(checked, console)
    planned = plan.measure(checked)
    plan.show(planned, console)
    plan.apply_limits(planned, checked)
    if offer := planned.offer:
        checked.description["estimate"] = {
            **{"dollars": offer.bill.total, "low": offer.low, "high": offer.high},
            "prices": planned.prices,
        }


def _run_pipeline(checked: CheckedRun, claim: Claim, console: Console) -> int | None:
    """Run the pipeline to its end and return None. Return an exit code if it failed, or if a job continues."""
    spending: Spending | None = None
    if checked.job:
        claim.leave(to_job=True)  # whatever ends this process, the job may go on
    try:
        p = beam.Pipeline(options=checked.beam_options)
        pipeline.build(p, checked.options)
        result = p.run()
        if checked.job and result.has_job:  # a flex template's launcher writes the job into a file and submits none
            console.print(job_line(result.job_id(), checked), soft_wrap=True)
        if not checked.wait:
            if checked.max_cost:
                console.print("--max_cost: with --no_wait nobody watches what the job costs", soft_wrap=True)
            return 0
        try:
            with _spending(checked, result) as spending:
                result.wait_until_finish()
        finally:
            claim.leave(to_job=checked.job is not None and not PipelineState.is_terminal(result.state))
    except KeyboardInterrupt:
        if not checked.job or claim.lost:
            raise
        unwatched = ", and --max_cost no longer stops it" if checked.max_cost else ""
        print(f"\nno longer waiting: if the job was submitted, it continues{unwatched}", file=sys.stderr)
        return 1
    except Exception as error:  # each runner raises errors of its own types
        if INTERRUPTED in str(error):
            raise KeyboardInterrupt from None
        if spending and spending.stopped:
            return failed(spending.stopped, checked)
        name, message = own_error(error) or ("", f"{error}\n{type(error).__name__}.")
        return failed(message, checked, can_resume=name != run_folder.RunLost.__name__)
    return None


def _spending(checked: CheckedRun, result: Any) -> "contextlib.AbstractContextManager[Spending | None]":
    """Return a context that cancels a job which costs more than --max_cost."""
    if not checked.job or checked.max_cost is None:
        return contextlib.nullcontext()
    from inference.dataflow.spending import Spending

    return Spending(result, checked.job, checked.max_cost)


def failed(message: str, checked: CheckedRun, *, can_resume: bool = True) -> int:
    """Print why the run failed, and the command that resumes it if one does. Return 1."""
    hint = f" {RESUME}\n{checked.description['command']}" if can_resume else ""
    print(for_terminal(f"failed: {message}{hint}"), file=sys.stderr)
    return 1


def set_up_logging(checked: CheckedRun) -> None:
    """Set the level of logs, and leave out what a command reports itself."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if checked.verbosity == "verbose":
        logging.getLogger().setLevel(logging.INFO)
    else:
        logging.getLogger("apache_beam.runners.common").addFilter(_is_news)
        logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)  # it warns when Prism ends


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for Beam's logs of Ctrl-C and of a user's mistake, which are reported when the run ends."""
    is_mistake = isinstance(record.exc_info[1], UserError) if record.exc_info else False
    return not (is_mistake or INTERRUPTED in record.getMessage())


def job_line(job_id: str, checked: CheckedRun) -> str:
    """Return the link to a job's page, and the command that stops the job. The end of this process does not stop it."""
    cloud = checked.beam_options.view_as(GoogleCloudOptions)
    return (
        f"job {job_id}: https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job_id}?project={cloud.project}\n"
        f"to stop it: gcloud dataflow jobs cancel {job_id} --region {cloud.region} --project {cloud.project}"
    )


def conclude(checked: CheckedRun, documents: int, seconds: float, console: Console, *, draw: bool = True) -> int:
    """Print the totals and the paths of a finished run, and what this command has done in how many seconds.

    Draw the report if `draw` is true. Return 3 if more documents failed than --max_failure_rate allows, else 0.
    """
    output = checked.options.output
    totals = summary.read(output, checked.options.run)
    if totals is None:
        return failed("the runner ended without a summary.", checked)
    summary.show(totals, console)
    report = _draw_report(checked, totals, console) if draw else None
    console.print(
        f"{documents:,} documents in {seconds:,.0f} s: {documents / seconds:.1f} docs/s, "
        f"start-up included\npredictions, failures and receipts: {output}" + (f"\nreport: {report}" if report else ""),
        soft_wrap=True,
    )
    if checked.json:
        result = {"output": output, "report": report, "documents": documents, "seconds": seconds}
        print_json({**result, "summary": totals})
    if problems := list(_failure_problems(checked, totals)):
        print(for_terminal("\n".join(problems)), file=sys.stderr)
        return 3
    return 0


def _failure_problems(checked: CheckedRun, totals: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each reason why too much failed."""
    see = f"see {checked.options.output}/failures"
    for rate, what in ((totals["failure_rate"], "documents"), (totals["failure_rate_in_bytes"], "documents' bytes")):
        if rate > checked.max_failure_rate:
            yield (
                f"{rate:.2%} of the {what} failed, more than --max_failure_rate {checked.max_failure_rate:.2%}; {see}"
            )
    many = [reason for reason in MANY_DOCUMENTS if totals["failures"].get(reason)]
    if many and not checked.allow_damaged_files:
        yield (
            f"{' and '.join(many)}: each of these failures stands for any number of documents; {see}, mend the files, "
            "or accept the loss with --allow_damaged_files"
        )


def _draw_report(checked: CheckedRun, totals: dict[str, Any], console: Console) -> str | None:
    """Print the report's warnings, draw it, and return its path. If that fails, print a warning and return None."""
    output = checked.options.output
    try:
        for warning in drift.warnings(checked.description, totals):
            console.print(f"warning: {warning}", soft_wrap=True)
        return report_page.write(output)
    except Exception as error:  # the run is complete, whatever is wrong with its page
        message = " ".join(str(error).split())[:300].rstrip(".")
        sentence = (
            f"warning: the report was not drawn ({type(error).__name__}: {message}). The predictions are complete; "
            f"`python -m inference.report {output}` draws it again."
        )
        print(for_terminal(sentence), file=sys.stderr)
        return None

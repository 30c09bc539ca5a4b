"""Runs a checked run: claims the folder, runs the pipeline, and prints the summary for people or as JSON."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rich.console import Console

from inference import logs, submission
from inference.checks import CheckedRun
from inference.corpus.records import MANY_DOCUMENTS
from inference.flags import print_json
from inference.runs import drift, report_page, run_folder, summary
from inference.runs.progress import ProgressWatcher
from inference.runs.run_folder import Claim, RunLost
from models.console import PlainConsole
from models.errors import UserError
from models.names import for_terminal


def execute(checked: CheckedRun) -> int:
    """Run the pipeline and return the exit code: 0 done, 1 failed, 3 too many failed documents.

    Raises:
        UserError: another run is at work in the folder, or the job may cost more than --max_cost.
    """
    logs.set_up(checked.verbosity)
    console = PlainConsole(stderr=checked.json, quiet=checked.verbosity == "quiet")
    if checked.plan or checked.job:
        _plan(checked, console)
    if checked.plan:
        if checked.json:
            print_json(checked.description)
        return 0
    runtime = f"{checked.runtime}: {checked.runtime.reason}" if checked.runtime else "each worker chooses its runtime"
    console.print(f"runner: {checked.engine.runner}\n{runtime}", soft_wrap=True)
    job, is_active = job_of(checked)
    try:
        with run_folder.claim(checked.options, checked.description, checked.overwrite, job, is_active) as claim:
            checked = replace(checked, options=claim.options)
            try:
                return _label(checked, claim, console)
            except UserError as error:  # such as a full disk, which is a failure and not wrong use
                return submission.failed(str(error), checked)
    except RunLost as error:
        return submission.failed(str(error), checked, can_resume=False)


def _label(checked: CheckedRun, claim: Claim, console: Console) -> int:
    """Run the pipeline in the claimed folder, and return the exit code."""
    with ProgressWatcher(checked.options, checked.verbosity) as progress:
        _warn_of_other_runtimes(checked, progress, console)
        exit_code = submission.run(checked, claim, console)
    if exit_code and checked.job:
        print(progress.state(), file=sys.stderr)
    if claim.lost:  # a runner may swallow the interrupt
        return submission.failed(claim.lost, checked, can_resume=False)
    if exit_code is not None:
        return exit_code
    totals = summary.read(checked.options.output, checked.options.run) or {"lines": 0, "blank": 0}
    documents = max(totals["lines"] - totals["blank"] - progress.earlier_lines, 0)
    return conclude(checked, documents, progress.seconds, console)


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
    for other in sorted({_without_threads(runtime) for runtime in progress.earlier_runtimes()} - {here}):
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


def conclude(checked: CheckedRun, documents: int, seconds: float, console: Console, *, draw: bool = True) -> int:
    """Print the totals and the paths of a finished run, and what this command has done in how many seconds.

    Draw the report if `draw` is true. Return 3 if more documents failed than --max_failure_rate allows, else 0.
    """
    output = checked.options.output
    totals = summary.read(output, checked.options.run)
    if totals is None:
        return submission.failed("the runner ended without a summary.", checked)
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

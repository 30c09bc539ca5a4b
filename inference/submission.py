"""Submits the pipeline to its engine and waits for it. Submits it again where that may succeed."""

import contextlib
import sys
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions
from apache_beam.runners.runner import PipelineResult, PipelineState
from rich.console import Console

from inference import engines
from inference.checks import CheckedRun
from inference.logs import INTERRUPTED
from inference.runs import handler, launches, pipeline, receipts, run_folder, summary
from inference.runs.options import RESUME
from inference.runs.run_folder import Claim
from inference.runs.step_errors import own_error
from inference.scoring import faults
from models.names import for_terminal

if TYPE_CHECKING:
    from inference.dataflow.spending import Spending

# Own errors after which a job may succeed.
REPEATED = tuple(kind.__name__ for kind in (faults.ScoringError, faults.DeviceError, summary.DamagedReceipts))


def run(checked: CheckedRun, claim: Claim, console: Console) -> int | None:
    """Run the pipeline to its end and return None. Return an exit code if it failed, or if a job continues.

    What damaged receipts stand for is labelled again at once, also where nothing else is submitted again.
    """
    for left in range(max(checked.resubmissions, 1), -1, -1):
        done = _count_slices(checked) if checked.resubmissions and left else 0
        try:
            launch = uuid.uuid4().hex if checked.engine.workers == "here" else ""
            launched = replace(checked, options=replace(checked.options, launch=launch))
            with _loading(launched):
                return _submit(launched, claim, console)
        except Exception as error:  # each runner raises errors of its own types
            if INTERRUPTED in str(error) and checked.engine.workers == "here":
                raise KeyboardInterrupt from None
            message, may_succeed, can_resume = _judge(error)
            if not checked.resubmissions and (own_error(error) or [""])[0] != summary.DamagedReceipts.__name__:
                may_succeed = False
            if may_succeed is None:  # what stops a job that has done something may be gone the next time
                may_succeed = left > 0 and _count_slices(checked) > done
            silence = engines.silence(checked.engine) if left and may_succeed else None
            if claim.lost or not left or not may_succeed or silence:
                return failed(f"{message} {silence}" if silence else message, checked, can_resume=can_resume)
            more = f"; --resubmit allows {left - 1} more" if checked.resubmissions else ""
            print(for_terminal(f"failed: {message} Submitted again{more}."), file=sys.stderr)
    raise AssertionError("the last submission returns")


def _count_slices(checked: CheckedRun) -> int:
    return sum(1 for _ in receipts.paths(checked.options.output, checked.options.run))


def _submit(checked: CheckedRun, claim: Claim, console: Console) -> int | None:
    """Run the pipeline once. Return None at its end, and an exit code if a job goes on or has become too expensive."""
    if checked.job:
        claim.leave(to_job=True)  # whatever ends this process, the job may go on
    result = None
    try:
        p = beam.Pipeline(options=checked.beam_options)
        pipeline.build(p, checked.options, check_workers=checked.engine.workers == "elsewhere")
        result = p.run()
        if checked.job and result.has_job:  # a flex template's launcher writes the job into a file and submits none
            console.print(job_line(result.job_id(), checked), soft_wrap=True)
        if checked.wait:
            return _wait(result, checked, claim)
        if checked.max_cost:
            console.print("--max_cost: with --no_wait nobody watches what the job costs", soft_wrap=True)
        return 0
    except KeyboardInterrupt:
        if claim.lost:
            raise
        if checked.job:
            unwatched = ", and --max_cost no longer stops it" if checked.max_cost else ""
            print(f"\nno longer waiting: if the job was submitted, it continues{unwatched}", file=sys.stderr)
            return 1
        _cancel(result, checked)
        raise
    except Exception:  # each runner raises errors of its own types
        if result is not None:  # a connection may break while its job goes on
            _warn_of_job(result, checked) if checked.job else _cancel(result, checked)
        raise
    finally:
        launches.end(checked.options.launch)


def _loading(checked: CheckedRun) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the models load, if threads of this process score. RunInference loads them always."""
    mode = checked.beam_options.view_as(DirectOptions).direct_running_mode
    if checked.engine.workers != "here" or mode == "multi_processing":
        return contextlib.nullcontext()
    return handler.loading(checked.options)


def _wait(result: PipelineResult, checked: CheckedRun, claim: Claim) -> int | None:
    """Wait for the end of a job. Return None, or 1 if the job was cancelled because of its cost."""
    with _spending(checked, result) as spending:
        try:
            result.wait_until_finish()
        except Exception:  # each runner raises errors of its own types
            if spending and spending.stopped:
                return failed(spending.stopped, checked)
            raise
        finally:
            claim.leave(to_job=checked.job is not None and not PipelineState.is_terminal(result.state))
    return None


def _spending(checked: CheckedRun, result: PipelineResult) -> "contextlib.AbstractContextManager[Spending | None]":
    """Return a context that cancels a job which costs more than --max_cost."""
    if not checked.job or checked.max_cost is None:
        return contextlib.nullcontext()
    from inference.dataflow.spending import Spending

    return Spending(result, checked.job, checked.max_cost)


def _warn_of_job(result: PipelineResult, checked: CheckedRun) -> None:
    """Say that a job on Dataflow goes on, unless the service says that it has ended."""
    with contextlib.suppress(Exception):  # the service may be out of reach
        if PipelineState.is_terminal(result.state):
            return
    print(
        f"warning: nobody waits for the job any more, but it may go on.\n{job_line(result.job_id(), checked)}",
        file=sys.stderr,
    )


def _cancel(result: PipelineResult | None, checked: CheckedRun) -> None:
    """Stop a job elsewhere unless it has ended, and say what came of it."""
    if (
        checked.engine.workers != "elsewhere" or checked.engine.endpoint == "embed"
    ):  # that server ends with this process
        return
    where = checked.engine.endpoint or checked.engine.runner
    if result is None:
        print(f"\nif the job was submitted to {where}, it goes on: cancel it there.", file=sys.stderr)
        return
    try:
        if PipelineState.is_terminal(result.state):
            return
        result.cancel()
        print(
            f"\nthe job on {where} was cancelled; a slice that is being scored may still be written.", file=sys.stderr
        )
    except Exception as error:  # each job server has errors of its own
        reason = " ".join(str(error).split())[:200]
        print(for_terminal(f"\nthe job on {where} may go on: cancel it there ({reason})."), file=sys.stderr)


def _judge(error: Exception) -> tuple[str, bool | None, bool]:
    """Return why a job failed, whether another submission may succeed if that is known, and whether a resume may."""
    if own := own_error(error):
        return own[1], own[0] in REPEATED, own[0] != run_folder.RunLost.__name__
    return *engines.explain(f"{error}\n{type(error).__name__}."), True


def failed(message: str, checked: CheckedRun, *, can_resume: bool = True) -> int:
    """Print why the run failed, and the command that resumes it if one does. Return 1."""
    hint = f" {RESUME}\n{checked.description['command']}" if can_resume else ""
    print(for_terminal(f"failed: {message}{hint}"), file=sys.stderr)
    return 1


def job_line(job_id: str, checked: CheckedRun) -> str:
    """Return the link to a job's page, and the command that stops the job. The end of this process does not stop it."""
    cloud = checked.beam_options.view_as(GoogleCloudOptions)
    return (
        f"job {job_id}: https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job_id}?project={cloud.project}\n"
        f"to stop it: gcloud dataflow jobs cancel {job_id} --region {cloud.region} --project {cloud.project}"
    )

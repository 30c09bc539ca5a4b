"""Watches what a job on Dataflow has cost so far, and cancels the job when that is more than its limit."""

import threading
from types import TracebackType
from typing import Any, Self

from inference.cost import actual
from inference.dataflow.launch import Job
from models.console import PlainConsole

POLL_SECONDS = 60.0  # time between two looks at what the job has used


class Spending:
    """A context manager that looks at a job's cost while its body waits for the job.

    The service's numbers come late and a cancelled job takes a while to end, so the job costs somewhat more than the
    limit.
    """

    def __init__(self, result: Any, job: Job, limit: float) -> None:
        self._result, self._job, self._limit = result, job, limit
        self.stopped = ""  # a sentence once the job was told to end, although the answer may have been lost
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()

    def _watch(self) -> None:
        told = False
        while not self._end.wait(POLL_SECONDS):
            try:
                self._look()
            except Exception as error:  # the service may be out of reach for a while, and the job goes on
                if not told:
                    message = " ".join(str(error).split())[:200]
                    warning = f"warning: --max_cost cannot be watched now ({message}); the job is asked again."
                    PlainConsole(stderr=True).print(warning, soft_wrap=True)
                told = True

    def _look(self) -> None:
        """Compare the cost so far with the limit, and cancel the job if it is higher."""
        client, job = self._result._runner.dataflow_client, self._job
        used = actual.usage(client.get_job_metrics(self._result.job_id()).metrics)
        name = job.prices.find(job.machine_type, job.gpu)
        if job.gpu and name:
            used = used.with_gpus(job.prices.machines[name].vcpus)  # a launch allows one GPU for each worker
        spent = sum(actual.costs(used, job.prices, job.gpu, flexrs=job.flexrs).values())
        if spent > self._limit:
            self.stopped = (
                f"the job has cost about ${spent:,.2f} so far, more than --max_cost {self._limit:g}, and was "
                "cancelled; raise it to go on."
            )
            self._result.cancel()
            self._end.set()

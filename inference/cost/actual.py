"""What a job on Dataflow has cost, from the metrics that the service keeps of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow_v1beta3 as dataflow

from inference.cost import pricing
from inference.cost.estimate import Offer
from inference.cost.pricing import Bill, Prices
from models.errors import UserError

FLEXRS = dataflow.FlexResourceSchedulingGoal.FLEXRS_COST_OPTIMIZED
FINISHED = (dataflow.JobState.JOB_STATE_DONE, dataflow.JobState.JOB_STATE_FAILED, dataflow.JobState.JOB_STATE_CANCELLED)


@dataclass(frozen=True)
class Usage:
    """What a job used."""

    vcpu_seconds: float
    memory_mb_seconds: float
    disk_gb_seconds: float
    shuffle_gb: float  # what is billed of it
    gpu_seconds: float


def fetch(project: str, region: str, job_id: str) -> tuple[dataflow.Job, Usage]:
    """Asks the service for a job and its usage.

    Raises:
        UserError: there is no such job, or it may not be seen.
    """
    place = {"project_id": project, "job_id": job_id, "location": region}
    try:
        view = dataflow.JobView.JOB_VIEW_ALL
        job = dataflow.JobsV1Beta3Client().get_job(dataflow.GetJobRequest(view=view, **place))
        found = dataflow.MetricsV1Beta3Client().get_job_metrics(dataflow.GetJobMetricsRequest(**place))
    except (GoogleAPIError, GoogleAuthError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"--actual {job_id}: the job cannot be read ({said}); check --project, --region and your login."
        ) from None
    return job, usage(found.metrics)


def usage(metrics: Iterable[dataflow.MetricUpdate]) -> Usage:
    """Adds up the service's metrics; of those that come twice the tentative ones are left out.

    Units as apache_beam/testing/load_tests/dataflow_cost_benchmark.py of apache-beam 2.77.0 takes them; that of
    TotalGpuTime is said nowhere and taken to be seconds.
    """
    totals: dict[str, float] = {}
    for metric in metrics:
        if "tentative" not in metric.name.context and metric.scalar is not None:
            totals[metric.name.name] = totals.get(metric.name.name, 0.0) + float(metric.scalar)
    return Usage(
        vcpu_seconds=totals.get("TotalVcpuTime", 0.0),
        memory_mb_seconds=totals.get("TotalMemoryUsage", 0.0),
        disk_gb_seconds=totals.get("TotalPdUsage", 0.0) + totals.get("TotalSsdUsage", 0.0),
        shuffle_gb=totals.get("BillableShuffleDataProcessed", totals.get("TotalShuffleDataProcessed", 0.0)),
        gpu_seconds=totals.get("TotalGpuTime", 0.0),
    )


def bill(job: dataflow.Job, used: Usage, prices: Prices) -> Bill:
    """Prices what a job used.

    Raises:
        UserError: it has not ended, or used a GPU that has no price.
    """
    if job.current_state not in FINISHED:
        raise UserError(f"--actual {job.id}: expected a job that has ended, found {job.current_state.name}; wait.")
    gpu = pricing.gpu_of(job.environment.service_options)
    if gpu and gpu not in prices.gpu_hour:
        raise UserError(f"--actual {job.id}: the prices file has no GPU {gpu}.")
    flexrs = job.environment.flex_resource_scheduling_goal == FLEXRS
    discount = 1 - prices.flexrs_discount if flexrs else 1.0
    hours = (job.current_state_time - job.start_time).total_seconds() / 3600
    machine = next((pool.machine_type for pool in job.environment.worker_pools), "")
    name = prices.find(machine, gpu)
    vcpus = prices.machines[name].vcpus if name else None
    return Bill(
        machine=name or machine,
        workers=round(used.vcpu_seconds / 3600 / hours / vcpus) if vcpus and hours else 0,
        flexrs=flexrs,
        hours=hours,
        vcpu=used.vcpu_seconds / 3600 * prices.vcpu_hour * discount,
        memory=used.memory_mb_seconds / 1024 / 3600 * prices.memory_gb_hour * discount,
        disk=used.disk_gb_seconds / 3600 * prices.disk_gb_hour,
        shuffle=used.shuffle_gb * prices.shuffle_gb,
        gpu=used.gpu_seconds / 3600 * prices.gpu_hour[gpu] if gpu else 0.0,
    )


def show(paid: Bill) -> None:
    """Prints what a job has cost."""
    parts = ", ".join(f"{name} {getattr(paid, name):,.2f}" for name in ("vcpu", "memory", "disk", "shuffle", "gpu"))
    print(
        f"actual: ${paid.total:,.2f} ({parts}) on {paid.workers:,} workers {paid.machine}"
        f"{', FlexRS' if paid.flexrs else ''}, {paid.hours:.1f} hours"
    )


def show_difference(paid: Bill, offers: Iterable[Offer]) -> None:
    """Sets what a job has cost beside the estimate for the same machine."""
    for offer in offers:
        if (offer.bill.machine, offer.bill.flexrs) == (paid.machine, paid.flexrs):
            within = "within" if offer.low <= paid.total <= offer.high else "outside of"
            share = (paid.total / offer.bill.total - 1) * 100 if offer.bill.total else 0.0
            dollars = f"${offer.low:,.2f} to ${offer.high:,.2f}"
            print(f"estimate: ${offer.bill.total:,.2f}; actual {share:+.0f} %, {within} {dollars}")

"""Computes the cost of a finished Dataflow job from the metrics that the service keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    """The resources that a job used."""

    vcpu_seconds: float  # number of vCPUs times seconds
    memory_mb_seconds: float  # memory in MB times seconds
    disk_gb_seconds: float  # standard disk in GB times seconds
    shuffle_gb: float  # billed shuffled data in GB
    gpu_seconds: float  # number of GPUs times seconds
    ssd_gb_seconds: float = 0.0  # SSD in GB times seconds

    def with_gpus(self, vcpus_per_gpu: float | None) -> "Usage":
        """Return the usage with at least the GPUs that its vCPUs came with; None if their number is unknown."""
        least = self.vcpu_seconds / vcpus_per_gpu if vcpus_per_gpu else 0.0
        return replace(self, gpu_seconds=max(self.gpu_seconds, least))


def fetch(project: str, region: str, job_id: str) -> tuple[dataflow.Job, Usage]:
    """Fetch a job and its usage from the service.

    Raises:
        UserError: there is no such job, or this account may not read it.
    """
    job_path = {"project_id": project, "job_id": job_id, "location": region}
    try:
        view = dataflow.JobView.JOB_VIEW_ALL
        job = dataflow.JobsV1Beta3Client().get_job(dataflow.GetJobRequest(view=view, **job_path))
        job_metrics = dataflow.MetricsV1Beta3Client().get_job_metrics(dataflow.GetJobMetricsRequest(**job_path))
    except (GoogleAPIError, GoogleAuthError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--actual {job_id}: the job cannot be read ({reason}); check --project, --region and your login."
        ) from None
    return job, usage(job_metrics.metrics)


def usage(metrics: Iterable[dataflow.MetricUpdate]) -> Usage:
    """Add up the service's metrics. Tentative metrics are left out, because each also has a final value.

    The units are those in apache_beam/testing/load_tests/dataflow_cost_benchmark.py of apache-beam 2.77.0. The unit of
    TotalGpuTime is not documented, and is assumed to be seconds. `Usage.with_gpus` guards against a smaller one.
    """
    totals: dict[str, float] = {}
    for metric in metrics:
        if "tentative" not in metric.name.context and metric.scalar is not None:
            totals[metric.name.name] = totals.get(metric.name.name, 0.0) + float(metric.scalar)
    return Usage(
        vcpu_seconds=totals.get("TotalVcpuTime", 0.0),
        memory_mb_seconds=totals.get("TotalMemoryUsage", 0.0),
        disk_gb_seconds=totals.get("TotalPdUsage", 0.0),
        ssd_gb_seconds=totals.get("TotalSsdUsage", 0.0),
        shuffle_gb=totals.get("BillableShuffleDataProcessed", totals.get("TotalShuffleDataProcessed", 0.0)),
        gpu_seconds=totals.get("TotalGpuTime", 0.0),
    )


def bill(job: dataflow.Job, used: Usage, prices: Prices) -> Bill:
    """Return the bill of a job for the resources that it used.

    Raises:
        UserError: the job has not ended, or it used a GPU without a price.
    """
    if job.current_state not in FINISHED:
        raise UserError(
            f"--actual {job.id}: expected a job that has ended, found {job.current_state.name}; wait for its end."
        )
    machine, gpu = machine_of(job)
    if gpu and gpu not in prices.gpu_hour:
        raise UserError(f"--actual {job.id}: the prices file has no GPU {gpu}; add its price to gpu_hour.")
    flexrs = job.environment.flex_resource_scheduling_goal == FLEXRS
    hours = (job.current_state_time - job.start_time).total_seconds() / 3600
    prices = prices.with_custom(machine, gpu)
    name = prices.find(machine, gpu)
    vcpus = prices.machines[name].vcpus if name else None
    if gpu and vcpus:
        used = used.with_gpus(vcpus / max(pricing.gpus_of(_accelerators(job)), 1))
    return Bill(
        machine=name or machine,
        workers=round(used.vcpu_seconds / 3600 / hours / vcpus) if vcpus and hours else 0,
        rate="FlexRS" if flexrs else "standard",
        hours=hours,
        **costs(used, prices, gpu, flexrs=flexrs),
    )


def machine_of(job: dataflow.Job) -> tuple[str, str | None]:
    """Return the machine type of a job's workers, and their GPU."""
    machine = next((pool.machine_type for pool in job.environment.worker_pools), "")
    return machine, pricing.gpu_of(_accelerators(job))


def _accelerators(job: dataflow.Job) -> list[str]:
    """Return the options of a job that may name a GPU."""
    return [*job.environment.service_options, *job.environment.experiments]


def costs(used: Usage, prices: Prices, gpu: str | None, *, flexrs: bool) -> dict[str, float]:
    """Return the cost in dollars of what a job used, by the names in a bill. A GPU without a price costs nothing."""
    discount = 1 - prices.flexrs_discount if flexrs else 1.0
    return {
        "vcpu": used.vcpu_seconds / 3600 * prices.vcpu_hour * discount,
        "memory": used.memory_mb_seconds / 1024 / 3600 * prices.memory_gb_hour * discount,
        "disk": (used.disk_gb_seconds * prices.disk_gb_hour + used.ssd_gb_seconds * prices.ssd_gb_hour) / 3600,
        "shuffle": used.shuffle_gb * prices.shuffle_gb,
        "gpu": used.gpu_seconds / 3600 * prices.gpu_hour.get(gpu or "", 0.0),
    }


def show(job_bill: Bill) -> None:
    """Print the actual cost of a job."""
    parts = ", ".join(f"{name} {getattr(job_bill, name):,.2f}" for name in ("vcpu", "memory", "disk", "shuffle", "gpu"))
    print(
        f"actual: ${job_bill.total:,.2f} ({parts}) on {job_bill.workers:,} workers {job_bill}, "
        f"{job_bill.hours:.1f} hours"
    )


def show_difference(job_bill: Bill, offers: Iterable[Offer]) -> None:
    """Print the estimate for the same machine type, and how far the actual cost of the job is from it."""
    offer = next((offer for offer in offers if str(offer.bill) == str(job_bill)), None)
    if offer is None:
        print(f"estimate: none for {job_bill}; --profile or a row in the file for --prices gives its speed")
        return
    within = "within" if offer.low <= job_bill.total <= offer.high else "outside of"
    difference = (job_bill.total / offer.bill.total - 1) * 100 if offer.bill.total else 0.0
    dollars = f"${offer.low:,.2f} to ${offer.high:,.2f}"
    print(f"estimate: ${offer.bill.total:,.2f}; actual {difference:+.0f} %, {within} {dollars}")

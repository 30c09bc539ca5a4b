"""Names jobs on Dataflow, and asks the service whether a job still runs."""

from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient
from google.cloud import dataflow_v1beta3 as dataflow


def name_of(beam_options: PipelineOptions) -> dict[str, str]:
    """Return what names the job of these options: at most one active job in a project and region has its name."""
    cloud = beam_options.view_as(GoogleCloudOptions)
    return {"project": cloud.project, "region": cloud.region, "name": cloud.job_name}


def is_active(beam_options: PipelineOptions, job: dict[str, str]) -> bool:
    """Return whether a job with this name waits, runs or is being stopped. Use the credentials of the options.

    Raises:
        Exception: the service cannot be asked.
    """
    cloud = beam_options.view_as(GoogleCloudOptions)
    asked = PipelineOptions(
        project=job["project"],
        region=job["region"],
        dataflow_endpoint=cloud.dataflow_endpoint,
        no_auth=cloud.no_auth,
        impersonate_service_account=cloud.impersonate_service_account,
    )
    client: Any = DataflowApplicationClient(asked)._jobs_client
    request = dataflow.ListJobsRequest(
        project_id=job["project"],
        location=job["region"],
        name=job["name"],
        filter=dataflow.ListJobsRequest.Filter.ACTIVE,
    )
    return any(found.name == job["name"] for found in client.list_jobs(request))

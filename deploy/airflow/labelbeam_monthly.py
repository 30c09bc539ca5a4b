"""Labels the corpus anew each month: extract from BigQuery, label on Dataflow, load the predictions and check the ids.

Put it into Airflow's dags folder and set the Variables named below. Workers of Airflow need a clone of the project,
the Cloud SDK, and the environment that `make install` makes.
"""

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# Variables of Airflow: labelbeam_clone (the clone's path), labelbeam_bucket (gs://BUCKET), labelbeam_project,
# labelbeam_region, labelbeam_image, labelbeam_models (/models/ONE /models/OTHER, as many as one run is to apply),
# labelbeam_table (PROJECT.DATASET.TABLE), labelbeam_max_cost (dollars).
CLONE = "cd {{ var.value.labelbeam_clone }} && "
MONTH = "{{ var.value.labelbeam_bucket }}/{{ ds_nodash }}"
QUERY = "deploy/bigquery/corpus.sql"

with DAG(
    "labelbeam_monthly",
    description="Labels the corpus each month",
    schedule="@monthly",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": datetime.timedelta(minutes=10)},
) as dag:
    extract = BashOperator(
        task_id="extract",
        # A second try starts with an empty folder.
        bash_command=CLONE + f"(gcloud storage rm --quiet '{MONTH}/corpus/**' || true) && "
        f"deploy/bigquery/extract_corpus.sh {QUERY} {MONTH}/corpus",
    )
    # The same command resumes where the last try stopped.
    label = BashOperator(
        task_id="label",
        bash_command=CLONE + ".venv/bin/python -m inference.beam_runner --runner DataflowRunner "
        "--project {{ var.value.labelbeam_project }} --region {{ var.value.labelbeam_region }} "
        f"--temp_location {MONTH}/tmp "  # noqa: S108  (in a bucket)
        "--sdk_container_image {{ var.value.labelbeam_image }} "
        "{% for model in var.value.labelbeam_models.split() %}--model {{ model }} {% endfor %}"
        "--max_cost {{ var.value.labelbeam_max_cost }} "
        f"--input '{MONTH}/corpus/*.jsonl' --output {MONTH}/run",
    )
    load_and_check = BashOperator(
        task_id="load_and_check",
        bash_command=CLONE + f"deploy/bigquery/load_predictions.sh {MONTH}/run "
        "{{ var.value.labelbeam_table }} " + QUERY,
    )
    extract >> label >> load_and_check

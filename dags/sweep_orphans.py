"""
### Delete what ended tasks have left running

A task that ends cleans up after itself. Nobody does when a user ends it while no triggerer runs, or when the worker of
its last try is killed. Set `AIRFLOW__LLMTUNE__SITE` for the workers to a name that no other Airflow has which uses the
namespace; a run with `dry_run` only tells what it would delete.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_llmtune.operators.sweep import SweepOrphansOperator

with DAG(
    "sweep_orphans",
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    params={
        "namespace": Param("default", type="string", description="Where to look"),
        "dry_run": Param(False, type="boolean", description="Only tell what would be deleted"),
    },
) as dag:
    SweepOrphansOperator(
        task_id="sweep",
        namespace="{{ params.namespace }}",
        dry_run="{{ params.dry_run }}",
        min_age=timedelta(minutes=15),
        retries=1,
    )

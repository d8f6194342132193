"""All that works with secrets, and all that can go wrong with them; the test looks for them in what is left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

# The stand-in of tests/support/trainer_image.py, which Airflow's own processes do not find.
SOURCES = {"model": "/models/tiny", "dataset": "/data", "image": "stand-in/trainer:1"}
CONNECTED = {"hub_conn_id": "hub", "aws_conn_id": "store"}
AGAIN = {"retries": 2, "retry_delay": timedelta(seconds=1)}


def tuning(task_id: str, **changes: Any) -> KatibTuneLLMOperator:
    settings: dict[str, Any] = {
        "parameters": {"learning_rate": search.log_uniform(1e-5, 1e-1)},
        "max_trial_count": 2,
        "api_retry_timeout": 2,
        **SOURCES,
        **CONNECTED,
    }
    return KatibTuneLLMOperator(task_id=task_id, **{**settings, **changes})


with DAG("leak_paths", schedule=None, max_active_tasks=32) as dag:
    tune = tuning("tune", output_uri="/models/out", trainer_args={"nap": 1}, **AGAIN)
    train = FineTuneLLMOperator(
        task_id="train",
        hyperparameters=tune.output["parameters"],
        output_uri="/models/final",
        **SOURCES,
        **CONNECTED,
        **AGAIN,
    )
    EvaluateLLMOperator(task_id="evaluate", adapter=train.output["artifact_uri"], **SOURCES, **CONNECTED, **AGAIN)
    DeployLLMOperator(
        task_id="deploy",
        name="leak-paths",
        model="/models/tiny",
        adapter=train.output["artifact_uri"],
        endpoint_conn_id="model_endpoint",
        **AGAIN,
    )

    tuning("crash", trainer_args={"crash": True})
    tuning("no_connection", hub_conn_id="nowhere")
    tuning("spoilt_connection", hub_conn_id="spoilt", aws_conn_id="half")
    tuning("secret_in_env", env={"HF_TOKEN": "{{ conn.hub.password }}"})
    tuning("secret_in_an_address", dataset="s3://{{ conn.store.login }}:{{ conn.store.password }}@bucket/rows")
    tuning("unauthorized", kubernetes_conn_id="stale")
    tuning("unusable_cluster", kubernetes_conn_id="broken")
    tuning("forbidden", namespace="forbidden")
    tuning("refused", namespace="refused")
    tuning("outage", namespace="outage")
    tuning(
        "unreachable_store",
        model=__file__,
        dataset="s3://bucket/rows",
        aws_conn_id="unreachable",
        model_asset=Asset("model"),
        skip_if_unchanged=True,
    )
    DeployLLMOperator(
        task_id="spoilt_endpoint", name="spoilt-endpoint", model="/models/tiny", endpoint_conn_id="spoilt"
    )

"""
### Model and data from S3, adapters to S3

Cluster and keys are those of Airflow connections; the pods get the keys by a Kubernetes Secret, which no manifest, log
or XCom repeats. Each trial leaves its adapter, and the best one is used as it is.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator
from airflow_llmtune.resources import search_space as search

with DAG(
    "tune_s3_to_s3",
    schedule=None,
    catchup=False,
    doc_md=__doc__,
    default_args={
        "kubernetes_conn_id": "kubernetes_default",
        "namespace": "default",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
    },
    params={
        "bucket": Param("s3://my-bucket", type="string", description="Holds model/, dataset/ and adapters/"),
        "trials": Param(8, type="integer", minimum=1, description="Trials in all"),
        "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
    },
) as dag:
    tune = KatibTuneLLMOperator(
        task_id="tune",
        model="{{ params.bucket }}/model",
        dataset="{{ params.bucket }}/dataset",
        output_uri="{{ params.bucket }}/adapters/{{ run_id }}",
        parameters={"learning_rate": search.log_uniform(1e-5, 1e-2), "lora_r": search.categorical([4, 8, 16])},
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}"},
        aws_conn_id="aws_default",
    )

    EvaluateLLMOperator(
        task_id="evaluate",
        model="{{ params.bucket }}/model",
        dataset="{{ params.bucket }}/dataset",
        adapter=tune.output["artifact_uri"],
        aws_conn_id="aws_default",
    )

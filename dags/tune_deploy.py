"""
### Tune, and serve the best trial

Where trials train as long as a final run would, the best of them is the model: nothing is trained twice. `tune` leaves
each adapter below `output_uri`, and `deploy` serves the best one. What its trainer tells of it goes along, so that an
adapter that the server could not load is refused before anything is deployed.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.resources import search_space as search

with DAG(
    "tune_deploy",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "model": Param("HuggingFaceTB/SmolLM2-135M-Instruct", type="string", description="Base model"),
        "dataset": Param("s3://my-bucket/my-dataset", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where adapters go"),
        "cache": Param("pvc://llm-cache/tuning", type="string", description="What trials share; empty: nothing"),
        "trials": Param(8, type="integer", minimum=1, description="Trials in all"),
        "epochs": Param(1.0, type="number", description="Epochs of each trial"),
        "prompt": Param("What gas makes soda bubbly?", type="string", description="What to ask the model"),
    },
) as dag:
    tune = KatibTuneLLMOperator(
        task_id="tune",
        model="{{ params.model }}",
        dataset="{{ params.dataset }}",
        output_uri="{{ params.output_uri }}/{{ run_id }}",
        cache="{{ params.cache }}",
        parameters={
            "learning_rate": search.log_uniform(1e-5, 1e-2),
            "lora_r": search.categorical([8, 16, 32]),
        },
        algorithm_settings={"random_state": 0},
        max_trial_count="{{ params.trials }}",
        trainer_args={"num_train_epochs": "{{ params.epochs }}"},
        resources_per_trial={"cpu": 1, "memory": "4Gi"},
    )

    deploy = DeployLLMOperator(
        task_id="deploy",
        name="best-trial",
        model="{{ params.model }}",
        adapter=tune.output["artifact_uri"],
        adapter_manifest=tune.output["manifest"],
        smoke_test={"prompt": "{{ params.prompt }}"},
        endpoint_conn_id="model_endpoint",
        resources_per_replica={"memory": "4Gi"},
    )

"""
### Tune again each week, for as little as possible

Where nothing has changed since last week, the earlier results are returned and nothing runs. Otherwise the search
starts around the champion's values, the champion is evaluated on this week's rows, and a new model that beats it is
deployed once a human has approved. A run that takes more than half a day is reported.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, AsyncCallback, DeadlineAlert, DeadlineReference, Param

from airflow_llmtune.notifications import log_missed_deadline
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.operators.promotion import CompareModelOperator, GetChampionOperator, PromoteModelOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

SUPPORT_MODEL = Asset("support-model-weekly")
SOURCES = {"model": "{{ params.model }}", "dataset": "{{ params.dataset }}"}
UNLESS_UNCHANGED = {"model_asset": SUPPORT_MODEL, "skip_if_unchanged": True}
EVALUATION = {"max_eval_samples": 64}

with DAG(
    "retune_weekly",
    schedule="@weekly",
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=12),
        callback=AsyncCallback(log_missed_deadline),
    ),
    params={
        "model": Param("HuggingFaceTB/SmolLM2-135M-Instruct", type="string", description="Base model"),
        "dataset": Param("s3://my-bucket/my-dataset", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where adapters go"),
        "trials": Param(12, type="integer", minimum=1, description="Trials in all"),
        "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
        "epochs": Param(1.0, type="number", description="Epochs of the final run, on the full data"),
    },
) as dag:
    champion = GetChampionOperator(task_id="champion", model_asset=SUPPORT_MODEL)

    tune = KatibTuneLLMOperator(
        task_id="tune",
        **SOURCES,
        **UNLESS_UNCHANGED,
        warm_start="champion",
        parameters={
            "learning_rate": search.log_uniform(1e-5, 1e-2),
            "lora_r": search.categorical([4, 8, 16]),
        },
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}", **EVALUATION},
        resources_per_trial={"cpu": 1, "memory": "4Gi"},
    )

    fine_tune = FineTuneLLMOperator(
        task_id="fine_tune",
        **SOURCES,
        **UNLESS_UNCHANGED,
        hyperparameters=tune.output["parameters"],
        trainer_args={"num_train_epochs": "{{ params.epochs }}", **EVALUATION},
        checkpoint_steps=200,
        output_uri="{{ params.output_uri }}/{{ run_id }}",
        resources_per_node={"cpu": 2, "memory": "6Gi"},
    )

    baseline = EvaluateLLMOperator(
        task_id="baseline",
        **SOURCES,
        **UNLESS_UNCHANGED,
        adapter=champion.output["artifact_uri"],
        trainer_args=EVALUATION,
        resources_per_node={"cpu": 1, "memory": "4Gi"},
    )

    compare = CompareModelOperator(
        task_id="compare",
        model_asset=SUPPORT_MODEL,
        candidate=fine_tune.output,
        baseline=baseline.output,
        min_improvement=0.001,
    )

    approve = ApprovalOperator(
        task_id="approve",
        subject="Deploy this week's support model?",
        body="{{ ti.xcom_pull('compare', key='decision')['reason'] }}",
        response_timeout=timedelta(days=2),
    )

    deploy = DeployLLMOperator(
        task_id="deploy",
        name="support-model-weekly",
        model="{{ params.model }}",
        adapter=compare.output["artifact_uri"],
        endpoint_conn_id="model_endpoint",
        resources_per_replica={"memory": "4Gi"},
    )

    promote = PromoteModelOperator(
        task_id="promote", model_asset=SUPPORT_MODEL, candidate=compare.output, tuned=tune.output
    )

    champion >> tune
    compare >> approve >> deploy >> promote

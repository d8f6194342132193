"""
### Tune again when there is new data

Two things start it: an event of the data set's asset, sent by the DAG that writes the data, or drift: a nightly check
finds that the champion does worse on fresh rows than when it was promoted.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.promotion import DetectModelDriftOperator, GetChampionOperator, PromoteModelOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

ANSWERS = Asset("support-answers", uri="s3://my-bucket/support-answers")
DRIFT = Asset("support-model-drift")
MODEL = Asset("support-model-on-new-data")

PARAMS = {
    "model": Param("HuggingFaceTB/SmolLM2-135M-Instruct", type="string", description="Base model"),
    "dataset": Param("s3://my-bucket/support-answers", type="string", description="Data set"),
    "output_uri": Param("s3://my-bucket/models", type="string", description="Where adapters go"),
    "trials": Param(12, type="integer", minimum=1, description="Trials in all"),
    "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
}
RETRIES = {"retries": 1, "retry_delay": timedelta(seconds=30)}
SOURCES = {"model": "{{ params.model }}", "dataset": "{{ params.dataset }}"}

with DAG(
    "retune_on_new_data",
    schedule=(ANSWERS | DRIFT),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args=RETRIES,
    params=PARAMS,
) as dag:
    champion = GetChampionOperator(task_id="champion", model_asset=MODEL)
    tune = KatibTuneLLMOperator(
        task_id="tune",
        **SOURCES,
        model_asset=MODEL,
        skip_if_unchanged=True,
        warm_start="champion",
        parameters={"learning_rate": search.log_uniform(1e-5, 1e-2), "lora_r": search.categorical([4, 8, 16])},
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}"},
    )
    fine_tune = FineTuneLLMOperator(
        task_id="fine_tune",
        **SOURCES,
        hyperparameters=tune.output["parameters"],
        output_uri="{{ params.output_uri }}/{{ run_id }}",
    )
    baseline = EvaluateLLMOperator(task_id="baseline", **SOURCES, adapter=champion.output["artifact_uri"])
    promote = PromoteModelOperator(
        task_id="promote",
        model_asset=MODEL,
        candidate=fine_tune.output,
        baseline=baseline.output,
        tuned=tune.output,
    )
    champion >> tune

with DAG(
    "detect_drift",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args=RETRIES,
    params=PARAMS,
) as drift_dag:
    serving = GetChampionOperator(task_id="champion", model_asset=MODEL)
    today = EvaluateLLMOperator(task_id="evaluate", **SOURCES, adapter=serving.output["artifact_uri"])
    DetectModelDriftOperator(
        task_id="detect", model_asset=MODEL, evaluation=today.output, max_degradation=0.05, outlets=[DRIFT]
    )

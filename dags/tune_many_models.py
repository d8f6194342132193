"""
### Tune several models side by side

One mapped task per model: each has an Experiment of its own and waits without a worker slot. The best of all is
trained.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

with DAG(
    "tune_many_models",
    schedule=None,
    catchup=False,
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "models": Param(
            ["HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"],
            type="array",
            items={"type": "string"},
            description="Base models",
        ),
        "dataset": Param("s3://my-bucket/my-dataset", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where the adapter goes"),
        "trials": Param(8, type="integer", minimum=1, description="Trials for each model"),
        "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
    },
) as dag:

    @task
    def models(params: dict | None = None) -> list[str]:
        return params["models"]

    tune = KatibTuneLLMOperator.partial(
        task_id="tune",
        dataset="{{ params.dataset }}",
        parameters={"learning_rate": search.log_uniform(1e-5, 1e-2), "lora_r": search.categorical([4, 8, 16])},
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}"},
        max_active_tis_per_dagrun=4,
    ).expand(model=models())

    @task
    def best(results: list[dict], params: dict | None = None) -> dict:
        """Losses compare only between models that share a tokenizer."""
        losses = [result["metrics"]["eval_loss"] for result in results]
        winner = losses.index(min(losses))
        return {"model": params["models"][winner], "parameters": results[winner]["parameters"]}

    chosen = best(tune.output)

    FineTuneLLMOperator(
        task_id="fine_tune",
        model=chosen["model"],
        dataset="{{ params.dataset }}",
        hyperparameters=chosen["parameters"],
        output_uri="{{ params.output_uri }}/{{ run_id }}",
    )

"""
### Tune, train, and serve what is better

`tune` searches the hyperparameters and `fine_tune` trains with the best ones. `compare` lets the new model through if
it beats the one that serves. `deploy` rolls it out, asks it something, and goes back to the old one if it does not
answer. Only a model that serves becomes the champion.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.operators.promotion import CompareModelOperator, PromoteModelOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

SUPPORT_MODEL = Asset("support-model")
# Trials and the final run are evaluated on the same rows, so that their losses compare.
EVALUATION = {"max_eval_samples": 64}

with DAG(
    "tune_train_serve",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "model": Param("HuggingFaceTB/SmolLM2-135M-Instruct", type="string", description="Base model"),
        "dataset": Param("s3://my-bucket/my-dataset", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where adapters go"),
        "trials": Param(8, type="integer", minimum=1, description="Trials in all"),
        "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
        "epochs": Param(1.0, type="number", description="Epochs of the final run, on the full data"),
        "prompt": Param("What gas makes soda bubbly?", type="string", description="What to ask the model"),
    },
) as dag:
    tune = KatibTuneLLMOperator(
        task_id="tune",
        model="{{ params.model }}",
        dataset="{{ params.dataset }}",
        parameters={
            "learning_rate": search.log_uniform(1e-5, 1e-2),
            "lora_r": search.categorical([4, 8, 16]),
        },
        algorithm_settings={"random_state": 0},
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}", "per_device_train_batch_size": 4, **EVALUATION},
        resources_per_trial={"cpu": 1, "memory": "4Gi"},
    )

    fine_tune = FineTuneLLMOperator(
        task_id="fine_tune",
        model="{{ params.model }}",
        dataset="{{ params.dataset }}",
        hyperparameters=tune.output["parameters"],
        trainer_args={
            "num_train_epochs": "{{ params.epochs }}",
            "evaluate_base_model": True,
            "sample_prompt": "{{ params.prompt }}",
            **EVALUATION,
        },
        output_uri="{{ params.output_uri }}/{{ run_id }}",
        resources_per_node={"cpu": 2, "memory": "6Gi"},
    )

    compare = CompareModelOperator(task_id="compare", model_asset=SUPPORT_MODEL, candidate=fine_tune.output)

    deploy = DeployLLMOperator(
        task_id="deploy",
        name="support-model",
        model="{{ params.model }}",
        adapter=compare.output["artifact_uri"],
        smoke_test={"prompt": "{{ params.prompt }}"},
        endpoint_conn_id="model_endpoint",
        resources_per_replica={"memory": "4Gi"},
    )

    promote = PromoteModelOperator(
        task_id="promote", model_asset=SUPPORT_MODEL, candidate=compare.output, tuned=tune.output
    )

    deploy >> promote

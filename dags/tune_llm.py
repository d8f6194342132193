"""
### Tune an LLM fine-tune, then train with the best hyperparameters

`tune` creates a Katib Experiment and waits for it without a worker slot; `fine_tune` takes the best values from XCom,
trains on the full data and leaves the LoRA adapter.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

# Trials and the final run are evaluated on the same rows, so that their losses compare.
EVALUATION = {"max_eval_samples": 64}

with DAG(
    "tune_llm",
    schedule=None,
    catchup=False,
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "model": Param("HuggingFaceTB/SmolLM2-135M-Instruct", type="string", description="Base model"),
        "dataset": Param("s3://my-bucket/my-dataset", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where adapters go"),
        "trials": Param(8, type="integer", minimum=1, description="Trials in all"),
        "trial_steps": Param(20, type="integer", minimum=1, description="Training steps of each trial"),
        "epochs": Param(1.0, type="number", description="Epochs of the final run, on the full data"),
        "sample_prompt": Param("What gas makes soda bubbly?", type="string", description="Prompt to complete"),
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
        objective_metric_name="eval_loss",
        objective_type="minimize",
        algorithm_name="tpe",
        algorithm_settings={"random_state": 0},
        max_trial_count="{{ params.trials }}",
        parallel_trial_count=2,
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
            "per_device_train_batch_size": 8,
            "evaluate_base_model": True,
            "sample_prompt": "{{ params.sample_prompt }}",
            **EVALUATION,
        },
        output_uri="{{ params.output_uri }}/{{ run_id }}",
        resources_per_node={"cpu": 2, "memory": "6Gi"},
    )

"""
### Tune a text classifier, then train it with the best hyperparameters

The data have a `text` and a `label`. Each trial trains all weights of BERT with other values, and is judged by F1, the
mean over the classes, so that a rare class counts as much as a frequent one. `fine_tune` trains on all data with the
best values and leaves the model.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search

CLASSIFIER = {"task": "classification", "use_peft": False, "max_length": 128}

with DAG(
    "tune_classifier",
    schedule=None,
    catchup=False,
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "model": Param("google-bert/bert-base-uncased", type="string", description="Base model"),
        "dataset": Param("s3://my-bucket/reviews", type="string", description="Data set"),
        "output_uri": Param("s3://my-bucket/models", type="string", description="Where the model goes"),
        "trials": Param(8, type="integer", minimum=1, description="Trials in all"),
        "trial_steps": Param(100, type="integer", minimum=1, description="Training steps of each trial"),
        "epochs": Param(3.0, type="number", description="Epochs of the final run"),
    },
) as dag:
    tune = KatibTuneLLMOperator(
        task_id="tune",
        model="{{ params.model }}",
        dataset="{{ params.dataset }}",
        parameters={
            "learning_rate": search.log_uniform(1e-5, 1e-3),
            "per_device_train_batch_size": search.categorical([8, 16, 32]),
            "weight_decay": search.double(0.0, 0.1),
        },
        objective_metric_name="eval_f1",
        objective_type="maximize",
        additional_metric_names=["eval_accuracy", "eval_loss"],
        max_trial_count="{{ params.trials }}",
        trainer_args={"max_steps": "{{ params.trial_steps }}", **CLASSIFIER},
        resources_per_trial={"cpu": 1, "memory": "4Gi"},
    )

    FineTuneLLMOperator(
        task_id="fine_tune",
        model="{{ params.model }}",
        dataset="{{ params.dataset }}",
        hyperparameters=tune.output["parameters"],
        trainer_args={"num_train_epochs": "{{ params.epochs }}", **CLASSIFIER},
        output_uri="{{ params.output_uri }}/{{ run_id }}",
        resources_per_node={"cpu": 2, "memory": "6Gi"},
    )

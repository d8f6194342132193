"""An Experiment's whole life through KatibClient: created from models, watched, read, widened, deleted."""

from __future__ import annotations

import json

from kubeflow import katib
from kubernetes import client

NAME = "by-models"


def experiment() -> katib.V1beta1Experiment:
    container = client.V1Container(
        name="training",
        image="busybox",
        command=["sh", "-c", "echo accuracy=${trialParameters.rate} loss=0.5"],
    )
    job = client.V1Job(
        api_version="batch/v1",
        kind="Job",
        spec=client.V1JobSpec(
            backoff_limit=0,
            template=client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container], restart_policy="Never")),
        ),
    )
    return katib.V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata=client.V1ObjectMeta(name=NAME, labels={"team": "x"}),
        spec=katib.V1beta1ExperimentSpec(
            objective=katib.V1beta1ObjectiveSpec(
                type="maximize", objective_metric_name="accuracy", additional_metric_names=["loss"]
            ),
            algorithm=katib.V1beta1AlgorithmSpec(
                algorithm_name="random",
                algorithm_settings=[katib.V1beta1AlgorithmSetting(name="random_state", value="7")],
            ),
            parallel_trial_count=2,
            max_trial_count=3,
            max_failed_trial_count=1,
            resume_policy="LongRunning",
            parameters=[
                katib.V1beta1ParameterSpec(
                    name="rate",
                    parameter_type="double",
                    feasible_space=katib.V1beta1FeasibleSpace(min="0.1", max="0.9"),
                )
            ],
            trial_template=katib.V1beta1TrialTemplate(
                primary_container_name="training",
                retain=True,
                trial_parameters=[katib.V1beta1TrialParameterSpec(name="rate", reference="rate")],
                trial_spec=job,
            ),
        ),
    )


def main() -> None:
    client_ = katib.KatibClient()
    client_.create_experiment(experiment())
    client_.wait_for_experiment_condition(NAME, timeout=60, polling_interval=1)
    optimum = client_.get_optimal_hyperparameters(NAME)
    trials = client_.list_trials(NAME)
    before = {
        "listed": [each.metadata.name for each in client_.list_experiments()],
        "conditions": [(each.type, each.status) for each in client_.get_experiment_conditions(NAME)],
        "flags": [
            client_.is_experiment_created(NAME),
            client_.is_experiment_running(NAME),
            client_.is_experiment_restarting(NAME),
            client_.is_experiment_succeeded(NAME),
            client_.is_experiment_failed(NAME),
        ],
        "best": optimum.best_trial_name,
        "assignments": {each.name: each.value for each in optimum.parameter_assignments},
        "observation": {each.name: each.max for each in optimum.observation.metrics},
        "trials": sorted(each.metadata.name for each in trials),
        "suggestions": client_.get_suggestion(NAME).status.suggestion_count,
        "details": [
            [each["name"], {one.name: one.latest for one in each["metrics"]}]
            for each in client_.get_success_trial_details(NAME)
        ],
        "trial": client_.get_trial(optimum.best_trial_name).status.conditions[-1].type,
        "log": list(client_.get_job_logs(NAME, optimum.best_trial_name)),
        "followed": list(client_.get_job_logs(NAME, optimum.best_trial_name, follow=True)),
    }
    client_.edit_experiment_budget(NAME, max_trial_count=5, parallel_trial_count=1)
    client_.wait_for_experiment_condition(NAME, expected_condition="Restarting", timeout=60, polling_interval=1)
    widened = client_.get_experiment(NAME)
    while (widened.status.trials_succeeded or 0) < 5:
        widened = client_.get_experiment(NAME)
    client_.delete_experiment(NAME)
    print(json.dumps({"before": before, "widened": widened.spec.max_trial_count, "trials": widened.status.trials}))


main()

"""``tune(objective=…)`` in each of its forms; the word on the command line picks one."""

from __future__ import annotations

import json
import sys

from kubeflow import katib


def objective(parameters):
    rate, layers = float(parameters["rate"]), int(parameters["layers"])
    print(f"accuracy={1 - (rate - 0.5) ** 2 - layers / 100:.4f}")


def distributed(parameters):
    import torch
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    if torch.distributed.get_rank() == 0:
        print(f"accuracy={float(parameters['rate']):.4f}")
        print(f"processes={int(total)}")
    torch.distributed.destroy_process_group()


def pushing(parameters):
    from kubeflow import katib

    for step in range(3):
        katib.report_metrics({"accuracy": float(parameters["rate"]) + step, "step": step})


def space() -> dict[str, katib.V1beta1ParameterSpec]:
    return {"rate": katib.search.double(min=0.1, max=0.9), "layers": katib.search.int(min=1, max=4)}


def workers(count: int, processes: int = 1) -> katib.TrainerResources:
    return katib.TrainerResources(
        num_workers=count, num_procs_per_worker=processes, resources_per_worker={"cpu": "100m", "memory": "2Gi"}
    )


FORMS = {
    "job": {
        "objective": objective,
        "algorithm_name": "tpe",
        "algorithm_settings": {"random_state": 1},
        "resources_per_trial": {"cpu": "100m", "memory": "100Mi"},
        "env_per_trial": {"GREETING": "hello"},
        "max_trial_count": 4,
        "parallel_trial_count": 2,
    },
    "one-worker": {"objective": objective, "resources_per_trial": workers(1)},
    "two-workers": {
        "objective": distributed,
        "resources_per_trial": workers(2),
        "additional_metric_names": ["processes"],
    },
    "two-processes": {
        "objective": distributed,
        "resources_per_trial": workers(1, 2),
        "additional_metric_names": ["processes"],
    },
    "push": {
        "objective": pushing,
        "base_image": "example.com/katib-sdk:v1",
        "metrics_collector_config": {"kind": "Push"},
        "additional_metric_names": ["step"],
    },
}


def main(form: str, database: str) -> None:
    client, name = katib.KatibClient(), f"tune-{form}"
    defaults = {"base_image": "pytorch/pytorch", "max_trial_count": 2, "parallel_trial_count": 1}
    client.tune(
        name=name,
        parameters=space(),
        objective_metric_name="accuracy",
        retain_trials=True,
        **defaults | FORMS[form],
    )
    client.wait_for_experiment_condition(name, timeout=60, polling_interval=1)
    optimum = client.get_optimal_hyperparameters(name)
    best = optimum.best_trial_name
    pushed = client.get_trial_metrics(best, db_manager_address=database) if database else []
    result = {
        "kind": client.get_trial(best).spec.run_spec["kind"],
        "parameters": {each.name: each.value for each in optimum.parameter_assignments},
        "metrics": {each.name: each.latest for each in optimum.observation.metrics},
        "trials": len(client.get_success_trial_details(name)),
        "log": list(client.get_job_logs(name, best)),
        "database": [[each.metric.name, each.metric.value, each.time_stamp] for each in pushed],
    }
    client.delete_experiment(name)
    print(json.dumps(result))


main(sys.argv[1], sys.argv[2])

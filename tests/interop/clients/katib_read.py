"""An Experiment that somebody else made, its trials and its optimum, as KatibClient reads them."""

from __future__ import annotations

import json
import sys

from kubeflow import katib


def main(name: str) -> None:
    client = katib.KatibClient()
    optimum = client.get_optimal_hyperparameters(name)
    status = client.get_experiment(name).status
    result = {
        "succeeded": client.is_experiment_succeeded(name),
        "counts": {"trials": status.trials, "succeeded": status.trials_succeeded},
        "trials": {each.metadata.name: each.status.observation.metrics[0].latest for each in client.list_trials(name)},
        "best": optimum.best_trial_name,
        "parameters": {each.name: each.value for each in optimum.parameter_assignments},
        "metrics": {each.name: each.min for each in optimum.observation.metrics},
    }
    print(json.dumps(result))


main(sys.argv[1])

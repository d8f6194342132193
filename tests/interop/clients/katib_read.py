"""The optimum of an Experiment that somebody else made, as KatibClient reads it."""

from __future__ import annotations

import json
import sys

from kubeflow import katib


def main(name: str) -> None:
    optimum = katib.KatibClient().get_optimal_hyperparameters(name)
    result = {
        "best": optimum.best_trial_name,
        "parameters": {each.name: each.value for each in optimum.parameter_assignments},
        "metrics": {each.name: each.min for each in optimum.observation.metrics},
    }
    print(json.dumps(result))


main(sys.argv[1])

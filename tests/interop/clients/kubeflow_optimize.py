"""``OptimizerClient.optimize`` of the Kubeflow SDK: TrainJobs as trials, to their best result."""

from __future__ import annotations

import json

from kubeflow.optimizer import OptimizerClient
from kubeflow.optimizer.types.algorithm_types import RandomSearch
from kubeflow.optimizer.types.optimization_types import Direction, Objective, TrialConfig
from kubeflow.optimizer.types.search_types import Search
from kubeflow.trainer.types.types import CustomTrainer, TrainJobTemplate


def train(rate, optimizer):
    # The values arrive as texts.
    print(f"loss={(float(rate) - 0.3) ** 2 + (optimizer != 'adam'):.6f}")


def main() -> None:
    client = OptimizerClient()
    seen = set()
    name = client.optimize(
        TrainJobTemplate(trainer=CustomTrainer(func=train)),
        search_space={"rate": Search.uniform(min=0.1, max=0.9), "optimizer": Search.choice(["adam", "sgd"])},
        objectives=[Objective(metric="loss", direction=Direction.MINIMIZE)],
        trial_config=TrialConfig(num_trials=3, parallel_trials=1),
        algorithm=RandomSearch(random_state=5),
    )
    job = client.wait_for_job_status(
        name, timeout=100, polling_interval=1, callbacks=[lambda one: seen.add(one.status)]
    )
    best = client.get_best_results(name)
    result = {
        "status": job.status,
        "seen": sorted(seen),
        "trials": [[trial.trainjob.status, trial.trainjob.steps[0].name] for trial in job.trials],
        "parameters": best.parameters,
        "metrics": {metric.name: metric.min for metric in best.metrics},
        "log": list(client.get_job_logs(name)),
        "followed": list(client.get_job_logs(name, trial_name=job.trials[0].name, follow=True)),
        "events": sorted({(event.involved_object_kind, event.reason) for event in client.get_job_events(name)}),
        "listed": name in [one.name for one in client.list_jobs()],
    }
    client.delete_job(name)
    print(json.dumps(result))


main()

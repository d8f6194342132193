"""``TrainerClient`` of the Kubeflow SDK: a function on two nodes of the shipped runtime."""

from __future__ import annotations

import json

from kubeflow.trainer import CustomTrainer, TrainerClient


def train(greeting):
    import os

    import torch
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    print(f"{greeting} from {os.environ['RANK']} of {int(total)}", flush=True)
    torch.distributed.destroy_process_group()


def main() -> None:
    client = TrainerClient()
    runtime = client.get_runtime("torch-distributed")
    name = client.train(
        runtime=runtime, trainer=CustomTrainer(func=train, func_args={"greeting": "hello"}, num_nodes=2)
    )
    job = client.wait_for_job_status(name, timeout=100, polling_interval=1)
    result = {
        "runtimes": [each.name for each in client.list_runtimes()],
        "framework": runtime.trainer.framework,
        "status": job.status,
        "steps": sorted([step.name, step.status] for step in job.steps),
        "logs": [list(client.get_job_logs(name, step=f"node-{index}")) for index in (0, 1)],
        "events": sorted({event.involved_object_kind for event in client.get_job_events(name)}),
        "listed": name in [one.name for one in client.list_jobs()],
    }
    client.delete_job(name)
    print(json.dumps(result))


main()

"""The ClusterTrainingRuntime that a plane brings along, as upstream ships it.

The image is one for CUDA in a cluster; here any image runs with the programs it is mapped to, or with the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import CLUSTER_TRAINING_RUNTIME

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_TORCH_IMAGE = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"


def _torch_distributed() -> dict[str, Any]:
    pod = {"containers": [{"name": "node", "image": _TORCH_IMAGE}]}
    template = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"template": {"spec": pod}},
    }
    return {
        "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}},
        },
    }


def ship_runtimes(registry: Registry) -> None:
    """What is there already, from an earlier start on the same state, stays as it is."""
    runtime = _torch_distributed()
    if registry.find(CLUSTER_TRAINING_RUNTIME, None, runtime["metadata"]["name"]) is None:
        registry.create(CLUSTER_TRAINING_RUNTIME, runtime)

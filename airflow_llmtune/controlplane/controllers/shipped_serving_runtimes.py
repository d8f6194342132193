"""The ClusterServingRuntimes that a plane brings along, under the names that KServe ships.

Their containers run our own model server in place of Hugging Face's and vLLM's: it takes their flags. The server type
is none of KServe's, which would change the image's name for a pod without a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.serving_names import MAIN_CONTAINER, MODEL_FOLDER, MODEL_PORT, SERVER_TYPE
from airflow_llmtune.controlplane.apiserver.kinds import CLUSTER_SERVING_RUNTIME

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

IMAGE = "airflow-llmtune/trainer:0.1.0"
COMMAND = ("python", "-m", "llmtune_trainer.serve")
ADDRESS = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
"""All pods share one loopback interface, so a server listens on its own address only."""


def readiness_probe() -> dict[str, Any]:
    """Often, as the pod is near."""
    return {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5}


def _runtime(name: str, model_format: str, args: list[str], **spec: Any) -> dict[str, Any]:
    container = {
        "name": MAIN_CONTAINER,
        "image": IMAGE,
        "command": list(COMMAND),
        "args": [*args, "--host=$(POD_IP)", f"--port={MODEL_PORT}"],
        "env": [ADDRESS],
        "readinessProbe": readiness_probe(),
    }
    formats = [{"name": model_format, "version": "1", "autoSelect": True, "priority": 1}]
    return {
        "metadata": {"name": name, "annotations": {SERVER_TYPE: "llmtune"}},
        "spec": {"supportedModelFormats": formats, **spec, "containers": [container]},
    }


def ship_serving_runtimes(registry: Registry) -> None:
    """What is there already, from an earlier start on the same state, stays as it is."""
    hugging_face = ["--model_name={{.Name}}", f"--model_dir={MODEL_FOLDER}"]
    vllm = ["--served-model-name={{.Name}}", f"--model={MODEL_FOLDER}"]
    for runtime in (
        _runtime("kserve-huggingfaceserver", "huggingface", hugging_face, protocolVersions=["v2", "v1"]),
        _runtime("kserve-vllmserver", "vLLM", vllm),
    ):
        if registry.find(CLUSTER_SERVING_RUNTIME, None, runtime["metadata"]["name"]) is None:
            registry.create(CLUSTER_SERVING_RUNTIME, runtime)

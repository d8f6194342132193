"""The JobSet that a TrainJob becomes: its runtime's template, its patches, its own values, torch's variables. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.runtime_patches import replicated_jobs
from airflow_llmtune.controlplane.admission.training_runtime import ancestor_of
from airflow_llmtune.controlplane.apiserver.kinds import TRAIN_JOB
from airflow_llmtune.controlplane.apiserver.patch import strategic_merge_patch
from airflow_llmtune.controlplane.controllers.job_indexes import INDEX
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from airflow_llmtune.controlplane.quantities import whole

Object = dict[str, Any]

PORT_VARIABLE = "PET_MASTER_PORT"
_NODE = "node"


def job_set(train_job: Object, runtime: Mapping[str, Any], port: int) -> Object:
    """``port`` is where the first process listens: 29500 in a cluster, where every pod has an address of its own."""
    name, spec = train_job["metadata"]["name"], train_job["spec"]
    template = {"spec": {}, **copy.deepcopy(runtime["spec"].get("template", {}))}
    metadata = template.get("metadata") or {}
    for patch in spec.get("runtimePatches") or ():
        metadata = _patch(template["spec"], metadata, patch)
    policy = runtime["spec"].get("mlPolicy")
    for job in template["spec"].get("replicatedJobs") or ():
        _fill_in(job, train_job, policy, port)
    _add_to_others(template["spec"].get("replicatedJobs") or (), train_job, policy, port)
    template["spec"]["suspend"] = bool(spec.get("suspend"))
    kept = {key: dict(metadata[key]) for key in ("labels", "annotations") if metadata.get(key)}
    return {
        "metadata": {
            **kept,
            "name": name,
            "namespace": train_job["metadata"]["namespace"],
            "ownerReferences": [owner_reference(TRAIN_JOB, train_job)],
        },
        "spec": template["spec"],
    }


def known_port(made: Mapping[str, Any]) -> int | None:
    """The port that an existing JobSet's pods were told."""
    for job in made["spec"].get("replicatedJobs") or ():
        for container in job["template"]["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env") or ():
                if variable["name"] == PORT_VARIABLE:
                    return int(variable["value"])
    return None


def _patch(spec: Object, metadata: Mapping[str, Any], patch: Object) -> Object:
    """Patches the jobs in place; the labels and annotations of the JobSet are returned."""
    by_name = {job["name"]: job for job in spec.get("replicatedJobs") or ()}
    for change in replicated_jobs(patch):
        job = by_name[change["name"]]
        job["template"] = strategic_merge_patch(job["template"], change.get("template") or {})
    added = ((patch.get("trainingRuntimeSpec") or {}).get("template") or {}).get("metadata") or {}
    return {key: {**(metadata.get(key) or {}), **(added.get(key) or {})} for key in ("labels", "annotations")}


def _fill_in(job: Object, train_job: Object, policy: Object | None, port: int) -> None:
    step, spec = ancestor_of(job), job["template"]["spec"]
    count = spec.get("parallelism", 1)
    if step == "trainer":
        count = _node_count(train_job, policy)
        _fill_trainer(job, train_job, policy, port)
    elif step in ("dataset-initializer", "model-initializer"):
        _fill_initializer(_container(job, step), (train_job["spec"].get("initializer") or {}).get(step.split("-")[0]))
    spec["parallelism"] = spec["completions"] = count


def _node_count(train_job: Object, policy: Object | None) -> int:
    asked: int | None = (train_job["spec"].get("trainer") or {}).get("numNodes")
    default: int = (policy or {}).get("numNodes", 1)
    return default if asked is None else asked


def _container(job: Object, name: str) -> Object | None:
    containers = job["template"]["spec"]["template"]["spec"].get("containers") or []
    return next((one for one in containers if one["name"] == name), None)


def _fill_trainer(job: Object, train_job: Object, policy: Object | None, port: int) -> None:
    trainer, container = train_job["spec"].get("trainer"), _container(job, _NODE)
    if trainer is None or container is None:
        return
    for field in ("image", "command", "args"):
        if field in trainer:
            container[field] = trainer[field]
    if "resourcesPerNode" in trainer and policy is not None:
        container["resources"] = strategic_merge_patch(container.get("resources") or {}, trainer["resourcesPerNode"])
    _upsert(container, trainer.get("env") or ())
    if policy is not None and policy.get("torch") is not None:
        _upsert(container, _torch(train_job, policy, container, port))
        ports = container.setdefault("ports", [])
        if all(one.get("containerPort") != port for one in ports):
            ports.append({"containerPort": port})


def _torch(train_job: Object, policy: Object, node: Object | None, port: int) -> list[Object]:
    trainer, name = train_job["spec"].get("trainer") or {}, train_job["metadata"]["name"]
    resources: Object = trainer.get("resourcesPerNode") or (node or {}).get("resources") or {}
    field = f"metadata.annotations['{INDEX}']"
    return [
        {"name": "PET_NNODES", "value": str(_node_count(train_job, policy))},
        {"name": "PET_NPROC_PER_NODE", "value": processes(trainer.get("numProcPerNode"), resources)},
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": field}}},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-{_NODE}-0-0.{name}"},
        {"name": PORT_VARIABLE, "value": str(port)},
    ]


def _add_to_others(jobs: Sequence[Object], train_job: Object, policy: Object | None, port: int) -> None:
    """To containers beside the trainer for which the runtime asks it."""
    targets = (((policy or {}).get("torch") or {}).get("envInjection") or {}).get("targets") or ()
    wanted = {(target["jobName"], name) for target in targets for name in target["containerNames"]}
    node = next((_container(job, _NODE) for job in jobs if ancestor_of(job) == "trainer"), None)
    for job in jobs:
        pod = job["template"]["spec"]["template"]["spec"]
        for container in [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]:
            if (job["name"], container["name"]) in wanted:
                _upsert(container, _torch(train_job, policy or {}, node, port))


def processes(asked: int | None, resources: Mapping[str, Any]) -> str:
    """``auto`` is one process per processor where no GPU is asked for: of the requests, else of the limits."""
    if asked is not None:
        return str(asked)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if any("gpu" in name.lower() and whole(value) for one in (requests, limits) for name, value in one.items()):
        return "auto"
    return str(max(1, whole(requests.get("cpu", 0)) or whole(limits.get("cpu", 0))))


def _fill_initializer(container: Object | None, asked: Object | None) -> None:
    if container is None or asked is None:
        return
    if "storageUri" in asked:
        _upsert(container, [{"name": "STORAGE_URI", "value": asked["storageUri"]}])
    _upsert(container, asked.get("env") or ())
    if asked.get("secretRef"):
        source = {"secretRef": {"name": asked["secretRef"]["name"]}}
        container["envFrom"] = [*(container.get("envFrom") or ()), source]


def _upsert(container: Object, variables: Iterable[Object]) -> None:
    """A variable of the same name is replaced where it stands."""
    env = {one["name"]: one for one in container.get("env") or ()}
    env |= {one["name"]: one for one in variables}
    if env:
        container["env"] = list(env.values())

from __future__ import annotations

import copy
from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.train_job_parts import job_set, known_port, processes
from objects import Object

ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"


def step(
    name: str, ancestor: str = "", *, container: str = "node", spec: Object | None = None, **fields: Any
) -> Object:
    pod = {"containers": [{"name": container, "image": "runtime", **fields}], **(spec or {})}
    metadata = {"metadata": {"labels": {ANCESTOR: ancestor}}} if ancestor else {}
    return {"name": name, "replicas": 1, "template": {**metadata, "spec": {"template": {"spec": pod}}}}


def runtime(*jobs: Object, policy: Object | None = None, **metadata: Any) -> Object:
    torch: Object = {"numNodes": 2, "torch": {}} if policy is None else policy
    template = {"metadata": metadata, "spec": {"replicatedJobs": list(jobs) or [step("node", "trainer")]}}
    return {"spec": {"template": template, **({"mlPolicy": torch} if torch else {})}}


def train_job(**spec: Any) -> Object:
    metadata = {"name": "job", "namespace": "default", "uid": "u"}
    return {"metadata": metadata, "spec": {"runtimeRef": {"name": "r"}, **spec}}


def pod(made: Object, index: int = 0) -> Object:
    found: Object = made["spec"]["replicatedJobs"][index]["template"]["spec"]["template"]["spec"]
    return found


def patch(*jobs: Object, **metadata: Any) -> Object:
    template = {"metadata": metadata, "spec": {"replicatedJobs": list(jobs)}}
    return {"manager": "acme.io/queue", "trainingRuntimeSpec": {"template": template}}


def patched_pod(spec: Object, *, name: str = "node", **metadata: Any) -> Object:
    return {"name": name, "template": {"spec": {"template": {"metadata": metadata, "spec": spec}}}}


def test_the_trainers_values_win_over_the_runtimes_and_torch_is_told_who_is_who() -> None:
    trainer = {"image": "own", "command": ["torchrun"], "args": ["t.py"], "env": [{"name": "A", "value": "1"}]}
    source = runtime(step("node", "trainer", env=[{"name": "A", "value": "0"}, {"name": "B", "value": "2"}]))
    before = copy.deepcopy(source)
    made = job_set(train_job(trainer=trainer, numNodes=9), source, 4567)
    assert source == before
    (node,) = pod(made)["containers"]
    field = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
    assert node == {
        "name": "node",
        "image": "own",
        "command": ["torchrun"],
        "args": ["t.py"],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "2"},
            {"name": "PET_NNODES", "value": "2"},
            {"name": "PET_NPROC_PER_NODE", "value": "1"},
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": field}},
            {"name": "PET_MASTER_ADDR", "value": "job-node-0-0.job"},
            {"name": "PET_MASTER_PORT", "value": "4567"},
        ],
        "ports": [{"containerPort": 4567}],
    }
    spec = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (spec["parallelism"], spec["completions"]) == (2, 2)
    assert known_port(made) == 4567
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainJob", "u", True)


@pytest.mark.parametrize(
    ("policy", "trainer", "nodes", "variables"),
    [
        ({"numNodes": 2, "torch": {}}, {"numNodes": 3}, 3, True),
        ({"torch": {}}, {}, 1, True),
        ({"numNodes": 4}, {}, 4, False),
        ({"numNodes": 4}, {"numNodes": 2}, 2, False),
        ({"numNodes": 2, "torch": {}}, None, 2, False),
    ],
)
def test_the_job_says_how_many_nodes_there_are_else_the_runtime(
    policy: Object, trainer: Object | None, nodes: int, variables: bool
) -> None:
    job = train_job() if trainer is None else train_job(trainer=trainer)
    made = job_set(job, runtime(policy=policy), 1)
    assert made["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == nodes
    assert (known_port(made) is not None) is variables


@pytest.mark.parametrize(
    ("asked", "resources", "expected"),
    [
        (3, {"requests": {"nvidia.com/gpu": 1}}, "3"),
        (None, {}, "1"),
        (None, {"requests": {"cpu": "8"}}, "8"),
        (None, {"limits": {"cpu": 4}}, "4"),
        (None, {"requests": {"cpu": "500m"}, "limits": {"cpu": "4"}}, "1"),
        (None, {"requests": {"cpu": "1500m"}}, "2"),
        (None, {"limits": {"nvidia.com/gpu": "2"}}, "auto"),
        (None, {"limits": {"nvidia.com/gpu": "0"}, "requests": {"cpu": "2"}}, "2"),
        (None, {"requests": {"cpu": "1k"}}, "1000"),
        (None, {"limits": {"acme.io/gpu-memory": "4Gi"}}, "auto"),
    ],
)
def test_the_number_of_processes_follows_the_processors_where_no_gpu_is_asked_for(
    asked: int | None, resources: Object, expected: str
) -> None:
    assert processes(asked, resources) == expected


def test_the_jobs_resources_are_merged_into_the_runtimes() -> None:
    source = runtime(step("node", "trainer", resources={"requests": {"cpu": "2", "memory": "1Gi"}}))
    made = job_set(train_job(trainer={"resourcesPerNode": {"requests": {"cpu": "4"}}}), source, 1)
    node = pod(made)["containers"][0]
    assert node["resources"] == {"requests": {"cpu": "4", "memory": "1Gi"}}
    assert {"name": "PET_NPROC_PER_NODE", "value": "4"} in node["env"]


def test_patches_are_merged_by_name_in_their_order() -> None:
    source = runtime(
        step("other", spec={"nodeSelector": {"a": "b"}}),
        step("node", "trainer", volumeMounts=[{"name": "old", "mountPath": "/old"}]),
        labels={"from": "runtime", "kept": "yes"},
    )
    container = {"name": "node", "volumeMounts": [{"name": "new", "mountPath": "/new"}]}
    first = patched_pod({"containers": [container], "nodeSelector": {"zone": "a"}}, labels={"pod": "1"})
    second = patched_pod({"nodeSelector": {"zone": "b"}, "serviceAccountName": "sa"})
    job = train_job(runtimePatches=[patch(first, labels={"from": "patch"}), patch(second)])
    made = job_set(job, source, 1)
    assert made["metadata"]["labels"] == {"from": "patch", "kept": "yes"}
    assert [one["name"] for one in made["spec"]["replicatedJobs"]] == ["other", "node"]
    spec = pod(made, 1)
    assert [mount["name"] for mount in spec["containers"][0]["volumeMounts"]] == ["old", "new"]
    assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"zone": "b"}, "sa")
    template = made["spec"]["replicatedJobs"][1]["template"]["spec"]["template"]
    assert template["metadata"]["labels"] == {"pod": "1"}
    assert pod(made, 0)["nodeSelector"] == {"a": "b"}


def test_initializers_get_their_address_and_their_secret() -> None:
    source = runtime(
        step("dataset-initializer", "dataset-initializer", container="dataset-initializer"), step("node", "trainer")
    )
    env = [{"name": "REGION", "value": "eu"}]
    dataset = {"storageUri": "s3://bucket/data", "env": env, "secretRef": {"name": "keys"}}
    made = job_set(train_job(initializer={"dataset": dataset}), source, 1)
    (container,) = pod(made)["containers"]
    assert container["env"] == [{"name": "STORAGE_URI", "value": "s3://bucket/data"}, *env]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_torchs_variables_reach_other_containers_for_which_the_runtime_asks_it() -> None:
    targets = [{"jobName": "node", "containerNames": ["probe"]}]
    policy = {"torch": {"envInjection": {"targets": targets}}}
    source = runtime(step("node", "trainer", spec={"initContainers": [{"name": "probe"}]}), policy=policy)
    made = job_set(train_job(), source, 77)
    (probe,) = pod(made)["initContainers"]
    assert {"name": "PET_MASTER_PORT", "value": "77"} in probe["env"]


def test_a_runtime_may_name_no_jobs_and_a_target_no_containers() -> None:
    policy = {"torch": {"envInjection": {"targets": [{"jobName": "other", "containerNames": []}]}}}
    made = job_set(train_job(trainer={"image": "x"}), {"spec": {"mlPolicy": policy}}, 1)
    assert made["spec"] == {"suspend": False}

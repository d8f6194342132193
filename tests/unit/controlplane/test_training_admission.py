"""What the trainer's definitions and webhooks say to TrainJobs and runtimes."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    JOB_SET,
    TRAIN_JOB,
    TRAINING_RUNTIME,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from objects import Object
from registries import refused

WEBHOOK = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '


@pytest.fixture
def registry(registry: Registry) -> Registry:
    ship_runtimes(registry)
    return registry


def train_job(name: str = "job", *, runtime: str = "torch-distributed", **spec: Any) -> Object:
    reference = {"runtimeRef": {"name": runtime}}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {**reference, **spec}}


def patch(manager: str = "acme.io/queue", *, job: str = "node", **pod: Any) -> Object:
    changed = {"name": job, "template": {"spec": {"template": {"spec": pod}}}}
    return {"manager": manager, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [changed]}}}}


def runtime_job(step: str = "trainer", container: str = "node", **fields: Any) -> Object:
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": step}
    pod = {"containers": [{"name": container, "image": "x"}]}
    return {"name": step, "template": {"metadata": {"labels": labels}, "spec": {"template": {"spec": pod}}}, **fields}


def runtime(*jobs: Object, **policy: Any) -> Object:
    spec = {"mlPolicy": policy, "template": {"spec": {"replicatedJobs": list(jobs)}}}
    return {"metadata": {"name": "own", "namespace": "default"}, "spec": spec}


def test_defaults_are_filled_in_and_unknown_fields_vanish(registry: Registry) -> None:
    made = registry.create(TRAIN_JOB, train_job(labels={"a": "b"}, trainer={"numNodes": None, "image": "x"}))
    assert made["spec"] == {
        "runtimeRef": {
            "name": "torch-distributed",
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
        },
        "trainer": {"image": "x"},
        "suspend": False,
        "managedBy": "trainer.kubeflow.org/trainjob-controller",
    }


NO_INTEGER = (
    'spec.trainer.numNodes: Invalid value: "string": spec.trainer.numNodes in body must be of type integer: "string"'
)
NO_QUANTITY = (
    'spec.trainer.resourcesPerNode.limits[cpu]: Invalid value: "lots": '
    "spec.trainer.resourcesPerNode.limits[cpu] in body should match "
    r"'^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$'"
)
TOO_SHORT = (
    "spec.activeDeadlineSeconds: Invalid value: 0: spec.activeDeadlineSeconds in body should be greater than "
    "or equal to 1"
)
NO_MANAGER = (
    'spec.managedBy: Invalid value: "string": ManagedBy must be trainer.kubeflow.org/trainjob-controller or '
    "kueue.x-k8s.io/multikueue if set"
)
NO_URI = (
    'spec.initializer.model.storageUri: Invalid value: "string": storageUri may be empty, or it must be a '
    "valid URI (scheme://...)"
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (train_job("1st"), '<nil>: Invalid value: "object": metadata.name must match RFC 1035 DNS label format'),
        (train_job("a" * 64), '<nil>: Invalid value: "object": metadata.name must be no more than 63 characters'),
        ({"metadata": {"name": "job", "namespace": "default"}}, "spec.runtimeRef: Required value"),
        (
            train_job(trainer={"numNodes": "2"}),
            NO_INTEGER,
        ),
        (
            train_job(trainer={"resourcesPerNode": {"limits": {"cpu": "lots"}}}),
            NO_QUANTITY,
        ),
        (
            train_job(trainer={"env": [{"name": "A"}, {"name": "A"}]}),
            'spec.trainer.env[1]: Duplicate value: {"name":"A"}',
        ),
        (
            train_job(runtimePatches=[patch(), patch()]),
            'spec.runtimePatches[1]: Duplicate value: {"manager":"acme.io/queue"}',
        ),
        (
            train_job(activeDeadlineSeconds=0),
            TOO_SHORT,
        ),
        (
            train_job(managedBy="acme.io/queue"),
            NO_MANAGER,
        ),
        (
            train_job(initializer={"model": {"storageUri": "hub/model"}}),
            NO_URI,
        ),
    ],
)
def test_what_breaks_the_definition_is_invalid(registry: Registry, body: Object, message: str) -> None:
    error = refused(registry.create, TRAIN_JOB, body)
    name = body["metadata"]["name"]
    assert (error.code, error.message) == (422, f'TrainJob.trainer.kubeflow.org "{name}" is invalid: {message}')


NO_DOMAIN = (
    'spec.runtimePatches.manager: Invalid value: "queue": must be a domain-prefixed path (such as "acme.io/foo")'
)
NO_STEP = "must have dataset-initializer job when trainJob is configured with input datasetConfig"
RESERVED = "must not have reserved envs, invalid envs configured: [PET_NNODES PET_NODE_RANK]"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            train_job(runtime="no"),
            '"no" not found: specified clusterTrainingRuntime must be created before the TrainJob is created',
        ),
        (
            {
                "metadata": {"name": "job", "namespace": "default"},
                "spec": {"runtimeRef": {"name": "a", "kind": "Other"}},
            },
            "unsupported runtime: Other.trainer.kubeflow.org",
        ),
        (train_job(initializer={"dataset": {"storageUri": "hf://a/b"}}), NO_STEP),
        (train_job(trainer={"env": [{"name": "PET_NODE_RANK"}, {"name": "PET_NNODES"}, {"name": "A"}]}), RESERVED),
        (
            train_job(runtimePatches=[patch("queue")]),
            NO_DOMAIN,
        ),
        (
            train_job(runtimePatches=[patch(job="launcher")]),
            "must not have replicated job that doesn't exist in the runtime job template",
        ),
        (
            train_job(runtimePatches=[patch(containers=[{"name": "sidecar"}])]),
            "must not have container that doesn't exist in the runtime job node",
        ),
        (
            train_job(runtimePatches=[patch(initContainers=[{"name": "sidecar"}])]),
            "must not have initContainer that doesn't exist in the runtime job node",
        ),
        (
            train_job(runtimePatches=[patch(containers=[{"name": "node", "env": [{"name": "A"}]}])]),
            "must not have envs for the dataset-initializer, model-initializer, node containers",
        ),
    ],
)
def test_what_breaks_the_webhooks_rules_is_forbidden(registry: Registry, body: Object, message: str) -> None:
    error = refused(registry.create, TRAIN_JOB, body)
    assert error.code == 403
    assert error.message.startswith(WEBHOOK)
    assert error.message.endswith(message)


def test_torchtune_is_refused(registry: Registry) -> None:
    error = refused(registry.create, TRAIN_JOB, train_job(trainer={"command": ["tune", "run"]}))
    assert "torchtune is not supported here" in error.message


@pytest.mark.parametrize(
    "change",
    [{"trainer": {"image": "y"}}, {"runtimeRef": {"name": "other"}}, {"activeDeadlineSeconds": 9}],
)
def test_most_of_a_job_cannot_change(registry: Registry, change: Object) -> None:
    made = registry.create(TRAIN_JOB, train_job(trainer={"image": "x"}, activeDeadlineSeconds=8))
    error = refused(registry.update, TRAIN_JOB, {**made, "spec": {**made["spec"], **change}})
    assert (error.code, f"spec.{next(iter(change))}: Invalid value:" in error.message) == (422, True)
    assert error.message.endswith("field is immutable")


def test_patches_change_only_while_the_job_is_held_and_tell_when_they_did(registry: Registry) -> None:
    made = registry.create(TRAIN_JOB, train_job(suspend=True, runtimePatches=[patch(nodeSelector={"a": "b"})]))
    first = made["spec"]["runtimePatches"][0]["time"]
    made["spec"]["runtimePatches"].append(patch("acme.io/other", nodeSelector={"c": "d"}))
    made["spec"]["suspend"] = False
    made = registry.update(TRAIN_JOB, made)
    assert made["spec"]["runtimePatches"][0]["time"] == first
    made["spec"]["runtimePatches"].pop()
    error = refused(registry.update, TRAIN_JOB, made)
    text = "RuntimePatches can only be modified when the TrainJob is suspended before or after the update"
    assert error.message == f"{WEBHOOK}spec.runtimePatches: Forbidden: {text}"


def test_patches_do_not_change_while_pods_still_run(registry: Registry) -> None:
    made = registry.create(TRAIN_JOB, train_job(suspend=True))
    job_set = registry.create(JOB_SET, {"metadata": {"name": "job", "namespace": "default"}, "spec": {}})
    status = {"replicatedJobsStatus": [{"name": "node", "active": 1}]}
    registry.update_status(JOB_SET, {**job_set, "status": status})
    made["spec"]["runtimePatches"] = [patch(nodeSelector={"a": "b"})]
    error = refused(registry.update, TRAIN_JOB, made)
    assert error.message.endswith(
        "RuntimePatches cannot be modified when the JobSet's ReplicatedJob node is still active"
    )


def test_an_initializer_needs_its_container_and_its_volume(registry: Registry) -> None:
    registry.create(TRAINING_RUNTIME, runtime(runtime_job(), runtime_job("model-initializer", "model-initializer")))
    body = train_job(initializer={"model": {}})
    body["spec"]["runtimeRef"] = {"name": "own", "kind": "TrainingRuntime"}
    text = "must have volumeMount with name - initializer in container model-initializer of the model-initializer job"
    assert refused(registry.create, TRAIN_JOB, body).message.endswith(text)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            runtime(runtime_job(replicas=2)),
            403,
            "spec.template.spec.replicatedJobs[0].replicas: Invalid value: 2: always must be 1",
        ),
        (runtime(runtime_job(container="main")), 403, "must contain the required container for the ancestor: trainer"),
        (runtime(runtime_job(), torch={}, mpi={}), 422, "Only one of the policy can be configured"),
        (runtime(runtime_job(), mpi={}), 400, "mlPolicy.mpi is not supported here, only torch and none"),
    ],
)
def test_a_wrong_runtime_is_refused(registry: Registry, body: Object, code: int, message: str) -> None:
    for kind in (TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME):
        error = refused(registry.create, kind, body)
        assert (error.code, error.message.endswith(message)) == (code, True), error.message


@pytest.mark.parametrize("containers", [["other"], ["node", "other"]])
def test_torchs_variables_can_go_only_into_containers_that_exist(registry: Registry, containers: list[str]) -> None:
    target = {"jobName": "trainer", "containerNames": containers}
    registry.create(TRAINING_RUNTIME, runtime(runtime_job(), torch={"envInjection": {"targets": [target]}}))
    body = train_job()
    body["spec"]["runtimeRef"] = {"name": "own", "kind": "TrainingRuntime"}
    text = 'envInjection target podSet "trainer" container "other" not found in runtime template'
    assert refused(registry.create, TRAIN_JOB, body).message.endswith(text)


def test_a_runtimes_pods_are_typed_also_when_it_changes(registry: Registry) -> None:
    made = registry.create(TRAINING_RUNTIME, runtime(runtime_job(), torch={}))
    (job,) = made["spec"]["template"]["spec"]["replicatedJobs"]
    job["template"]["spec"]["template"]["spec"]["containers"][0]["resources"] = "much"
    error = refused(registry.update, TRAINING_RUNTIME, made)
    assert (error.code, "cannot unmarshal string into Go struct field" in error.message) == (400, True)

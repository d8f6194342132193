from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import PYTORCH_JOB
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused

WEBHOOK = 'admission webhook "validator.pytorchjob.training-operator.kubeflow.org" denied the request: '
MANAGERS = '"kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"'
MASTER = "spec.pytorchReplicaSpecs[Master]"


def replica(count: int | None = 1, *, name: str = "pytorch", image: str = "x") -> Object:
    spec = {"containers": [{"name": name, "image": image}]}
    return {"template": {"spec": spec}, **({} if count is None else {"replicas": count})}


def pytorch_job(name: str = "job", *, replicas: Object | None = None, **spec: Any) -> Object:
    specs = {"Master": replica()} if replicas is None else replicas
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"pytorchReplicaSpecs": specs, **spec}}


def test_only_the_suspension_has_a_default_that_is_stored(registry: Registry) -> None:
    made = registry.create(PYTORCH_JOB, pytorch_job(runPolicy={"cleanPodPolicy": "All"}))
    assert made["spec"]["runPolicy"] == {"cleanPodPolicy": "All", "suspend": False}
    assert "restartPolicy" not in made["spec"]["pytorchReplicaSpecs"]["Master"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (pytorch_job(replicas={}), "spec.pytorchReplicaSpecs: Required value: must be required"),
        (pytorch_job(replicas={"Master": replica(None)}), f"{MASTER}.replicas: Forbidden: must be 1"),
        (pytorch_job(replicas={"Master": replica(2)}), f"{MASTER}.replicas: Forbidden: must be 1"),
        (
            pytorch_job(replicas={"Worker": replica(0)}),
            "spec.pytorchReplicaSpecs[Worker].replicas: Forbidden: must be at least 1",
        ),
        (
            pytorch_job(replicas={"Chief": replica()}),
            'spec.pytorchReplicaSpecs[Chief]: Unsupported value: "Chief": supported values: "Master", "Worker"',
        ),
        (
            pytorch_job(replicas={"Master": replica(name="main")}),
            f"{MASTER}.template.spec.containers: Required value: must have at least one container with name pytorch",
        ),
        (
            pytorch_job(replicas={"Master": replica(image="")}),
            f"{MASTER}.template.spec.containers[0].image: Required value: must be required",
        ),
        (
            pytorch_job(elasticPolicy={}),
            "spec.pytorchReplicaSpecs[Worker]: Required value: must be configured if elastic policy is used",
        ),
        (
            pytorch_job(replicas={"Worker": replica()}, nprocPerNode="1", elasticPolicy={"nProcPerNode": 1}),
            "spec.elasticPolicy.nProcPerNode: Forbidden: must not be used with spec.nprocPerNode",
        ),
        (
            pytorch_job(runPolicy={"managedBy": "acme.io/queue"}),
            f'spec.runPolicy.managedBy: Unsupported value: "acme.io/queue": supported values: {MANAGERS}',
        ),
    ],
)
def test_a_wrong_job_is_refused_with_the_operators_words(registry: Registry, body: Object, message: str) -> None:
    error = refused(registry.create, PYTORCH_JOB, body)
    assert (error.code, error.message) == (403, WEBHOOK + message)


def test_several_mistakes_are_told_at_once(registry: Registry) -> None:
    error = refused(registry.create, PYTORCH_JOB, pytorch_job(replicas={"Master": {"replicas": 2}}))
    where = f"{MASTER}.template.spec.containers: Required value:"
    texts = [
        f"{where} must be specified",
        f"{where} must have at least one container with name pytorch",
        f"{MASTER}.replicas: Forbidden: must be 1",
    ]
    assert error.message == f"{WEBHOOK}[{', '.join(texts)}]"


@pytest.mark.parametrize("name", ["1st", "a" * 64])
def test_a_name_must_be_one_of_a_service(registry: Registry, name: str) -> None:
    error = refused(registry.create, PYTORCH_JOB, pytorch_job(name))
    assert f'metadata.name: Invalid value: "{name}": should match: ' in error.message


def test_the_pods_are_checked_before_a_controller_makes_them(registry: Registry) -> None:
    wrong = replica()
    wrong["template"]["spec"]["containers"].append({"name": "pytorch", "image": "y"})
    error = refused(registry.create, PYTORCH_JOB, pytorch_job(replicas={"Master": wrong}))
    assert (error.code, "Duplicate value" in error.message) == (422, True)


def test_a_port_needs_its_number(registry: Registry) -> None:
    wrong = replica()
    wrong["template"]["spec"]["containers"][0]["ports"] = [{"name": "pytorchjob-port"}, {"containerPort": 70000}]
    error = refused(registry.create, PYTORCH_JOB, pytorch_job(replicas={"Master": wrong}))
    where = f"{MASTER}.template.spec.containers[0].ports"
    assert f"{where}[0].containerPort: Required value: " in error.message
    assert f"{where}[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive" in error.message
